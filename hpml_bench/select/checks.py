"""Checks of runs, each of figures from two places that must agree.

A run makes its self-checks at its end, one that fails makes it `invalid` (shown, never ranked), and
`verify` makes them again. `faults` keep a run that ended well out of a comparison; `verify` prints
them.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np

from hpml_bench.plugins.dataset import FEWER
from hpml_bench.plugins.task import Task
from hpml_bench.records.files import POINTS, PREDICTIONS
from hpml_bench.records.points import iterate_points
from hpml_bench.records.predictions import Predictions, bytes_of, same_answers
from hpml_bench.records.run import Check, Consumed, Point, RunRecord
from hpml_bench.select.comparability import grouped, method_of, untrained
from hpml_bench.select.predictions import Scored, task_of
from hpml_bench.suite.schedule import Windows
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

SUMS = 1e-9  # relative tolerance of sums in another order
# relative tolerance between a recorded number and that of stored files, whose losses are float32
STORED = 1e-6
CLOCKS, CLOCKS_A_WINDOW = 0.01, 0.001
"""Allowed difference of two clocks: a share of the time, and seconds per window, since they are
read in turn.
"""
LAST_LOSSES = 20  # steps whose mean is the final training loss
DECISIVE = ("unit", "better", "grid", "depends_on_machine", "noisy", "bounds")
"""Fields of a metric's definition that decide comparisons."""
_decisive = attrgetter(*DECISIVE)

Kind = Literal[
    "ids",
    "copies",
    "definitions",
    "times",
    "self-checks",
    "predictions",
    "duplicates",
    "consumption",
    "protocol",
]
"""Reason why a run that ended well isn't compared."""


@dataclass(frozen=True)
class Excluded:
    """Runs that may not be averaged with the others, and the reason by name."""

    records: tuple[RunRecord, ...]
    reason: str
    kind: Kind


def _fault(record: RunRecord, kind: Kind, why: str) -> Excluded:
    return Excluded(
        (record,), f"{'invalid' if kind == 'self-checks' else 'not believed'}: {why}", kind
    )


@dataclass(frozen=True)
class RunFigures:
    """Figures of a trained run, and the files that must give them."""

    metrics: Mapping[str, float | None]
    points: Sequence[Point]
    consumed: Consumed
    settings: Settings
    predictions: Predictions  # as they are on disk
    test_rows: int
    task: Task
    parameters: Mapping[str, int]  # numbers of trained parameters by how they were counted

    def metric(self, name: str) -> float:
        value = self.metrics.get(name)
        return math.nan if value is None else value

    def values(self, metric: str) -> list[float]:
        return [
            point.value
            for point in self.points
            if point.metric == metric and point.value is not None
        ]


def self_checks(run: RunFigures) -> tuple[Check, ...]:
    """Return all self-checks of a run; those of steps are left out where it trained nothing."""
    trains = any(run.parameters.values()) or run.consumed.steps
    indices, name = run.predictions.index.tolist(), run.task.headline.removeprefix("test_")
    complete = sorted(indices) == list(range(run.test_rows))
    rows = f"{len(indices)} predictions of {len(set(indices))} rows for {run.test_rows} test rows"
    reported = run.metric(run.task.headline)
    stored, mean = (
        run.task.evaluate(run.predictions)[name],
        float(run.task.scores(run.predictions).mean()),
    )
    given = all(
        math.isclose(reported, other, rel_tol=STORED, abs_tol=STORED) for other in (stored, mean)
    )
    scores = (
        f"{name} {reported:.10g}, of the predictions on disk {stored:.10g}, mean of the rows' "
        f"scores {mean:.10g}"
    )
    # trainable = those the optimizer has = those that got a gradient
    counts = ", ".join(f"{count:,} {name}" for name, count in run.parameters.items())
    return (
        *(_of_training(run) if trains else ()),
        Check(name="predictions", passed=complete, detail=rows),
        Check(name=name, passed=given, detail=scores),
        Check(name="parameters", passed=len(set(run.parameters.values())) == 1, detail=counts),
    )


def _of_training(run: RunFigures) -> Iterator[Check]:
    """Yield the checks of a training's samples, steps, times, final loss, and selected step if
    it has one.
    """
    settings, consumed, seconds = run.settings, run.consumed, run.values("step_seconds")
    batch, total = settings.global_batch, math.fsum(seconds)
    detail = f"{consumed.samples} samples over all ranks in {consumed.steps} steps of {batch}"
    yield Check(name="budget", passed=consumed.samples == consumed.steps * batch, detail=detail)
    steps = [point.step for point in run.points if point.metric == "train_loss"]
    detail = f"{len(steps)} training losses written for {consumed.steps} steps"
    yield Check(
        name="every step", passed=steps == list(range(1, consumed.steps + 1)), detail=detail
    )
    timed = _timed(settings, [point for point in run.points if point.metric == "step_seconds"])
    samples, due = run.metric("samples_per_second") * math.fsum(timed), len(timed) * batch
    yield _equal("throughput", samples, due, "samples/s x timed seconds", "samples")
    yield _equal(
        "training time", run.metric("train_seconds"), total, "training seconds", "sum of the points"
    )
    other = run.metric("train_seconds_second_clock")
    allowed = CLOCKS * other + CLOCKS_A_WINDOW * Windows(settings, len(seconds)).count()
    detail = (
        f"sum of the points {total:.6g}, by a second clock {other:.6g}, {allowed:.2g} s apart at "
        f"most"
    )
    yield Check(name="second clock", passed=abs(total - other) <= allowed, detail=detail)
    last = run.values("train_loss")[-LAST_LOSSES:]
    mean = math.fsum(last) / len(last) if last else math.nan
    yield _equal(
        "training loss", run.metric("train_loss"), mean, "final training loss", "mean of its points"
    )
    if settings.select == "last":
        return
    scores, end = (
        validation_scores(run.task, run.points),
        due_steps(run.task, settings, consumed, run.points),
    )
    step = run.task.best_step(scores) if scores else 0
    given = (consumed.steps, run.metric("selected_step"))
    within = math.isclose(run.metric("selected_seconds"), math.fsum(seconds[:step]), rel_tol=SUMS)
    detail = (
        f"step {given[1]:.0f} of {given[0]} selected, by the validation scores step {step} of {end}"
    )
    yield Check(name="selected step", passed=given == (end, step) and within, detail=detail)


def due_steps(task: Task, settings: Settings, consumed: Consumed, points: Iterable[Point]) -> int:
    """Return the steps that a run must have taken: all, or those up to the early end that its
    validation gives.
    """
    return (
        task.early_end(validation_scores(task, points), settings.patience)
        or consumed.planned
        or consumed.steps
    )


def validation_scores(task: Task, points: Iterable[Point]) -> dict[int, float]:
    """Return step -> score of the validation rows, NaN where it is undefined."""
    name = f"validation_{task.headline.removeprefix('test_')}"
    return {
        one.step: math.nan if one.value is None else one.value
        for one in points
        if one.metric == name
    }


def _timed(settings: Settings, steps: Sequence[Point]) -> list[float]:
    """Return the seconds of the timed steps: not of the warm-up, nor of those that warmed up
    again, unless all did.
    """
    first = Windows(settings, len(steps)).first_timed()
    return [point.value or 0.0 for point in [p for p in steps[first - 1 :] if not p.again] or steps]


def _equal(name: str, one: float, other: float, of_one: str, of_other: str) -> Check:
    passed = math.isclose(one, other, rel_tol=SUMS)
    return Check(name=name, passed=passed, detail=f"{of_one} {one:.10g}, {of_other} {other:.10g}")


def faults(
    folder: Path,
    records: Sequence[RunRecord],
    stored: Mapping[str, Scored],
    misnamed: Mapping[str, str],
) -> dict[str, Excluded]:
    """Return run_id -> each run that has a fault, among the runs of one protocol that ended
    well.
    """
    named = [
        record for record in records if record.run_id not in misnamed
    ]  # whose ids are those of what they hold
    of = [stored[record.run_id] for record in records if record.run_id in stored]
    whole = [one for one in of if np.array_equal(one.index, np.arange(len(one.index)))]
    kinds = [(bytes_of(one.reference), *_beside(one)) for one in whole]
    usual = (
        whole[kinds.index(Counter(kinds).most_common(1)[0][0])] if whole else None
    )  # has the rows of most
    found = [
        *_copies(named),
        *_definitions(named),
        *(
            fault
            for record in named
            if not untrained(record)
            for fault in _of_steps(folder, record)
        ),
        *(
            _fault(record, "ids", misnamed[record.run_id])
            for record in records
            if record.run_id in misnamed
        ),
        *(
            fault
            for record in records
            if (fault := _scores(record, stored.get(record.run_id), usual))
        ),
    ]
    return {
        record.run_id: fault for fault in found for record in fault.records
    }  # the last fault of a run counts


def _of_steps(folder: Path, record: RunRecord) -> Iterator[Excluded]:
    """Yield why a trained run's times, or its early end, can't be right: its points give others,
    or it has none.
    """
    settings, used = record.spec.settings, record.consumed
    recorded = {name: record.metrics.get(name) for name in ("train_seconds", "samples_per_second")}
    if any(recorded.values()) and POINTS not in record.files:
        yield _fault(
            record, "times", f"its record names no {POINTS}, so that its times can't be checked"
        )
    elif any(recorded.values()):
        steps = [
            point
            for point in iterate_points(folder / record.run_id)
            if point.metric == "step_seconds"
        ]
        given, timed = (
            {"train_seconds": math.fsum(point.value or 0.0 for point in steps)},
            _timed(settings, steps),
        )
        if any(timed):
            given["samples_per_second"] = len(timed) * settings.global_batch / math.fsum(timed)
        for name, of_points in reversed(given.items()):  # the last fault counts
            value = recorded[name]
            if value is not None and not math.isclose(value, of_points, rel_tol=STORED):
                what = f"its {name} is recorded as {value:.4g}, and its points give {of_points:.4g}"
                yield _fault(record, "times", what)
    if settings.select == "early" and used is not None:
        with suppress(UserError):  # its task isn't installed: `_scores` says so
            due = due_steps(task_of(record), settings, used, iterate_points(folder / record.run_id))
            if due != used.steps:
                yield _fault(
                    record,
                    "consumption",
                    f"it took {used.steps} steps, and its validation scores give {due}",
                )


def _copies(records: Iterable[RunRecord]) -> Iterator[Excluded]:
    """Yield the runs that have the points of another, or its order of samples in another seed:
    one is a copy.
    """
    # No file shows which one. Points hold times, which never agree; predictions may, as of a method
    # under two names.
    own = [record for record in records if POINTS in record.files and not untrained(record)]
    keys: tuple[tuple[str, Callable[[RunRecord], Hashable]], ...] = (
        # those that two runs of a method share are of one seed
        (
            "its order of samples",
            lambda run: (method_of(run), run.consumed.order if run.consumed else run.run_id),
        ),
        (f"its {POINTS}", lambda run: run.files[POINTS]),
    )
    for what, key in keys:
        for group in grouped(own, key).values():
            for record in group if len(group) > 1 else ():
                others = ", ".join(other.run_id for other in group if other is not record)
                yield _fault(
                    record, "copies", f"{what} is that of {others} too: all but one are copies"
                )


def _definitions(records: Iterable[RunRecord]) -> Iterator[Excluded]:
    """Yield the runs that define a metric, or the headline, otherwise than most; among equals
    the oldest's counts.
    """
    # only in fields that decide comparisons: words may differ between versions, and a version may
    # lack a field
    ordered = sorted(records, key=lambda record: (record.started, record.run_id))
    said = {
        record.run_id: {metric.name: metric for metric in record.definitions} for record in ordered
    }
    of_metric = grouped(
        (metric for of in said.values() for metric in of.values()), lambda metric: metric.name
    )
    usual = {
        name: Counter(map(_decisive, metrics)).most_common(1)[0][0]
        for name, metrics in of_metric.items()
    }
    score = Counter(record.headline for record in ordered).most_common(1)[0][0] if ordered else None
    for record in ordered:
        other = (
            []
            if record.headline == score
            else [f"the score is {record.headline} instead of {score}"]
        )
        other += [
            f"{name} has {field} {value} instead of {most}"
            for name, metric in said[record.run_id].items()
            for field, value, most in zip(DECISIVE, _decisive(metric), usual[name], strict=True)
            if _decisive(metric) != usual[name]
            and value != most
            and field in metric.model_fields_set
        ]
        if other:
            yield _fault(
                record,
                "definitions",
                f"it defines metrics otherwise than most runs: {'; '.join(other[:3])}",
            )


def _scores(record: RunRecord, scored: Scored | None, usual: Scored | None) -> Excluded | None:
    """Return the fault of a run whose self-checks failed, or whose predictions can't give its
    scores, or be checked.
    """
    try:
        task_of(record)
    except UserError as error:  # its task isn't installed here
        return _fault(record, "predictions", f"its scores can't be checked: {error}")
    failed = [f"{check.name}: {check.detail}" for check in record.checks if not check.passed]
    if failed:
        return _fault(record, "self-checks", f"self-check failed: {'; '.join(failed)}")
    if PREDICTIONS not in record.files:
        return _fault(
            record,
            "predictions",
            f"its record names no {PREDICTIONS}, so that its scores can't be checked",
        )
    if scored is None:
        lacks = f"its {PREDICTIONS} is missing, or can't be read or scored here"
        return _fault(record, "predictions", f"{lacks}, so that its scores can't be checked")
    why = (
        _other_rows(scored, usual) or _other_count(scored, record) or _other_scores(scored, record)
    )
    return _fault(record, "predictions", why) if why else None


def _beside(scored: Scored) -> tuple[object, object]:
    """Return the groups and texts of a run's rows, equal for equal ones; None where rows have
    none.
    """
    # a text answer is scored against the expected text, not against the reference's tokens
    group, said = scored.group, scored.texts
    choices = None if said is None or said.choices is None else said.choices.tobytes()
    texts = said and (said.question, said.expected, said.bytes.tobytes(), choices)
    return None if group is None else group.tobytes(), texts


def _other_rows(scored: Scored, usual: Scored | None) -> str | None:
    found, rows = np.unique(scored.index), 0 if usual is None else len(usual.reference)
    if doubled := len(scored.index) - len(found):
        return f"its predictions hold {doubled:,} test row(s) more than once"
    if missing := rows - int(np.isin(found, np.arange(rows)).sum()):
        return f"its predictions lack {missing:,} of {rows:,} test rows"
    if len(found) > rows:
        return f"its predictions hold {len(found) - rows:,} row(s) that are no test rows"
    if usual is None or not same_answers(scored.reference, usual.reference):
        other = ["labels"]
    else:
        pairs = zip(("groups", "texts"), _beside(scored), _beside(usual), strict=True)
        other = [name for name, own, most in pairs if own != most]
    return (
        f"the {other[0]} beside its predictions are not those of the other runs" if other else None
    )


def _other_count(scored: Scored, record: RunRecord) -> str | None:
    """Return why a run can't have so many test rows: its notes count others, or its suite asks
    for others.
    """
    rows, asked = len(scored.index), record.spec.settings.test_samples
    counted = re.search(r"(\d+) test\b", record.notes.get("rows", ""))
    if counted and int(counted[1]) != rows:
        return (
            f"its predictions hold {rows:,} rows, and its notes count {int(counted[1]):,} test rows"
        )
    all_kept = (
        FEWER not in record.notes and task_of(record).cuts_texts
    )  # else a task may leave out rows, as notes say
    if counted and asked and (rows > asked or (rows < asked and all_kept)):
        return (
            f"its predictions hold {rows:,} rows, its suite asks for {asked:,} test rows, and no "
            f"note says why"
        )
    return None


def _other_scores(scored: Scored, record: RunRecord) -> str | None:
    """Return in what a run's predictions contradict themselves, or the first test metric that
    they don't give.
    """
    if scored.contradicted:
        return (
            f"{scored.contradicted:,} rows have a loss or probabilities that no model has which "
            f"gave their answers"
        )
    for name, given in scored.metrics.items():
        recorded = record.metrics.get(name)
        if recorded is None and math.isnan(given):  # a correlation with a constant is undefined
            continue
        if recorded is None or not math.isclose(recorded, given, rel_tol=STORED, abs_tol=STORED):
            was = "not recorded" if recorded is None else f"recorded as {recorded:.4f}"
            return (
                f"its {name.removeprefix('test_').replace('_', '-')} is {was}, and its "
                f"predictions give {given:.4f}"
            )
    return None
