"""Time to quality (MLPerf's term): training seconds and samples until target scores on the validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import NamedTuple

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.records.run import RunRecord
from hpml_bench.report.comparability import untrained
from hpml_bench.report.curves import validation_of
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, Quantity, number, section_of, table

order = 45
question = "training"
about = "seconds and samples until a validation score"
SHARES = (0.5, 0.75, 0.9)
"""Targets, as shares of the way from the score at the start to the best mean."""
ERRORS = 2.0
"""Standard errors of a score on the validation rows within which there is no target: noise alone may reach it."""


class Reached(NamedTuple):
    """Samples and seconds at which a run first reached a target."""

    samples: float
    seconds: float | None


@dataclass(frozen=True)
class Score:
    """The score on the validation rows, and its direction."""

    quantity: Quantity

    @property
    def points(self) -> str:
        """Name of its points."""
        return validation_of(self.quantity.metric.name)

    @property
    def upwards(self) -> bool:
        """Whether higher is better."""
        return self.quantity.metric.better == "higher"

    @property
    def past(self) -> str:
        """On which side of a target it is reached, in a word."""
        return "above" if self.upwards else "below"

    def best(self, values: tuple[float, ...]) -> float:
        """Return the best value of a curve."""
        return max(values) if self.upwards else min(values)

    def reaches(self, value: float, target: float) -> bool:
        """Whether a value is at the target or beyond."""
        return value >= target if self.upwards else value <= target

    def text(self, target: float) -> str:
        """Return a target with its unit."""
        shown = f"{target * self.quantity.scale:.0f}" if self.quantity.unit == "%" else f"{target:g}"
        return f"{shown} {self.quantity.unit}".strip()


def section(results: Results) -> Section | None:
    """Return samples, and seconds where one environment measured them; nothing without validation curves."""
    if results.quality not in results.definitions:
        return None
    score = Score(Quantity.of(results, results.quality))
    title, slug, levels = score.quantity.title, f"time-to-{score.quantity.slug}", targets(results)
    if not levels and beyond_start(results):
        why = (
            f"No target is given: on {results.validation_rows:,} validation rows the best mean {title} is within their "
            f"noise of {_start_in_words(results, score)}, where training begins."
        )
        return section_of(slug, f"Time to {results.score_title}", Text(sentences=(why,)))
    if not levels:
        return None
    until, timed = f"until a validation {title}", results.curves.get("step_seconds")
    seconds = _table(results, score, levels, "seconds", f"Training seconds {until}", ".2f") if timed else None
    samples = _table(results, score, levels, "samples", f"Samples trained on {until}", ",.0f")
    return section_of(slug, f"Time to {results.score_title}", seconds, samples)


def start(results: Results) -> float | None:
    """Return the score from which learning is counted: the untrained base model's, where it was run, else chance."""
    score, guessed = Score(Quantity.of(results, results.quality)), results.guess
    curves = results.curves.get(score.points, {})
    if base := [score.best(curve.values) for method in _base(results) for curve in curves.get(method, ())]:
        return statistics.mean_interval(base).mean
    return guessed.chance if guessed is not None and math.isfinite(guessed.chance) else None


def _base(results: Results) -> tuple[str, ...]:
    """Return the methods that train nothing: the base model."""
    return tuple(method for method in results.methods if all(map(untrained, results.runs(method))))


def _start_in_words(results: Results, score: Score) -> str:
    begins = start(results)
    value = score.quantity.text(begins, unit=True)
    if _base(results):
        return f"the base model's {value}"
    rows = results.test_set
    if rows is None or rows.texts is None:
        return f"chance ({value})"
    return f"chance ({value}; no run of the method none shows what the base model gets before training)"


def beyond_start(results: Results) -> float:
    """Return how far the best mean over seeds of a method's best evaluation lies beyond the start; else 0."""
    score, begins = Score(Quantity.of(results, results.quality)), start(results)
    curves = results.curves.get(score.points, {})
    if not curves or begins is None:
        return 0.0
    means = [statistics.mean_interval([score.best(c.values) for c in of]).mean for of in curves.values()]
    return max(0.0, (1 if score.upwards else -1) * (score.best(tuple(means)) - begins))


def noise(results: Results) -> float:
    """Return `ERRORS` standard errors of a score on the validation rows, by the test rows' spread in the median run.

    Validation rows are taken to be in groups as large as those of the test rows.
    """
    groups = results.validation_rows * (results.test_groups or results.test_rows) / results.test_rows
    spreads = [of.std(ddof=1) for method in results.methods for of in results.scores(method).values() if of.size > 1]
    return ERRORS * (median(spreads) if spreads else 0.0) / math.sqrt(groups)


def targets(results: Results) -> tuple[float, ...]:
    """Return target scores: half, three quarters and nine tenths of the way from the start to the best mean.

    Rounded towards the start: percentages to 5 points, or to 1 where that way is short; other scores to a half or a
    tenth of the power of ten below that way. Those that the noise of the validation rows may reach are left out.
    """
    begins, way = start(results), beyond_start(results)
    if begins is None or way <= 0:
        return ()
    score = Score(Quantity.of(results, results.quality))
    sign, least = 1 if score.upwards else -1, noise(results)
    grid, digits = _grid(way, percent=score.quantity.unit == "%")
    levels = (sign * math.floor(sign * (begins + sign * share * way) / grid + 1e-9) * grid for share in SHARES)
    return tuple(dict.fromkeys(round(level, digits) for level in levels if sign * (level - begins) > least))


def _grid(way: float, percent: bool) -> tuple[float, int]:
    """Return the distance of targets, and the decimals it needs."""
    if percent:
        return (0.05 if way > 0.2 else 0.01), 2
    power = math.floor(math.log10(way))
    return float(f"{5 if way > 2 * 10.0**power else 1}e{power - 1}"), max(0, 1 - power)


def reached(results: Results, record: RunRecord, target: float) -> Reached | None:
    """Return when a run's validation score was first at `target` or beyond; None if never."""
    score = Score(Quantity.of(results, results.quality))
    method, seed = results.labels[record.run_id], record.spec.seed
    curve = results.curve(score.points, method, seed)
    steps = zip(curve.steps, curve.values, strict=True) if curve else ()
    step = next((step for step, value in steps if score.reaches(value, target)), None)
    if step is None:
        return None
    samples = step * record.spec.settings.global_batch
    if record.consumed:
        samples = min(samples, record.consumed.samples)  # the last batch of an epoch may be smaller
    timed = results.curve("step_seconds", method, seed)
    if samples == 0:  # a score before the first step
        return Reached(0.0, 0.0)
    whole = timed is not None and timed.steps[:step] == tuple(range(1, step + 1))
    return Reached(float(samples), list(accumulate(timed.values))[step - 1] if timed and whole else None)


def _table(results: Results, score: Score, levels: tuple[float, ...], what: str, caption: str, spec: str) -> Table:
    rows: list[list[Cell]] = []
    for method in (method for method in results.methods if method not in _base(results)):
        of = results.costed(method) if what == "seconds" else results.runs(method)
        runs = [r for r in of if results.curve(score.points, method, r.spec.seed)]
        rows.append([method, *(_cell([reached(results, run, level) for run in runs], what, spec) for level in levels)])
    validated = results.validation_rows
    notes = [
        f"Scores are of {validated:,} validation rows. Targets lie half, three quarters and nine tenths of the way "
        f"from {_start_in_words(results, score)} to the best mean; those within the noise of so many rows are left "
        "out.",
        "Mean ± standard deviation over the seeds that reach the target, at the first evaluation that stands at it or "
        f"{score.past}; how finely that is told depends on eval_every. never (k of n): so many seeds do not reach it, "
        "and the mean is of the others alone. Seconds are those of the training steps, warm-up included, evaluation "
        "not.",
    ]
    columns = ("method", *map(score.text, levels))
    return table(f"{what}_to_{results.quality.removeprefix('test_')}", caption, columns, rows, notes)


def _cell(found: list[Reached | None], what: str, spec: str) -> Cell:
    values = [value for one in found if one and (value := getattr(one, what)) is not None]
    never = sum(one is None for one in found)
    missed = f"never ({never} of {len(found)})"
    if not values:
        return (missed, None) if never else ("–", None)
    interval = statistics.mean_interval(values)
    text = number(interval.mean, spec) + (f" ± {number(interval.sd, spec)}" if interval.sd else "")
    return f"{text}, {missed}" if never else (text, interval.mean)
