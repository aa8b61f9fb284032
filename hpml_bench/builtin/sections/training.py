"""Training: curves over the steps, time to quality (MLPerf's term), and tuning: what it chose,
and what it cost.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from statistics import median
from typing import NamedTuple

from hpml_bench import statistics
from hpml_bench.judge.caveats import other_settings
from hpml_bench.judge.results import Results, validation_of
from hpml_bench.page.pictures.charts import axis, line_chart, styles
from hpml_bench.page.tables import quantity_of, section_of, table
from hpml_bench.plugins.blocks import Fold, Section, Table, Text
from hpml_bench.plugins.picture import Picture, Series
from hpml_bench.records.numbers import (
    MISSING,
    Cell,
    Quantity,
    cell,
    number,
    sentence_list,
    slug,
    titled,
    with_unit,
)
from hpml_bench.records.run import RunRecord
from hpml_bench.records.tuning import NEAR, TunedMethod, TuningRecord, find
from hpml_bench.select.comparability import differences, is_base, untrained
from hpml_bench.suite.settings import method_identity
from hpml_bench.system.text import sanitize

order = 45
SHARES = (
    0.5,
    0.75,
    0.9,
)  # targets, as shares of the way from the score at the start to the best mean
ERRORS = 2.0  # standard errors of a score on the validation rows within which there is no target


def sections(results: Results) -> Iterator[Section | None]:
    yield _time_to_quality(results)
    yield _curves(results)
    tuning = find(results.folder, results.suite)
    if tuning is not None and any(tuned.trials for tuned in tuning.methods):
        said = Text(sentences=_sentences(results, tuning))
        blocks, about = (
            (said, _sensitivity(results, tuning), _trials(results, tuning)),
            "trials on the validation rows",
        )
        yield section_of(
            "tuning", "Learning rates and their tuning", *blocks, question="training", about=about
        )


# Curves


def _curves(results: Results) -> Section | None:
    shown: dict[
        str, tuple[str, Quantity | None]
    ]  # title of each chart, and its values' quantity if they have one
    shown = {"train_loss": ("Training loss", None), "validation_loss": ("Validation loss", None)}
    if results.quality in results.definitions:
        quantity = quantity_of(results, results.quality)
        shown[validation_of(results.quality)] = (f"Validation {quantity.title}", quantity)
    shown["grad_norm"] = ("Gradient norm before clipping", None)
    others = [
        quantity_of(results, name)
        for name in results.curves
        if name in results.definitions.keys() - shown
    ]
    shown |= {quantity.metric.name: (quantity.heading, quantity) for quantity in others}
    figures = {metric: line_chart(results, metric, *own) for metric, own in shown.items()}
    norm = figures.pop("grad_norm")
    fold = Fold(title="Gradient norm", about="before clipping", blocks=(norm,)) if norm else None
    blocks, about = (*figures.values(), fold), "mean over seeds, by step"
    return section_of(
        "curves", "Training curves", *blocks, question="training", about=about, folded=False
    )


# Time to quality


class Reached(NamedTuple):
    """Samples and seconds at which a run first reached a target."""

    samples: float
    seconds: float | None


def _time_to_quality(results: Results) -> Section | None:
    if results.quality not in results.definitions:
        return None
    targets = Targets(results)
    title, levels = targets.score.title, targets.levels
    blocks: list[Text | Table | None] = []
    if levels:
        until = f"until a validation {title}"
        timed = results.curves.get("step_seconds")
        blocks = [
            targets.table("seconds", f"Training seconds {until}", ".2f") if timed else None,
            targets.table("samples", f"Samples trained on {until}", ",.0f"),
        ]
    elif targets.way:
        rows = (
            f"on {results.validation_rows:,} validation rows the best mean {title} is within "
            f"their noise"
        )
        why = f"No target is given: {rows} of {targets.start_in_words}, where training begins."
        blocks = [Text(sentences=(why,))]
    name, about = f"Time to {results.score_title}", "seconds and samples until a validation score"
    return section_of(
        f"time-to-{slug(title) or 'score'}", name, *blocks, question="training", about=about
    )


class Targets:
    """Target scores on the validation rows, and the times at which runs reach them."""

    def __init__(self, results: Results) -> None:
        self.results, self.score = results, quantity_of(results, results.quality)
        self.points = validation_of(results.quality)
        self.curves = results.curves.get(self.points, {})
        self.sign, self.best = (1, max) if self.score.metric.better == "higher" else (-1, min)
        self.base = tuple(
            method for method in results.methods if all(map(untrained, results.runs(method)))
        )
        self.start_of = [method for method in self.base if all(map(is_base, results.runs(method)))]

    @cached_property
    def start(self) -> float | None:
        """The score from which learning is counted: the untrained base model's, where it was
        run, else chance.
        """
        if base := [
            self.best(curve.values)
            for method in self.start_of
            for curve in self.curves.get(method, ())
        ]:
            return statistics.mean_interval(base).mean
        guessed = self.results.guess
        return guessed.chance if guessed is not None and math.isfinite(guessed.chance) else None

    @property
    def start_in_words(self) -> str:
        value = self.score.text(self.start, unit=True)
        if self.start_of:
            return f"the base model's {value}"
        rows = self.results.test_set
        if rows is None or rows.texts is None:
            return f"chance ({value})"
        return (
            f"chance ({value}; no run of the method none shows what the base model gets before "
            f"training)"
        )

    @cached_property
    def way(self) -> float:
        """How far the best mean over seeds of a method's best evaluation lies beyond the start;
        else 0.
        """
        if not self.curves or self.start is None:
            return 0.0
        means = [
            statistics.mean_interval([self.best(c.values) for c in of]).mean
            for of in self.curves.values()
        ]
        return max(0.0, self.sign * (self.best(means) - self.start))

    @property
    def noise(self) -> float:
        """`ERRORS` standard errors of a validation score, by the median run's test rows, in
        groups as large.
        """
        results = self.results
        groups = (
            results.validation_rows
            * (results.aligned.group_count or results.test_rows)
            / results.test_rows
        )
        scores = [of for runs in results.aligned.units.values() for of in runs.values()]
        spreads = [of.std(ddof=1) for of in scores if of.size > 1]
        return ERRORS * (median(spreads) if spreads else 0.0) / math.sqrt(groups)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Target scores: half, three quarters and nine tenths of the way from the start to the best
        mean.

        Rounded towards the start: percentages to 5 points, or to 1 where that way is short; other
        scores to a half or a tenth of the power of ten below that way. Those that the noise of the
        validation rows may reach are left out.
        """
        if self.start is None or self.way <= 0:
            return ()
        power = math.floor(math.log10(self.way))
        grid = float(f"{5 if self.way > 2 * 10.0**power else 1}e{power - 1}")
        digits = max(0, 1 - power)
        if self.score.unit == "%":
            grid, digits = 0.05 if self.way > 0.2 else 0.01, 2
        ways = (self.sign * share * self.way for share in SHARES)
        levels = (
            self.sign * math.floor(self.sign * (self.start + way) / grid + 1e-9) * grid
            for way in ways
        )
        least = self.noise
        beyond = (level for level in levels if self.sign * (level - self.start) > least)
        return tuple(dict.fromkeys(round(level, digits) for level in beyond))

    def reached(self, record: RunRecord, target: float) -> Reached | None:
        """Return when a run's validation score was first at `target` or beyond; None if never."""
        method, seed = self.results.labels[record.run_id], record.spec.seed
        curve = self.results.curve(self.points, method, seed)
        steps = zip(curve.steps, curve.values, strict=True) if curve else ()
        step = next(
            (step for step, value in steps if self.sign * value >= self.sign * target), None
        )
        if step is None:
            return None
        samples = step * record.spec.settings.global_batch
        if record.consumed:
            samples = min(
                samples, record.consumed.samples
            )  # the last batch of an epoch may be smaller
        if step == 0:  # a score before the first step
            return Reached(samples, 0.0)
        timed = self.results.curve("step_seconds", method, seed)
        whole = timed and timed.steps[:step] == tuple(
            range(1, step + 1)
        )  # a missing step would shorten the sum
        return Reached(
            samples, list(accumulate(timed.values))[step - 1] if timed and whole else None
        )

    def table(self, what: str, caption: str, spec: str) -> Table:
        results, rows = self.results, list[list[Cell]]()
        for method in (method for method in results.methods if method not in self.base):
            of = results.costed(method) if what == "seconds" else results.runs(method)
            runs = [run for run in of if results.curve(self.points, method, run.spec.seed)]
            found = ([self.reached(run, level) for run in runs] for level in self.levels)
            rows.append([method, *(_cell(of, what, spec) for of in found)])
        notes = [
            f"Scores are of {results.validation_rows:,} validation rows. Targets lie half, three "
            f"quarters and nine tenths of the way from {self.start_in_words} to the best mean; "
            "those within the noise of so many rows are left out.",
            "Mean ± standard deviation over the seeds that reach the target, at the first "
            f"evaluation at it or {'above' if self.sign > 0 else 'below'}; times are rounded up to "
            "the next evaluation (eval_every). never (k of n): k of n seeds didn't reach the "
            "target; the mean is of the others. Seconds are those of the training steps, warm-up "
            "included, evaluation not.",
        ]
        unit, scale = self.score.unit, self.score.scale
        shown = (f"{level * scale:.0f}" if unit == "%" else f"{level:g}" for level in self.levels)
        columns = ("method", *(with_unit(text, unit) for text in shown))
        return table(
            f"{what}_to_{results.quality.removeprefix('test_')}", caption, columns, rows, notes
        )


def _cell(found: list[Reached | None], what: str, spec: str) -> Cell:
    values = [value for one in found if one and (value := getattr(one, what)) is not None]
    never = sum(one is None for one in found)
    missed = f"never ({never} of {len(found)})"
    if not values:
        return (missed, None) if never else ("–", None)
    interval = statistics.mean_interval(values)
    text = number(interval.mean, spec) + (f" ± {number(interval.sd, spec)}" if interval.sd else "")
    return f"{text}, {missed}" if never else (text, interval.mean)


# Tuning of the learning rates


def _sentences(results: Results, record: TuningRecord) -> tuple[str, ...]:
    counts = sorted({len(tuned.trials) for tuned in record.methods})
    equal = (
        "as many for every method"
        if len(counts) == 1
        else "not as many for every method: tuning was cut short"
    )
    own, parts = results.reference.digests, ("weights", "tokenizer", "data")
    starts = [
        part for part in parts if own and record.digests.get(part) != getattr(own, part)
    ]  # unrecorded ones too
    other = " of other data, which may hold test rows of these runs"
    rows = f"validation rows{other if 'data' in starts else ', never on the test rows'}"
    trials = f"{'–'.join(map(str, counts))} trials a method ({equal}), each of the whole budget"
    tried = f"from 1/{record.factor:g} to {record.factor:g} times the method's rate before"
    found = [f"Rates were tried on {record.validation_rows:,} {rows}: {trials}, {tried}."]
    if starts:
        other = sentence_list(starts)
        found.append(
            f"The tuning did not start from what these runs did: by their digests, other {other}."
        )
    if changed := other_settings(results, record):
        found.append(
            f"The tuning's settings were not those of these runs: {sentence_list(changed)} differ."
        )
    changed_options = {
        tuned.name: keys for tuned in record.methods if (keys := _other_options(results, tuned))
    }
    if optional := [f"{name} ({', '.join(keys)})" for name, keys in changed_options.items()]:
        found.append(
            f"These runs had other options than the tuning's trials: {sentence_list(optional)}."
        )
    rates = {
        tuned.name: (tuned.chosen, _rates(results, tuned))
        for tuned in record.methods
        if tuned.rated
    }
    if others := [
        name
        for name, (chosen, of) in rates.items()
        if any(abs(rate / chosen - 1) > 1e-6 for rate in of)
    ]:
        found.append(
            f"These runs took other rates than the tuning's choice for {sentence_list(others)}."
        )
    if edge := [tuned.name for tuned in record.methods if tuned.at_edge]:
        last = f"The best rate tried is the last one tried for {sentence_list(edge)}"
        found.append(f"{last}: a better one may lie beyond.")
    found += [
        (
            f"{tuned.name} has no parameters that a rate of its own reaches: its trials show what "
            f"the seed alone does."
        )
        for tuned in record.methods
        if tuned.trials and not tuned.rated
    ]
    return tuple(found)


def _other_options(results: Results, tuned: TunedMethod) -> list[str]:
    here = method_identity(tuned.spec)
    own = [
        method_identity(run.spec.method)
        for run in results.compared
        if run.spec.method.name == tuned.name
    ]
    keys = {key for other in own for key, *_ in differences(here, other) if key != "lr"}
    return sorted(key.rpartition(".")[2] for key in keys)


def _rates(results: Results, tuned: TunedMethod) -> list[float]:
    return sorted(
        {run.spec.method.lr for run in results.compared if run.spec.method.name == tuned.name}
    )


def _trials(results: Results, record: TuningRecord) -> Table:
    score = Quantity.of(record.headline)
    rows: list[list[Cell]] = []
    for tuned in record.methods:
        rates, best, near = (
            (_rates(results, tuned), tuned.best, tuned.near) if tuned.rated else ([], None, None)
        )
        rows.append(
            [
                tuned.name,
                ", ".join(f"{rate:.3g}" for rate in rates) or MISSING,
                (f"{best.lr:.3g}", best.lr) if best else MISSING,
                score.cell(tuned.best_score),
                "–".join(map(score.text, near)) if near else MISSING,
                len(tuned.trials),
                sum(trial.status != "ok" for trial in tuned.trials),
                cell(tuned.seconds, ",.0f"),
            ]
        )
    validated, near_it = (
        titled(text, score.unit)
        for text in (f"Validation {score.title}", f"Within x{NEAR:g} of it")
    )
    columns = (
        "method",
        "Rate of the runs",
        "Best rate",
        validated,
        near_it,
        "Trials",
        "Failed",
        "Tuning (s)",
    )
    notes = [
        f"Best: the {'lowest' if record.headline.better == 'lower' else 'highest'} validation "
        f"{score.title} after the last step, of equals the lowest validation loss. It is the best "
        f"of several and so flatters; the {score.title} to quote is the test rows'. Within "
        f"x{NEAR:g}: lowest and highest {score.title} of the trials whose rate is at most {NEAR:g} "
        "times off the best. Failed trials count as trials, with the worst value. Tuning: wall "
        "time of all the method's trials, on the machine that tuned."
    ]
    return table("tuning", "Learning rates by tuning", columns, rows, notes)


def _sensitivity(results: Results, record: TuningRecord) -> Picture | None:
    drawn = [(tuned, tuned.best) for tuned in record.methods if tuned.rated and tuned.best]
    if not drawn:
        return None
    look = styles(dict.fromkeys([*results.methods, *(tuned.name for tuned in record.methods)]))
    score, series, best_ones = Quantity.of(record.headline), [], []
    for tuned, best in drawn:
        points = tuple(sorted((t.lr, score.scale * t.ended[0]) for t in tuned.trials if t.ended))
        ringed = next(point for point in points if point[0] == best.lr)
        tone, marker = look[tuned.name].tone, look[tuned.name].marker
        series += [Series(points, tone, sanitize(tuned.name, 30), 1.6, marker, 5.5)]
        series += [Series((ringed,), tone, marker="O", size=13)]
        best_ones.append(f"{tuned.name} {score.text(tuned.best_score, unit=True)} at {best.lr:.3g}")
    rates, scores = zip(*(point for of in series for point in of.points), strict=True)
    return Picture(
        name="tuning_sensitivity",
        caption=(
            f"Validation {score.title} after the last step against learning rate, one run a mark; "
            f"ringed: the "
            "best. Each trial has a seed of its own: a curve shows rate and seed at once."
        )
        + _noise(results, record, [tuned for tuned, _ in drawn]),
        alt=(
            f"Line chart of validation {score.title} against learning rate. Best: "
            f"{'; '.join(best_ones)}."
        ),
        x=axis(
            "learning rate", rates, log=True, text=lambda rate: f"{rate:g}".replace("e-0", "e-")
        ),
        y=axis(
            titled(f"validation {score.title}", score.unit), scores, within=score.ends, grid=True
        ),
        series=tuple(series),
    )


def _noise(results: Results, record: TuningRecord, drawn: Sequence[TunedMethod]) -> str:
    """Return a sentence on the rows' standard error, √(p (1 - p) / rows), of right or wrong rows
    without groups.
    """
    if (
        not results.task.binary
        or results.aligned.groups is not None
        or record.headline.name != results.quality
    ):
        return ""
    best = [score for tuned in drawn if (score := tuned.best_score) is not None]
    p = sum(best) / len(best)
    error = math.sqrt(p * (1 - p) / record.validation_rows)
    return f" The rows alone give it a standard error of {number(100 * error, '.1f')} points."
