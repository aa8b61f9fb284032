"""Arithmetic self-checks at the end of a run: figures that must agree, each taken from two places.

A check that fails makes the run `invalid`: shown, never ranked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hpml_bench.plugins.task import Task
from hpml_bench.records.predictions import Predictions
from hpml_bench.records.run import Check, Consumed, Point
from hpml_bench.suite.settings import Settings
from hpml_bench.training.windows import Windows

TOLERANCE = 1e-9
"""Relative: sums in another order differ in the last digits."""

STORED = 1e-6
"""Relative: losses on disk are float32."""

CLOCKS, CLOCKS_A_WINDOW = 0.01, 0.001
"""Allowed difference of two clocks: a share of the time, and seconds per window, since they are read in turn."""

Metrics = Mapping[str, float | None]


def all_checks(  # each argument is one of the places
    metrics: Metrics,
    points: Sequence[Point],
    consumed: Consumed,
    settings: Settings,
    predictions: Predictions,
    test_rows: int,
    task: Task,
    parameters: Mapping[str, int],
) -> tuple[Check, ...]:
    """Return all checks of a finished run; those of steps are left out where it trained nothing."""
    of_result = (once_each(predictions, test_rows), headline(metrics, predictions, task), trained(parameters))
    if not any(parameters.values()) and consumed.steps == 0:
        return of_result
    return (
        budget(consumed, settings),
        every_step(points, consumed),
        throughput(metrics, points, settings),
        train_seconds(metrics, points),
        second_clock(metrics, points, settings),
        train_loss(metrics, points),
        *of_result,
    )


def budget(consumed: Consumed, settings: Settings) -> Check:
    """The samples counted by all ranks are steps x global batch."""
    detail = f"{consumed.samples} samples over all ranks in {consumed.steps} steps of {settings.global_batch}"
    return Check(name="budget", passed=consumed.samples == consumed.steps * settings.global_batch, detail=detail)


def every_step(points: Sequence[Point], consumed: Consumed) -> Check:
    """points.jsonl has one training loss for each step, in order."""
    steps = [point.step for point in points if point.metric == "train_loss"]
    detail = f"{len(steps)} training losses written for {consumed.steps} steps"
    return Check(name="every step", passed=steps == list(range(1, consumed.steps + 1)), detail=detail)


def throughput(metrics: Metrics, points: Sequence[Point], settings: Settings) -> Check:
    """samples/s x the timed steps' seconds in points.jsonl = the samples of these steps."""
    steps = _values(points, "step_seconds")
    timed = steps[Windows(settings, len(steps)).first_timed() - 1 :]
    samples = _get(metrics, "samples_per_second") * math.fsum(timed)
    return _equal("throughput", samples, len(timed) * settings.global_batch, "samples/s x timed seconds", "samples")


def train_seconds(metrics: Metrics, points: Sequence[Point]) -> Check:
    """The training time is the sum of the step times in points.jsonl."""
    total = math.fsum(_values(points, "step_seconds"))
    return _equal("training time", _get(metrics, "train_seconds"), total, "training seconds", "sum of the points")


def second_clock(metrics: Metrics, points: Sequence[Point], settings: Settings) -> Check:
    """The steps' seconds in points.jsonl add up to the wall time of their windows by another clock."""
    steps = _values(points, "step_seconds")
    total, other = math.fsum(steps), _get(metrics, "train_seconds_second_clock")
    allowed = CLOCKS * other + CLOCKS_A_WINDOW * Windows(settings, len(steps)).count()
    detail = f"sum of the points {total:.6g}, by a second clock {other:.6g}, {allowed:.2g} s apart at most"
    return Check(name="second clock", passed=abs(total - other) <= allowed, detail=detail)


def train_loss(metrics: Metrics, points: Sequence[Point], window: int = 20) -> Check:
    """The final training loss is the mean of its points."""
    last = _values(points, "train_loss")[-window:]
    mean = math.fsum(last) / len(last) if last else math.nan
    return _equal("training loss", _get(metrics, "train_loss"), mean, "final training loss", "mean of its points")


def once_each(predictions: Predictions, rows: int) -> Check:
    """The predictions on disk have every test row exactly once."""
    indices = predictions.index.tolist()
    detail = f"{len(indices)} predictions of {len(set(indices))} rows for {rows} test rows"
    return Check(name="predictions", passed=sorted(indices) == list(range(rows)), detail=detail)


def headline(metrics: Metrics, predictions: Predictions, task: Task) -> Check:
    """The headline metric equals that of the predictions on disk, and the mean of the rows' scores."""
    name = task.headline.removeprefix("test_")
    reported = _get(metrics, task.headline)
    stored, mean = task.evaluate(predictions)[name], float(task.scores(predictions).mean())
    passed = all(math.isclose(reported, other, rel_tol=STORED, abs_tol=STORED) for other in (stored, mean))
    detail = f"{name} {reported:.10g}, of the predictions on disk {stored:.10g}, mean of the rows' scores {mean:.10g}"
    return Check(name=name, passed=passed, detail=detail)


def trained(parameters: Mapping[str, int]) -> Check:
    """Trainable parameters = those the optimizer has = those that got a gradient."""
    detail = ", ".join(f"{count:,} {name}" for name, count in parameters.items())
    return Check(name="parameters", passed=len(set(parameters.values())) == 1, detail=detail)


def _equal(name: str, one: float, other: float, of_one: str, of_other: str) -> Check:
    passed = math.isclose(one, other, rel_tol=TOLERANCE)
    return Check(name=name, passed=passed, detail=f"{of_one} {one:.10g}, {of_other} {other:.10g}")


def _get(metrics: Metrics, name: str) -> float:
    value = metrics.get(name)
    return math.nan if value is None else value


def _values(points: Sequence[Point], metric: str) -> list[float]:
    return [point.value for point in points if point.metric == metric and point.value is not None]
