"""Tables of scores and costs: means, intervals, pairs, other rows, one seed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from scipy import stats

from audit.page import Table
from audit.statistics import Comparison, Pair, compare_rows, mean_interval, sign_flips
from audit.study import Study, mcnemar, over_rows, row_test
from audit.values import INTERVAL, NUMBER, Cell, Near, interval_cell, mean_cell
from audit.words import Cells, Row, amounts, metric_of


def means(study: Study, table: Table, row: Row) -> Cells:
    """Means and deviations of a method, with ranks and place where the table has them."""
    name = row["method"]
    place, above = study.place(name, study.metrics)
    cells: Cells = {
        "From": "this suite",
        "Seeds": len(study.methods[name]),
        "Samples trained on": amounts(run.record["consumed"]["samples"] for run in study.methods[name]),
        "Pareto front": place,
        "On the front": place,
        "Dominated by": ", ".join(above) or "–",
    }
    for header in table.header:
        if found := metric_of(study, header):
            cells[header] = mean_cell([found[1] * value for value in study.values(found[0])[name]])
        elif "rank" in header.lower():
            cells[header] = study.rank(study.score, name)
    return cells


def with_interval(study: Study, metric: str, name: str, scale: float, rank: str = "") -> Cell:
    """Return "mean [low, high], rank"."""
    values = study.values(metric)[name]
    if not values:
        return None
    bounds = own_interval(study, metric, values) or (math.nan, math.nan)
    pattern = rf"({NUMBER}) (?:{INTERVAL}|–)(?:, rank (.+))?"
    return pattern, [scale * float(np.mean(values)), *(scale * bound for bound in bounds), rank]


def own_interval(study: Study, metric: str, values: Sequence[float]) -> tuple[float, float] | None:
    """Return a mean's interval over seeds, cut where the metric ends: that of an accuracy at 0 and 100 %."""
    return cut(study, metric, mean_interval(values, study.grid(metric)))


def cut(study: Study, metric: str, interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return an interval within a metric's bounds."""
    least, most = study.bounds(metric)
    return (max(least, interval[0]), min(most, interval[1])) if interval else None


def scaled(interval: tuple[float, float] | None, scale: float) -> tuple[float, float] | None:
    """Return an interval as it is shown."""
    return (scale * interval[0], scale * interval[1]) if interval else None


def intervals(study: Study, table: Table, row: Row) -> Cells:
    """Means with intervals, and ranks."""
    cells: Cells = {}
    for header in table.header:
        if found := metric_of(study, header):
            ranked = found[0] in study.metrics
            rank = study.rank(found[0], row["method"]) if ranked else ""
            cells[header] = with_interval(study, found[0], row["method"], found[1], rank)
    return cells


def difference_cells(pair: Pair, first: str, made: Comparison) -> tuple[float, tuple[float, float] | None]:
    """Return a difference of scores, or a factor, and its interval, as the first method's to the second's."""
    sign = 1 if pair.first == first else -1
    low, high = (pair.shown(sign * end) for end in made.interval or (math.nan, math.nan))
    return pair.shown(sign * made.mean), (low, high) if made.interval else None


def decided_interval(study: Study, pair: Pair, first: str) -> tuple[float, float] | None:
    """Return the differences, or factors, that the test at the pair's own level leaves possible; none untested."""
    if pair.n < 3 or not pair.comparison.spreads:
        return None
    ends = pair.comparison.accepted(study.decided_at(pair))
    low, high = ends if pair.first == first else (-ends[1], -ends[0])
    return pair.shown(low), pair.shown(high)


def could_have_found(study: Study, pair: Pair) -> Near:
    """Return the least difference that would have been found, of a cost in %, as near as a root is found."""
    if pair.n < 3 or not pair.comparison.spreads:
        return Near(math.nan)
    least = pair.comparison.least(study.first_level(pair.metric, study.looks))
    if pair.scale is not None:
        low, high = study.bounds(pair.metric)
        return Near(pair.scale * least if least <= high - low else math.nan, 1e-6 * abs(pair.scale * least))
    percent = 100 * math.expm1(min(least, 700))
    return Near(percent, (5e-6 + 1e-6 * min(least, 700)) * percent)  # the exponent is exact to 1e-6, as differences are


def deciding(study: Study, pair: Pair) -> Cell:
    """Return how many seeds would decide an undecided pair."""
    if pair.verdict != "undecided" or not pair.comparison.spreads:
        return "–"
    if (needed := study.seeds_to_decide(pair)) is None:
        return "none" if pair.metric == study.score else "> 10,000"
    return needed


def pairs(study: Study, table: Table, row: Row) -> Cells:
    """All that is said of a pair by one metric."""
    first, second = re.split(r" [−/] ", row["Pair"])
    pair = study.pair(table.name.removeprefix("pairs_"), first, second)
    difference, _ = difference_cells(pair, first, pair.comparison)
    return {
        "Verdict": pair.verdict + (" ‡" if pair.erratic and (pair.better or pair.equivalent) else ""),
        "Difference": difference,
        "Factor": difference,
        "Interval": interval_cell(decided_interval(study, pair, first)),
        "p": pair.p,
        "p (adjusted)": pair.p_holm,
        "p of the margin": pair.p_margin,
        "p of the margin (Holm)": pair.p_margin_holm,
        "Could have found": could_have_found(study, pair),
        "Seeds to decide": deciding(study, pair),
        "Seeds": pair.n,
    }


def these_rows(study: Study, _: Table, row: Row) -> Cells:
    """A pair by the score on these very test rows: paired t and sign flips over seeds."""
    first, second = row["Pair"].split(" − ")
    pair = study.pair(study.score, first, second)
    made, d = study.on_these_rows[pair.first, pair.second], pair.differences * (1 if pair.first == first else -1)
    difference, interval = difference_cells(pair, first, made)
    return {
        "Difference": difference,
        "95 % interval": interval_cell(interval),
        "p": made.p_different if pair.n >= 3 else None,
        "Sign-flip p": sign_flips(d) if pair.n > 1 else None,
        "Least sign-flip p": 2.0 ** (1 - pair.n) if pair.n > 1 else None,
        "Seeds with first higher": float(np.mean((d > 0) + 0.5 * (d == 0))) if pair.n > 1 else None,
        "Seeds": pair.n,
    }


def beyond(study: Study, table: Table, row: Row) -> Cells:
    """A method's interval over seeds beside that over seeds and rows."""
    name, scale = row["Method"], study.scale(study.score)
    made = compare_rows(np.array([run.drawn for run in study.methods[name]]), study.span, study.binary)
    wide = scaled(cut(study, study.score, made.interval), scale)
    narrow = scaled(own_interval(study, study.score, list(study.by_seed(study.score)[name].values())), scale)
    return {
        "Seeds": made.n,
        table.header[2]: scale * made.mean,
        "95 % over seeds": interval_cell(narrow),
        "95 % over seeds and rows": interval_cell(wide),
    }


def one_seed(study: Study, table: Table, row: Row) -> Cells:
    """One seed's score: Wilson's interval of an accuracy, else, and where rows are in groups, Student's over these."""
    run, scale = study.methods[row["method"]][0], study.scale(study.score)
    scores = run.drawn
    if study.independent:
        found = stats.binomtest(int(scores.sum()), len(scores)).proportion_ci(0.95, method="wilson")
        bounds: tuple[float, float] | None = (found.low, found.high)
    else:
        bounds = cut(study, study.score, over_rows(scores).interval)
    return {
        table.header[1]: scale * float(scores.mean()),
        "95 % interval": interval_cell(scaled(bounds, scale)),
        "Test rows": len(run.scores),
    }


def one_seed_pairs(study: Study, _: Table, row: Row) -> Cells:
    """Two models: McNemar's exact test of right and wrong, else the paired t test over the rows or groups."""
    adjusted = study.adjusted("one seed")[row["Pair"]]
    cells: Cells = {
        "p (Holm)": adjusted,
        "Verdict": "these two models differ" if adjusted < 0.05 else "undecided",
    }
    if study.independent:
        one, other, p = mcnemar(study, row["Pair"])
        return cells | {"Only first right": one, "Only second right": other, "p": p}
    made, scale = row_test(study, row["Pair"]), study.scale(study.score)
    interval = interval_cell(scaled(made.interval, scale))
    return cells | {"Difference": scale * made.mean, "95 % interval": interval, "p": made.p_different}
