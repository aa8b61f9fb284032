"""Predictions of the runs of a report, scored."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.task import Task, make_task
from hpml_bench.records.predictions import Answers, TextAnswers, read_predictions, same_answers
from hpml_bench.records.run import RunRecord
from hpml_bench.statistics.calibration import Reliability, reliability
from hpml_bench.system.errors import UserError


@dataclass(frozen=True)
class Scored:
    """A run's stored predictions of the test rows, in row order, scored by the task."""

    index: NDArray[Any]
    reference: Answers
    scores: NDArray[Any]  # [rows], whose mean is the headline metric
    metrics: Mapping[str, float]  # the test metrics by their names
    texts: TextAnswers | None = None  # text answers, where the task has them
    group: NDArray[Any] | None = (
        None  # [rows], equal for rows that belong together; None where each stands alone
    )
    reliability: Reliability | None = (
        None  # bins of the answers by their probability, where that is recorded
    )
    unchecked: str = (
        ""  # why the scores are those that the run recorded; empty where they were computed anew
    )
    contradicted: int = 0  # number of rows whose loss no model can have that gave their answers


def task_of(record: RunRecord) -> Task:
    """Return the task of a run; a UserError where it isn't installed."""
    settings = record.spec.settings
    return make_task(settings.task, record.label_names, rank_by=settings.rank_by)


def read_all(folder: Path, records: Iterable[RunRecord]) -> dict[str, Scored]:
    """Return run_id -> scored predictions, of the runs that have some."""
    found: dict[str, Scored] = {}
    last: Scored | None = None
    for record in records:
        with suppress(UserError):  # its task isn't installed here: `faults` says so
            if own := read(folder / record.run_id, record, task_of(record)):
                if (
                    last
                    and np.array_equal(own.index, last.index)
                    and same_answers(own.reference, last.reference)
                ):
                    own = replace(
                        own, index=last.index, reference=last.reference
                    )  # memory has equal rows once
                last = found[record.run_id] = own
    return found


def read(folder: Path, record: RunRecord, task: Task) -> Scored | None:
    """Return a run's predictions, scored, as recorded where that defines the score otherwise;
    None if that fails.
    """
    stored = read_predictions(folder)
    if stored is None:
        return None
    try:
        metrics = {f"test_{name}": value for name, value in task.evaluate(stored).items()}
        scores, unchecked, bins, wrong = (
            task.scores(stored),
            "",
            None,
            int(task.contradicted(stored).sum()),
        )
        if stored.scores is not None and not defines_score_alike(record, task):
            scores = stored.scores.astype(scores.dtype)
            metrics[task.headline] = float(scores.mean())
        if (given := stored.probabilities) is not None:
            bins = reliability(given.max(axis=1), np.equal(stored.reference, stored.prediction))
    except UserError as error:  # a package of its scorer isn't installed here
        if stored.scores is None:
            return None
        scores, unchecked, bins, wrong = stored.scores, str(error), None, 0
        metrics = {task.headline: float(scores.mean())}
    except (ValueError, TypeError, IndexError):
        return None
    return Scored(
        stored.index,
        stored.reference,
        scores,
        metrics,
        stored.texts,
        stored.group,
        bins,
        unchecked,
        wrong,
    )


def defines_score_alike(record: RunRecord, task: Task) -> bool:
    """Whether a record defines the headline metric as this version of its task does."""
    own, ours = (
        {metric.name: metric.definition for metric in of}
        for of in (record.definitions, task.metrics)
    )
    return own.get(task.headline) == ours.get(task.headline)
