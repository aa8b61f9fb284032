"""Verdicts on the systems of one data set: every pair by score and by costs, decided as one
family, by one test.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, combinations
from math import log1p
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.judge.scores import AlignedScores, CostDefinition
from hpml_bench.records.numbers import sentence_list
from hpml_bench.select.race import Race
from hpml_bench.statistics import Comparison, Round
from hpml_bench.statistics.evidence import Evidence, share_variances, widest
from hpml_bench.statistics.over_rows import ROUNDING
from hpml_bench.statistics.verdicts import tested_by
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

Family = dict[str, tuple[Comparison, ...]]
Scope = Literal["seeds and rows", "rows", "seeds", "shares", "none"]
HOLDS_FOR: Mapping[Scope, str] = {
    "seeds and rows": "other seeds and other rows{}",
    "rows": "other rows{}, these trained systems",
    "seeds": "other seeds, these rows",
    "shares": "other rows, these trained systems, if their errors are independent",
    "none": "nothing: no pair is tested",
}
"""Scope of verdicts on the score; of rows in a range that isn't declared, those that were seen."""
NOT_INDEPENDENT = "without rows systems may err together or apart: give rows, or --independent"
"""Why means aren't compared: systems on the same rows mostly err together, or, as always-yes and
always-no, apart.
"""
ROUNDED = 1e-4
"""Distance of the values that can be measured, over the least cost, from which equal values may
be rounded ones.
"""
UNPROVEN = 1.5
"""Distance of two systems' equal values, in those that can be measured, up to which rounding may
have made it: of true costs that are equal, halfway between whole numbers, 3 % are a unit apart
in all of three runs, hardly any two units.
"""
SHOWN = 4
"""Costs that are tested and stand on the first screen, the first of the input; further ones
stand in the table.
"""
FUTILE_SEEDS = 5
"""Seeds from which the noise is known well enough to say that no number of seeds that is left
would decide.
"""
ENOUGH_SEEDS = 5
"""Seeds from which verdicts on methods are near the best possible, so that those on checkpoints
are left out.
"""


@dataclass(frozen=True)
class Verdicts:
    """Every pair of systems, with the verdicts of one family."""

    scores: AlignedScores
    scope: Scope
    why: str | None  # why no pair of scores is tested; None where pairs are
    margin: float | None  # difference of scores that counts as none; None where there is no such
    score: tuple[Comparison, ...]
    costs: Family  # column -> pairs, of the costs that are tested
    unranked: Mapping[
        str, str
    ]  # column -> why a cost of the first screen with noise isn't tested, as a sentence's end
    rounds: tuple[Round, ...] = ()  # the declared looks that were taken, where methods race
    checkpoints: tuple[Comparison, ...] = ()
    """Pairs by score for these very checkpoints on other rows, where seeds are few; no claim on
    the methods.
    """

    @property
    def look(self) -> int:
        """Number, from 1, of the look by which they were taken."""
        return max(self.scores.look, len(self.rounds))

    @property
    def raced(self) -> dict[str, int]:
        """Method -> seeds of the last round that it was in; empty where methods don't race."""
        return {name: one.seeds for one in self.rounds for name in one.systems}

    @property
    def holds_for(self) -> str:
        """Population that verdicts on the score hold for, in a few words."""
        return self._holding_for(self.scope)

    @property
    def checkpoints_hold_for(self) -> str:
        """Population that verdicts on these checkpoints hold for, in a few words."""
        return self._holding_for("rows")

    def _holding_for(self, scope: Scope) -> str:
        trained_on = self.scores.trained_on
        of_range = "" if self.scores.foreseen else " of this range"
        if trained_on and scope == "rows":
            return f"other test rows{of_range}, these trained models"
        if trained_on and scope == "seeds and rows":
            return f"other seeds, {trained_on} training rows and other test rows"
        return HOLDS_FOR[scope].format(of_range)

    @property
    def by_rows(self) -> bool:
        return self.scope in {"rows", "shares", "none"}

    @property
    def family(self) -> Family:
        """Pairs of the score, by its name, and of the tested costs, by column."""
        return {self.scores.score.name: self.score, **self.costs}

    @property
    def tested(self) -> int:
        return sum(c.verdict != "untested" for of in (self.score, *self.costs.values()) for c in of)

    @cached_property
    def ranks(self) -> dict[str, tuple[int, int]]:
        """Rank interval by score of each system that has one; empty where nothing is tested."""
        if not self.tested:
            return {}
        return statistics.rank_intervals(
            self.score, list(self.scores.means), self.scores.score.better
        )

    @cached_property
    def front(self) -> dict[str, statistics.Membership]:
        """Place on the Pareto front over score and tested costs, of the systems that have all;
        else empty.
        """
        if not self.costs or not self.tested:
            return {}
        costs = [values for cost, values in self.scores.costs.items() if cost.column in self.costs]
        names = [name for name in self.scores.means if all(name in values for values in costs)]
        better: dict[str, statistics.Better] = {
            self.scores.score.name: self.scores.score.better,
            **dict.fromkeys(self.costs, "lower"),
        }
        return statistics.pareto_membership(names, self.family, better) if len(names) > 1 else {}


def judge(scores: AlignedScores, margin: float | None = None) -> Verdicts:
    """Return the verdicts on one data set's systems, by another margin than the one that the scores
    declare if given.

    A UserError where every difference that the score's range allows would lie within the margin, or
    the declared largest difference of a row isn't one.
    """
    scope, why = _scope(scores)
    _check_largest(scores, scope)
    low, high = scores.ends
    if margin is not None and low is not None and high is not None and margin >= high - low:
        raise UserError(  # else nothing could differ by it
            f"the margin {margin:g} is no less than the range of "
            f"{sanitize(scores.score.name, 40)}, {low:g} to "
            f"{high:g}; give a smaller difference, in the score's unit"
        )
    margin = scores.score.margin if margin is None else margin
    if scores.race is None or scope not in {"seeds", "seeds and rows"}:
        pairs, unranked = _pairs(scores, scope, margin)
        decided, rounds = _decide(scores, pairs, scores.look), tuple[Round, ...]()
    else:
        decided, rounds, unranked = _raced(scores, scores.race, scope, margin)
        why = why if rounds or scores.race.later else "the first round isn't complete"
    score = decided.pop("score", ())
    checkpoints = () if scores.race else _of_checkpoints(scores, scope, margin)
    return Verdicts(scores, scope, why, margin, score, decided, unranked, rounds, checkpoints)


def _of_checkpoints(
    scores: AlignedScores, scope: Scope, margin: float | None
) -> tuple[Comparison, ...]:
    """Return every pair by score for other rows alone, with verdicts on these trained systems,
    where seeds are few.

    Three or four seeds tell little of other seeds, and as much as any number of these checkpoints.
    The claims need no part of the 5 % of their own: rows alone are part of the evidence for other
    seeds and rows, so where a pair's methods and checkpoints are both equal, a false claim on
    either takes a small p of the checkpoints. Each pair has an equal share of the score's part,
    since the checkpoints of some may be equal and those of others not. Where they aren't, the claim
    is right but for its direction, which few get wrong (`calibration.py ledger`).
    """
    if scope != "seeds and rows" or scores.filled is not None:
        return ()
    units = {
        name: by_run
        for name, by_run in scores.units.items()
        if len(by_run) >= statistics.LEAST_SEEDS
    }
    seeds = {frozenset(by_run) for by_run in units.values()}
    # with other seeds in some pairs, the methods' claims would rest on rows that checkpoints'
    # claims don't have
    if len(units) < 2 or len(seeds) > 1 or len(*seeds) >= ENOUGH_SEEDS:
        return ()
    family, _ = _pairs(scores, scope, margin)
    return statistics.decide_in_one_step(
        family | {"score": _by_rows(scores, units, "rows", margin)},
        "score",
        scores.look,
        guess=bool(scores.trained_on),
        declared=scores.declared_looks,
    )


def _raced(
    scores: AlignedScores, declared: Race, scope: Scope, margin: float | None
) -> tuple[Family, tuple[Round, ...], dict[str, str]]:
    """Return the pairs of methods that race with their verdicts, the rounds, and why costs
    aren't tested.
    """
    unranked: dict[str, str] = {}

    def compare(systems: tuple[str, ...], seeds: int) -> Family:
        pairs, why = _pairs(scores.part(systems, seeds), scope, margin)
        unranked.update(why)
        return pairs

    found, rounds = statistics.race(
        tuple(scores.means),
        declared.until.rounds,
        scores.complete,
        compare,
        partial(_decide, scores),
        "score",
        scores.score.better,
        declared.later,
    )
    if not rounds and not declared.later:  # no look is complete
        found = {
            metric: tuple(replace(c, p=None, p_equivalent=None, evidence=()) for c in of)
            for metric, of in compare(tuple(scores.means), sys.maxsize).items()
        }
    return {**found}, rounds, {cost: why for cost, why in unranked.items() if cost not in found}


def _decide(
    scores: AlignedScores, pairs: Mapping[str, tuple[Comparison, ...]], look: int
) -> Family:
    guess = bool(scores.trained_on)
    return statistics.decide_family(
        pairs, look, "score", guess=guess, declared=scores.declared_looks
    )


def _pairs(
    scores: AlignedScores, scope: Scope, margin: float | None
) -> tuple[Family, dict[str, str]]:
    """Return the pairs by score and by each cost that can be tested, without verdicts; and why
    others can't be.
    """
    scored = _scored(scores, scope, margin)
    if scores.filled is not None:
        least, largest = scores.filled
        against = zip(
            _filled(least, largest, scope, margin),
            _filled(largest, least, scope, margin),
            strict=True,
        )
        scored = tuple(_needing_all(c, *filled) for c, filled in zip(scored, against, strict=True))
    pairs, unranked = {"score": scored}, dict[str, str]()
    for cost in shown_costs(scores):
        ranking = ranking_cost(scores, cost)
        values = scores.costs[ranking]
        if is_exact(cost, scores.costs[cost]) or (scores.trained_on and len(values) < 2):
            continue
        if why_not := _unranked(ranking, values, scores):
            unranked[cost.column] = why_not
        else:
            within = None if ranking.margin is None else log1p(ranking.margin)
            pairs[ranking.column] = statistics.compare_pairs(
                values, ratio=True, margin=within, grid=ranking.grid
            )
    return pairs, unranked


def shown_costs(scores: AlignedScores) -> list[CostDefinition]:
    return [cost for cost in scores.costs if not cost.stands_for][:SHOWN]


def ranking_cost(scores: AlignedScores, cost: CostDefinition) -> CostDefinition:
    """Return the cost whose values rank the systems by `cost`: mostly itself."""
    return next((other for other in scores.costs if other.stands_for == cost.column), cost)


def is_exact(cost: CostDefinition, values: Mapping[str, Mapping[int, float]]) -> bool:
    """Return whether a cost is a count without noise: by the input, or equal in all of three or
    more runs of each.

    Of those that differ by one unit of their last digit one value may have been rounded to both:
    that is no count.
    """
    if cost.exact is not None:
        return cost.exact
    # Two runs in whole seconds agree by chance too often, and three that are rounded to few digits.
    if cost.grid and cost.grid > ROUNDED * min(
        (v for of in values.values() for v in of.values() if v), default=0.0
    ):
        return False
    if any(len(of) < statistics.LEAST_SEEDS or len(set(of.values())) > 1 for of in values.values()):
        return False
    distances = np.diff(sorted({next(iter(of.values())) for of in values.values()}))
    return not cost.grid or bool((distances > UNPROVEN * cost.grid).all())


def _unranked(
    cost: CostDefinition, values: Mapping[str, Mapping[int, float]], scores: AlignedScores
) -> str | None:
    """Return why a cost isn't tested; None where it is above 0, in three seeds or more that two
    systems share.
    """
    title = sanitize(cost.title, 24)
    if scores.unranked:
        return scores.unranked
    if len(values) < 2:
        return f"under two {scores.noun}s have {title}"
    if (
        max(len(values[a].keys() & values[b].keys()) for a, b in combinations(values, 2))
        < statistics.LEAST_SEEDS
    ):
        return f"ranks take three seeds that all {scores.noun}s share"
    if any(value <= 0 for of in values.values() for value in of.values()):
        return f"ranks compare factors, and {title} is 0 in some runs"
    return None


def _check_largest(scores: AlignedScores, scope: Scope) -> None:
    """Check the largest difference of a row that was declared, where one was: rows must have it,
    and none exceed it.
    """
    score, largest = scores.score, scores.score.largest
    if largest is None:
        return
    given = f"the largest difference of a row, {largest:g} ({score.largest_by}),"
    if scores.rows is None:
        raise UserError(f"{given} takes scores row by row; leave it out")
    if scores.binary:
        raise UserError(
            f"{given} is for real scores, and rows of {scores.title} are right or wrong; leave it "
            f"out"
        )
    if scores.bounded and largest > scores.range:
        raise UserError(
            f"{given} is above the score's range of {scores.range:g}; give a smaller one, or "
            f"leave it out"
        )
    if (seen := largest_seen(scores.rows, of_means=scope == "rows")) > largest * (1 + ROUNDING):
        raise UserError(
            f"{given} is exceeded in {scores.title}: two systems differ by {seen:g} in a row; "
            f"give a larger one"
        )


def largest_seen(rows: Mapping[str, Mapping[int, NDArray[Any]]], *, of_means: bool) -> float:
    """Return the largest difference of a row between two systems in one run, or of their means
    where these count.
    """
    runs = [
        [by[run] for by in rows.values() if run in by]
        for run in {run for by in rows.values() for run in by}
    ]
    if of_means:
        runs.append([np.mean(list(by.values()), axis=0) for by in rows.values()])
    return max((float(np.ptp(of, axis=0).max()) for of in runs if of), default=0.0)


def _scope(scores: AlignedScores) -> tuple[Scope, str | None]:
    """Return which test the scores allow for all pairs, and why none if so."""
    seeds = scores.shared_seeds >= statistics.LEAST_SEEDS
    if scores.rows is not None and not scores.means:
        return "seeds and rows", None
    if scores.rows is not None:
        few = _few(
            scores.group_count or scores.count or 0,
            "rows" if scores.groups is None else "groups of rows",
        )
        alike = all(
            (of == next(iter(runs.values()))).all()
            for runs in scores.units.values()
            for of in runs.values()
        )
        return "none" if few else "seeds and rows" if seeds and not alike else "rows", few
    if seeds:
        return "seeds", None
    if not scores.bounded:
        return "none", "the score's range isn't known: give --range, or scores row by row"
    few = "the number of rows isn't known: give a column rows, or scores by row"
    few = few if scores.count is None else _few(scores.count, "rows") or ""
    return ("none", few or NOT_INDEPENDENT) if few or not scores.independent else ("shares", None)


def _few(count: int, unit: str) -> str | None:
    """Return that so few rows show nothing, if so."""
    why = (
        f"{unit} under {statistics.LEAST_ROWS} show nothing of others: there "
        f"{'is' if count == 1 else 'are'} {count}"
    )
    return why if count < statistics.LEAST_ROWS else None


def _scored(scores: AlignedScores, scope: Scope, margin: float | None) -> tuple[Comparison, ...]:
    if scope in {"seeds and rows", "rows"}:
        return _by_rows(scores, scores.units, scope, margin)
    if scope == "seeds":
        return statistics.compare_pairs(scores.means, margin=margin)
    means = {name: float(np.mean(list(of.values()))) for name, of in scores.means.items()}
    low, high = scores.ends
    bounds = (low, high) if scope == "shares" and low is not None and high is not None else None
    return statistics.compare_shares(means, scores.count or 0, margin if bounds else None, bounds)


def _by_rows(
    scores: AlignedScores,
    units: Mapping[str, Mapping[int, NDArray[Any]]],
    scope: Scope,
    margin: float | None,
) -> tuple[Comparison, ...]:
    """Return the pairs of `units`, system -> run -> scores of rows or groups, whose ranges are
    those of `scores`.
    """
    if scope == "seeds and rows":
        step = 1.0 if scores.binary else 0.0
        # of a linearised score without a range, as an RMSE, seeds alone bound what rare rows may
        # add
        span = scores.difference_span if scores.foreseen or scores.score.row_weight is None else 0.0
        lent = scores.prior.by_pair if scores.prior else None
        return statistics.compare_scores(
            units,
            margin,
            span,
            step,
            bounded=scores.foreseen,
            effective=scores.effective,
            lent=lent,
        )
    runs = {name: np.mean(list(of.values()), axis=0) for name, of in units.items()}
    return statistics.compare_rows(
        runs, margin, scores.difference_span, bounded=scores.foreseen, effective=scores.effective
    )


def _filled(
    first: AlignedScores, second: AlignedScores, scope: Scope, margin: float | None
) -> tuple[Comparison, ...]:
    """Return every pair, with its first system's missing rows as `first` has them, its second's
    as `second` has.
    """
    if scope == "none":
        return _scored(first, scope, margin)
    pairs = {
        (c.a, c.b): c
        for a, b in combinations(first.units, 2)
        for c in _by_rows(first, {a: first.units[a], b: second.units[b]}, scope, margin)
    }
    # a system has other scores in other pairs, so that variances are shared here as `compare_pairs`
    # shares a table's
    shared = share_variances({pair: c.evidence for pair, c in pairs.items()}, len(first.units))
    return tuple(tested_by(c, shared[pair]) for pair, c in pairs.items())


def _needing_all(shared: Comparison, *filled: Comparison) -> Comparison:
    """Return a pair of which a claim needs the shared rows, and all rows as they are filled in each
    other table.

    Filled against either system these bound what missing rows may change (Horowitz and Manski
    2000). The interval at a test's level is the widest of all, and so has 0 where one of them has,
    or their signs differ.
    """
    tables = (shared, *filled)
    p = [c.p for c in tables if c.p is not None]
    if len(p) < len(tables):
        return shared
    evidence = (
        tuple(chain.from_iterable(c.evidence for c in tables))
        if all(c.evidence for c in tables)
        else ()
    )
    low, high = widest(evidence)
    near = [c.p_equivalent for c in tables if c.p_equivalent is not None]
    signs = {np.sign(c.difference.mean) for c in tables}
    return replace(
        shared,
        difference=replace(shared.difference, low=low, high=high),
        p=max(p) if len(signs) == 1 else 1.0,
        p_equivalent=max(near) if len(near) == len(tables) else None,
        evidence=evidence,
        skewed=any(c.skewed for c in tables),
    )


# Ends of races


def staying(found: Verdicts) -> tuple[str, ...]:
    """Return the methods that are in the race, or all where there is none, or seeds were added
    after it.
    """
    race = found.scores.race
    return (
        found.rounds[-1].staying
        if found.rounds and race and not race.later
        else tuple(found.scores.means)
    )


def race_end(found: Verdicts) -> str:
    """Return why a race has ended, as a sentence without its end; empty while it goes on, or
    where there is none.
    """
    race = found.scores.race
    if race is None or not found.rounds:
        return ""
    if race.later:
        return "no round was left when seeds were added by hand"
    left = staying(found)
    if len(left) > 1:
        return _end_among(found, race, left)
    return f"{sanitize(left[0])} is shown to score best" if left else "no method is left"


def _end_among(found: Verdicts, race: Race, left: Sequence[str]) -> str:
    """Return why a race ends in which several methods are left; empty where it goes on."""
    seeds, most = found.rounds[-1].seeds, race.until.rounds[-1]
    names = sentence_list([*map(sanitize, left)])
    still = _open_pairs(found, race, left)
    if not still and race.until.question == "costs":
        return "every pair that is left is decided"
    if not still:
        return f"{names} are shown to score alike"
    if seeds >= most:
        return f"{names} have the {most} seeds that were declared, and can't be told apart"
    if seeds < FUTILE_SEEDS or any(_may_be_decided(found, metric, c, most) for metric, c in still):
        return ""
    return (
        f"{names} aren't expected to be told apart with {most} seeds each, even if they differ by "
        f"a standard error more than was measured with {seeds}"
    )


def _open_pairs(found: Verdicts, race: Race, left: Collection[str]) -> list[tuple[str, Comparison]]:
    """Return metric and pair of the methods that are left in a race, of those that its question
    leaves open.
    """
    asked = {"score": found.score, **(found.costs if race.until.question == "costs" else {})}
    return [
        (metric, c)
        for metric, pairs in asked.items()
        for c in pairs
        if {c.a, c.b} <= {*left} and c.verdict in {"undecided", "untested"}
    ]


def _may_be_decided(found: Verdicts, metric: str, c: Comparison, most: int) -> bool:
    """Return whether an open pair may be decided by the most seeds, were its difference a standard
    error larger.

    The measured difference is as often too small as too large, so that an end by itself would end
    half of the races of methods whose difference the most seeds just find. The level is the most
    that the pair can have.
    """
    if not c.evidence:  # a pair that can't be tested may be with more seeds
        return True
    family = {"score": found.score, **found.costs}
    guess, scores = bool(found.scores.trained_on), found.scores
    level = statistics.last_level(
        family, metric, "score", guess=guess, declared=scores.declared_looks
    )

    def may_find(evidence: Evidence) -> bool:
        plausible = abs(evidence.mean) + evidence.error(evidence.n)
        return statistics.detectable(evidence, most, level) <= plausible

    if all(may_find(evidence) for evidence in c.evidence):
        return True
    # also to show that it lies within the margin
    return c.seeds_needed is not None and c.seeds_needed <= most
