"""Predictions of the runs of a report: their scores, and whether they can be right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.task import Task, make_task
from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.predictions import Answers, TextAnswers, bytes_of, read_predictions, same_answers
from hpml_bench.records.run import Metric, RunRecord
from hpml_bench.report.faults import Fault
from hpml_bench.system.errors import UserError

TOLERANCE = 1e-6
"""Relative tolerance between a recorded metric and that of the stored predictions, whose losses are float32."""

CHECK_FAILED = "self-check failed"


@dataclass(frozen=True)
class Scored:
    """A run's stored predictions of the test rows, in row order, scored by the task."""

    index: NDArray[Any]
    reference: Answers
    scores: NDArray[Any]
    """[rows], whose mean is the headline metric."""
    metrics: Mapping[str, float]
    """The test metrics by their names."""
    texts: TextAnswers | None = None
    """Text answers, where the task has them."""
    group: NDArray[Any] | None = None
    """[rows], equal for rows that belong together; None where each stands alone."""

    def sharing(self, other: Scored | None) -> Scored:
        """Return the same with the rows of another run where they are equal, so that memory has them once."""
        same = other is not None and np.array_equal(self.index, other.index)
        if other is None or not same or not same_answers(self.reference, other.reference):
            return self
        return replace(self, index=other.index, reference=other.reference)


def task_of(record: RunRecord) -> Task:
    """Return the task of a run; a UserError where it isn't installed."""
    return make_task(record.spec.settings.task, record.label_names)


def read_all(folder: Path, records: Iterable[RunRecord]) -> dict[str, Scored]:
    """Return run_id -> scored predictions, of the runs that have some."""
    found: dict[str, Scored] = {}
    last: Scored | None = None
    for record in records:
        try:
            own = read(folder / record.run_id, record, task_of(record))
        except UserError:  # its task isn't installed here: `faults` says so
            continue
        if own is not None:
            last = found[record.run_id] = own.sharing(last)  # most runs have the same rows
    return found


def read(folder: Path, record: RunRecord, task: Task) -> Scored | None:
    """Return a run's predictions, scored; None if they can't be read or scored.

    If the record defines the headline metric otherwise than this version, its recorded scores are kept, row by row.
    """
    stored = read_predictions(folder)
    if stored is None:
        return None
    try:
        metrics = {f"test_{name}": value for name, value in task.evaluate(stored).items()}
        scores = task.scores(stored)
        if stored.scores is not None and _definition(record.definitions, task) != _definition(task.metrics, task):
            scores = stored.scores.astype(scores.dtype)
            metrics[task.headline] = float(scores.mean())
        return Scored(stored.index, stored.reference, scores, metrics, stored.texts, stored.group)
    except (ValueError, TypeError, IndexError):
        return None


def _definition(metrics: Iterable[Metric], task: Task) -> str | None:
    return next((metric.definition for metric in metrics if metric.name == task.headline), None)


def faults(records: Iterable[RunRecord], stored: Mapping[str, Scored]) -> dict[str, Fault]:
    """Return run_id -> reason why a run of one protocol is invalid: a failed self-check, or wrong predictions."""
    found = {}
    usual = _usual(stored.values())
    for record in records:
        try:
            task_of(record)
        except UserError as error:  # its task isn't installed here
            found[record.run_id] = Fault("predictions", f"its scores can't be checked: {error}")
            continue
        failed = [f"{check.name}: {check.detail}" for check in record.checks if not check.passed]
        if failed:
            found[record.run_id] = Fault("self-checks", f"{CHECK_FAILED}: {'; '.join(failed)}")
        elif reason := _unlike(record, stored.get(record.run_id), usual):
            found[record.run_id] = Fault("predictions", reason)
    return found


def _unlike(record: RunRecord, scored: Scored | None, usual: Scored | None) -> str | None:
    """Return why a run's predictions can't be right, or be checked; None if they can."""
    if PREDICTIONS not in record.files:
        return f"its record names no {PREDICTIONS}, so that its scores can't be checked"
    if scored is None:
        return f"its {PREDICTIONS} is missing or can't be read, so that its scores can't be checked"
    return _fault(scored, usual, record)


def _usual(stored: Iterable[Scored]) -> Scored | None:
    """Return a run with the references and groups of most runs, of those with each row once; None if there is none."""
    whole = [one for one in stored if np.array_equal(one.index, np.arange(len(one.index)))]
    kinds = [(bytes_of(one.reference), _groups_of(one), _texts_of(one)) for one in whole]
    return whole[kinds.index(Counter(kinds).most_common(1)[0][0])] if whole else None


def _groups_of(scored: Scored) -> bytes | None:
    """Return groups as bytes, equal for equal ones; None where rows have none."""
    return None if scored.group is None else scored.group.tobytes()


def _texts_of(scored: Scored) -> object:
    """Return questions, reference answers and their sizes, equal for equal ones; None where rows have no texts.

    A text answer is scored against them, not against the reference's tokens.
    """
    texts = scored.texts
    if texts is None:
        return None
    return (
        texts.question,
        texts.expected,
        texts.bytes.tobytes(),
        None if texts.choices is None else texts.choices.tobytes(),
    )


def _other_rows(scored: Scored, usual: Scored | None) -> str | None:
    """Return what of a run's rows is not as in the usual ones: their labels, groups or texts."""
    if usual is None or not same_answers(scored.reference, usual.reference):
        return "labels"
    if _groups_of(scored) != _groups_of(usual):
        return "groups"
    return "texts" if _texts_of(scored) != _texts_of(usual) else None


def _fault(scored: Scored, usual: Scored | None, record: RunRecord) -> str | None:
    found, rows = np.unique(scored.index), 0 if usual is None else len(usual.reference)
    if doubled := len(scored.index) - len(found):
        return f"its predictions hold {doubled:,} test row(s) more than once"
    if missing := rows - int(np.isin(found, np.arange(rows)).sum()):
        return f"its predictions lack {missing:,} of {rows:,} test rows"
    if len(found) > rows:
        return f"its predictions hold {len(found) - rows:,} row(s) that are no test rows"
    if other := _other_rows(scored, usual):
        return f"the {other} beside its predictions are not those of the other runs"
    for name, given in scored.metrics.items():
        recorded = record.metrics.get(name)
        if recorded is None and math.isnan(given):  # a correlation with a constant is undefined
            continue
        if recorded is None or not math.isclose(recorded, given, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            was = "not recorded" if recorded is None else f"recorded as {recorded:.4f}"
            return f"its {name.removeprefix('test_').replace('_', '-')} is {was}, and its predictions give {given:.4f}"
    return None
