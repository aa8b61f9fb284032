"""How soon a method gets somewhere: training seconds and samples until target accuracies on the validation rows."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple

from hpml_bench import statistics
from hpml_bench.records.run import RunRecord
from hpml_bench.report.blocks import Section, Table
from hpml_bench.report.results import Curve, Results
from hpml_bench.report.tables import Cell, number, table

order = 45
SHARES = (0.5, 0.75, 0.9)
"""Targets, as shares of the way from chance to the best mean."""


class Reached(NamedTuple):
    """When a run first stood at a target or above."""

    samples: float
    seconds: float | None


def section(results: Results) -> Section | None:
    """Return samples, and seconds where one machine measured them; nothing without validation curves."""
    levels = targets(results)
    if not levels:
        return None
    blocks = [_table(results, levels, "samples", "Samples trained on until a validation accuracy", ",.0f")]
    if results.curves.get("step_seconds"):
        blocks.insert(0, _table(results, levels, "seconds", "Training seconds until a validation accuracy", ".2f"))
    return Section(slug="time-to-accuracy", title="Time to accuracy", blocks=tuple(blocks))


def targets(results: Results) -> tuple[float, ...]:
    """Return target accuracies: half, three quarters and nine tenths of the way from chance to the best, rounded down.

    Chance is one label in k; the best is the highest mean over seeds of a method's best evaluation. Rounded to
    5 points, or to 1 where that way is short.
    """
    curves = results.curves.get("validation_accuracy", {})
    labels = len(results.reference.label_names)
    if not curves or not labels:
        return ()
    best = max(statistics.mean_interval([max(c.values) for c in of]).mean for of in curves.values())
    way = best - 1 / labels
    grid = 0.05 if way > 0.2 else 0.01
    levels = (math.floor((1 / labels + share * way) / grid + 1e-9) * grid for share in SHARES)
    return tuple(dict.fromkeys(round(level, 2) for level in levels if 1 / labels < level))


def reached(results: Results, record: RunRecord, target: float) -> Reached | None:
    """Return when a run's validation accuracy was first at `target` or above; None if never."""
    method, seed = results.labels[record.run_id], record.spec.seed
    curve = _of(results, "validation_accuracy", method, seed)
    steps = zip(curve.steps, curve.values, strict=True) if curve else ()
    step = next((step for step, value in steps if value >= target), None)
    if step is None:
        return None
    samples = step * record.spec.settings.global_batch
    if record.consumed:
        samples = min(samples, record.consumed.samples)  # the last batch of an epoch may be smaller
    timed = _of(results, "step_seconds", method, seed)
    if step == 0:
        return Reached(0.0, 0.0)
    whole = timed is not None and timed.steps[:step] == tuple(range(1, step + 1))
    return Reached(float(samples), list(accumulate(timed.values))[step - 1] if timed and whole else None)


def _of(results: Results, metric: str, method: str, seed: int) -> Curve | None:
    return results.curve(metric, method, seed)


def _table(results: Results, levels: tuple[float, ...], what: str, caption: str, spec: str) -> Table:
    rows: list[list[Cell]] = []
    for method in results.methods:
        of = results.costed(method) if what == "seconds" else results.runs(method)
        runs = [r for r in of if _of(results, "validation_accuracy", method, r.spec.seed)]
        rows.append([method, *(_cell([reached(results, run, level) for run in runs], what, spec) for level in levels)])
    notes = [
        "Mean ± standard deviation over the seeds that reach the target, at the first evaluation that stands at it or "
        "above; how finely that is told depends on eval_every. never (k of n): so many seeds do not reach it, and "
        "the mean is of the others alone. Seconds are those of the training steps, warm-up included, evaluation not."
    ]
    columns = ("method", *(f"{100 * level:.0f} %" for level in levels))
    return table(f"{what}_to_accuracy", caption, columns, rows, notes)


def _cell(found: list[Reached | None], what: str, spec: str) -> Cell:
    values = [value for one in found if one and (value := getattr(one, what)) is not None]
    never = sum(one is None for one in found)
    missed = f"never ({never} of {len(found)})"
    if not values:
        return (missed, None) if never else ("–", None)
    interval = statistics.mean_interval(values)
    text = number(interval.mean, spec) + (f" ± {number(interval.sd, spec)}" if interval.sd else "")
    return f"{text}, {missed}" if never else (text, interval.mean)
