"""Tuning of the learning rates: each method's validation score against its rate, and what tuning cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.plugins.picture import Picture, Series
from hpml_bench.records.tuning import NEAR, TunedMethod, TuningRecord, find
from hpml_bench.report.caveats import other_settings, other_starts
from hpml_bench.report.comparability import differences
from hpml_bench.report.numbers import MISSING, Cell, Quantity, cell, number, sentence_list
from hpml_bench.report.pictures.axes import axis
from hpml_bench.report.pictures.charts import styles
from hpml_bench.report.results import Results
from hpml_bench.report.tables import section_of, table
from hpml_bench.suite.settings import method_identity
from hpml_bench.system.text import sanitize

order = 95
question = "training"
about = "trials on the validation rows"


def section(results: Results) -> Section | None:
    """Return the choice of rates, the curve of each method, and a table; None without a tuning."""
    record = find(results.folder, results.suite)
    if record is None or not any(tuned.trials for tuned in record.methods):
        return None
    blocks = (Text(sentences=_sentences(results, record)), _sensitivity(results, record), _table(results, record))
    return section_of("tuning", "Learning rates and their tuning", *blocks)


def _sentences(results: Results, record: TuningRecord) -> tuple[str, ...]:
    counts = sorted({len(tuned.trials) for tuned in record.methods})
    equal = "as many for every method" if len(counts) == 1 else "not as many for every method: tuning was cut short"
    starts = other_starts(results, record)
    other = " of other data, which may hold test rows of these runs"
    rows = f"validation rows{other if 'data' in starts else ', never on the test rows'}"
    trials = f"{'–'.join(map(str, counts))} trials a method ({equal}), each of the whole budget"
    tried = f"from 1/{record.factor:g} to {record.factor:g} times the method's rate before"
    found = [f"Rates were tried on {record.validation_rows:,} {rows}: {trials}, {tried}."]
    if starts:
        other = sentence_list(starts)
        found.append(f"The tuning did not start from what these runs did: by their digests, other {other}.")
    if changed := other_settings(results, record):
        found.append(f"The tuning's settings were not those of these runs: {sentence_list(changed)} differ.")
    own = {tuned.name: keys for tuned in record.methods if (keys := other_options(results, tuned))}
    if optional := [f"{name} ({', '.join(keys)})" for name, keys in own.items()]:
        found.append(f"These runs had other options than the tuning's trials: {sentence_list(optional)}.")
    rates = {tuned.name: (tuned.chosen, _rates(results, tuned)) for tuned in record.methods if tuned.rated}
    if others := [name for name, (own, of) in rates.items() if any(abs(rate / own - 1) > 1e-6 for rate in of)]:
        found.append(f"These runs took other rates than the tuning's choice for {sentence_list(others)}.")
    if edge := [tuned.name for tuned in record.methods if tuned.at_edge]:
        last = f"The best rate tried is the last one tried for {sentence_list(edge)}"
        found.append(f"{last}: a better one may lie beyond.")
    found += [
        f"{tuned.name} has no parameters that a rate of its own reaches: its trials show what the seed alone does."
        for tuned in record.methods
        if tuned.trials and not tuned.rated
    ]
    return tuple(found)


def other_options(results: Results, tuned: TunedMethod) -> list[str]:
    """Return the options, but the rate, that differ between a tuned method and the runs of its name."""
    here = method_identity(tuned.spec)
    own = [method_identity(run.spec.method) for run in results.compared if run.spec.method.name == tuned.name]
    keys = {key for other in own for key, *_ in differences(here, other) if key != "lr"}
    return sorted(key.rpartition(".")[2] for key in keys)


def _rates(results: Results, tuned: TunedMethod) -> list[float]:
    return sorted({run.spec.method.lr for run in results.compared if run.spec.method.name == tuned.name})


def _table(results: Results, record: TuningRecord) -> Table:
    score = Quantity.of(record.headline)
    rows = [_row(results, tuned, score) for tuned in record.methods]
    unit = f" ({score.unit})" if score.unit else ""
    columns = (
        "method", "Rate of the runs", "Best rate", f"Validation {score.title}{unit}", f"Within x{NEAR:g} of it{unit}",
        "Trials", "Failed", "Tuning (s)",
    )  # fmt: skip
    notes = [
        f"Best: the {'lowest' if record.headline.better == 'lower' else 'highest'} validation {score.title} after the "
        "last step, of equals the lowest validation loss. It is the best of several and so flatters; the "
        f"{score.title} to quote is the test rows'. Within x{NEAR:g}: lowest and highest {score.title} of the trials "
        f"whose rate is at most {NEAR:g} times off the best. Failed trials count as trials, with the worst "
        "value. Tuning: wall time of all the method's trials, on the machine that tuned."
    ]
    return table("tuning", "Learning rates by tuning", columns, rows, notes)


def _row(results: Results, tuned: TunedMethod, score: Quantity) -> list[Cell]:
    rates, best, near = _rates(results, tuned), tuned.best, tuned.near
    return [
        tuned.name, ", ".join(f"{rate:.3g}" for rate in rates) if rates and tuned.rated else MISSING,
        (f"{best.lr:.3g}", best.lr) if best and tuned.rated else MISSING, score.cell(tuned.best_score),
        "–".join(map(score.text, near)) if near and tuned.rated else MISSING, len(tuned.trials),
        sum(trial.status != "ok" for trial in tuned.trials), cell(tuned.seconds, ",.0f"),
    ]  # fmt: skip


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
    title = f"validation {score.title} ({score.unit})" if score.unit else f"validation {score.title}"
    return Picture(
        name="tuning_sensitivity",
        caption=f"Validation {score.title} after the last step against learning rate, one run a mark; ringed: the "
        "best. Each trial has a seed of its own: a curve shows rate and seed at once."
        + _noise(results, record, [tuned for tuned, _ in drawn]),
        alt=f"Line chart of validation {score.title} against learning rate. Best: {'; '.join(best_ones)}.",
        x=axis("learning rate", rates, log=True, text=lambda rate: f"{rate:g}".replace("e-0", "e-")),
        y=axis(title, scores, within=score.ends, grid=True),
        series=tuple(series),
    )


def _noise(results: Results, record: TuningRecord, drawn: Sequence[TunedMethod]) -> str:
    """Return a sentence on the rows' standard error, if right or wrong: √(p (1 - p) / rows), p the best ones' mean.

    For other scores, and rows in groups, it needs predictions, which a tuning's record doesn't have.
    """
    if not results.task.binary or results.aligned.groups is not None or record.headline.name != results.quality:
        return ""
    best = [score for tuned in drawn if (score := tuned.best_score) is not None]
    p = sum(best) / len(best)
    error = math.sqrt(p * (1 - p) / record.validation_rows)
    return f" The rows alone give it a standard error of {number(100 * error, '.1f')} points."
