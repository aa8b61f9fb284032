"""Verdicts on the systems of one data set: what they hold for, every pair by score and by costs, decided as one family.

What the input has chooses the test, one for all pairs of a page: seeds and rows, rows alone, seeds alone, shares of so
many rows, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from hpml_bench import statistics
from hpml_bench.comparison.measured import Cost
from hpml_bench.comparison.scores import Scores
from hpml_bench.statistics import Comparison
from hpml_bench.statistics.evidence import widest
from hpml_bench.statistics.over_rows import ROUNDING
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

Scope = Literal["seeds and rows", "rows", "seeds", "shares", "none"]
HOLDS_FOR: Mapping[Scope, str] = {
    "seeds and rows": "other seeds and other rows{}",
    "rows": "other rows{}, these trained systems",
    "seeds": "other seeds, these rows",
    "shares": "other rows, these trained systems, if their errors are independent",
    "none": "nothing: no pair is tested",
}
"""What verdicts on the score hold for; of rows in a range that isn't declared, those that were seen."""
NOT_INDEPENDENT = "without rows systems may err together or apart: give rows, or --independent"
"""Why means aren't compared: systems on the same rows mostly err together, or, as always-yes and always-no, apart."""
SHOWN = 4
"""Costs that are tested and stand on the first screen, the first of the input; further ones stand in the table."""


@dataclass(frozen=True)
class Verdicts:
    """Every pair of systems, with the verdicts of one family."""

    scope: Scope
    why: str | None
    """Why no pair of scores is tested; None where pairs are."""
    score: tuple[Comparison, ...]
    costs: Mapping[Cost, tuple[Comparison, ...]]
    """The costs that are tested."""
    holds_for: str
    """What verdicts on the score hold for, in a few words."""
    unranked: Mapping[Cost, str]
    """Why a cost of the first screen isn't tested though it has noise, as the end of a sentence."""


def verdicts(scores: Scores, margin: float | None = None) -> Verdicts:
    """Return the verdicts on one data set's systems.

    `margin` is the difference of scores that counts as none; the input's where it declares one.
    """
    scope, why = scope_of(scores)
    margin = scores.score.margin if margin is None else margin
    scored = _scored(scores, scope, margin)
    if scores.filled is not None:
        scored = tuple(map(_needing_both, scored, _scored(scores.filled, scope, margin)))
    pairs: dict[Cost | Literal["score"], tuple[Comparison, ...]] = {"score": scored}
    unranked: dict[Cost, str] = {}
    for cost, values in list(scores.costs.items())[:SHOWN]:
        if is_exact(cost, values):
            continue
        if why_not := _unranked(cost, values, scores):
            unranked[cost] = why_not
        else:
            by_system = {name: values[name] for name in scores.systems}
            pairs[cost] = statistics.compare_pairs(by_system, ratio=True)
    decided = statistics.decide_family(pairs, scores.look, "score")
    costs = {cost: of for cost, of in decided.items() if cost != "score"}
    holds_for = HOLDS_FOR[scope].format("" if scores.foreseen else " of this range")
    return Verdicts(scope, why, decided["score"], costs, holds_for, unranked)


def check_margin(scores: Scores, margin: float) -> None:
    """Check that a margin is smaller than the score's range, where that is known: else nothing could differ by it."""
    if scores.bounded and margin >= scores.range:
        low, high = (0.0, 1.0) if scores.binary else (scores.score.low, scores.score.high)
        raise UserError(
            f"the margin {margin:g} is no less than the range of {sanitize(scores.score.name, 40)}, {low:g} to "
            f"{high:g}; give a smaller difference, in the score's unit"
        )


def _needing_both(shared: Comparison, filled: Comparison) -> Comparison:
    """Return a pair of which a claim needs the shared rows, and all rows with the worst score where one is missing.

    The interval at a test's level is the widest of both, and so has 0 where only one has, or their signs differ.
    """
    if shared.p is None or filled.p is None:
        return shared
    both = (*shared.evidence, *filled.evidence) if shared.evidence and filled.evidence else ()
    low, high = widest(both)
    margins = [p for p in (shared.p_equivalent, filled.p_equivalent) if p is not None]
    return replace(
        shared,
        difference=replace(shared.difference, low=low, high=high),
        p=max(shared.p, filled.p) if shared.difference.mean * filled.difference.mean > 0 else 1.0,
        p_equivalent=max(margins) if len(margins) == 2 else None,
        evidence=both,
        skewed=shared.skewed or filled.skewed,
    )


def check_largest(scores: Scores) -> None:
    """Check the largest difference of a row that was declared, where one was: rows must have it, and none exceed it."""
    score, largest = scores.score, scores.score.largest
    if largest is None:
        return
    given = f"the largest difference of a row, {largest:g} ({score.largest_by}),"
    if scores.rows is None:
        raise UserError(f"{given} takes scores row by row; leave it out")
    if scores.binary:
        raise UserError(f"{given} is for real scores, and rows of {scores.title} are right or wrong; leave it out")
    if scores.bounded and largest > scores.range:
        raise UserError(f"{given} is above the score's range of {scores.range:g}; give a smaller one, or leave it out")
    runs = [[by[run] for by in scores.rows.values() if run in by] for run in range(len(scores.seeds))]
    runs.append([np.mean(list(by.values()), axis=0) for by in scores.rows.values()])
    if (seen := max(float(np.ptp(of, axis=0).max()) for of in runs)) > largest * (1 + ROUNDING):
        raise UserError(
            f"{given} is exceeded in {scores.title}: two systems differ by {seen:g} in a row; give a larger one"
        )


def scope_of(scores: Scores) -> tuple[Scope, str | None]:
    """Return which test the input allows for all pairs, and why none if so."""
    seeds = scores.shared_seeds >= statistics.LEAST_SEEDS
    if scores.rows is not None:
        few = _few(scores.group_count or scores.count or 0, "rows" if scores.groups is None else "groups of rows")
        return "none" if few else "seeds and rows" if seeds and not _repeated(scores) else "rows", few
    if seeds:
        return "seeds", None
    if scores.score.low is None or scores.score.high is None:
        return "none", "the score's range isn't known: give --range, or scores row by row"
    if scores.count is None:
        return "none", "the number of rows isn't known: give a column rows, or scores by row"
    if few := _few(scores.count, "rows"):
        return "none", few
    return ("shares", None) if scores.independent else ("none", NOT_INDEPENDENT)


def _repeated(scores: Scores) -> bool:
    """Return whether all runs of each system have the same scores, and so show nothing of other seeds."""
    return all((of == next(iter(runs.values()))).all() for runs in scores.units.values() for of in runs.values())


def _few(count: int, unit: str) -> str | None:
    """Return that so few rows show nothing, if so."""
    least = statistics.LEAST_ROWS
    return (
        f"{unit} under {least} show nothing of others: there {'is' if count == 1 else 'are'} {count}"
        if count < least
        else None
    )


def _scored(scores: Scores, scope: Scope, margin: float | None) -> tuple[Comparison, ...]:
    if scope == "seeds and rows":
        step = 1.0 if scores.binary else 0.0
        return statistics.compare_scores(scores.units, margin, scores.difference_span, step, bounded=scores.foreseen)
    if scope == "rows":
        runs = {name: np.mean(list(scores.units[name].values()), axis=0) for name in scores.systems}
        return statistics.compare_rows(runs, margin, scores.difference_span, bounded=scores.foreseen)
    if scope == "seeds":
        return statistics.compare_pairs(scores.means, margin=margin)
    means = {name: float(np.mean(list(scores.means[name].values()))) for name in scores.systems}
    low, high = scores.score.low, scores.score.high
    if scope == "shares" and low is not None and high is not None:
        return statistics.compare_shares(means, scores.count or 0, margin, (low, high))
    return statistics.untested(means, scores.count or 0)


def is_exact(cost: Cost, values: Mapping[str, Mapping[int, float]]) -> bool:
    """Return whether a cost is a count without noise: by the input, or equal in all of three or more runs of each."""
    # Two runs in whole seconds agree by chance too often.
    least = statistics.LEAST_SEEDS
    return cost.exact or all(len(of) >= least and len(set(of.values())) == 1 for of in values.values())


def _unranked(cost: Cost, values: Mapping[str, Mapping[int, float]], scores: Scores) -> str | None:
    """Return why a cost isn't tested; None where it is above 0, in three seeds or more that every two systems share."""
    if scores.shared_seeds < statistics.LEAST_SEEDS:
        return "ranks take three seeds that all systems share"
    title = sanitize(cost.title, 24)
    if set(values) != set(scores.systems):
        return f"some system has no {title}"
    runs = [set(values[name]) for name in scores.systems]
    if min(len(a & b) for a, b in combinations(runs, 2)) < statistics.LEAST_SEEDS:
        return f"ranks take three seeds in which all systems have {title}"
    if any(value <= 0 for of in values.values() for value in of.values()):
        return f"ranks compare factors, and {title} is 0 in some runs"
    return None
