"""Every pair of methods on one metric, the verdicts of a family of pairs, and the ranks that
follow.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpml_bench.statistics.evidence import (
    LEAST_FACTOR,
    LEAST_SEEDS,
    Evidence,
    Lent,
    OverSeeds,
    acceptance,
    detectable,
    p_equivalent,
    seeds_to_decide,
    share_variances,
    widest,
)
from hpml_bench.statistics.intervals import ALPHA, Interval, holm, shaffer, sign_flip, weighted_holm

Values = Mapping[str, Mapping[int, float]]  # method -> seed -> value; finite numbers only
EvidenceOf = Callable[[str, str, Sequence[int]], tuple[Evidence, ...] | None]
Better = Literal["higher", "lower", "neither"]
Verdict = Literal["different", "equivalent", "undecided", "untested"]
FOR_DIFFERENCES, FOR_EQUIVALENCES, FOR_GUESSING = 0.8, 0.15, 0.05
"""Shares of a page's 5 %: each kind of claim is held to its share, and so all together to 5 %.

They can't share it as one list: a pair rightly called equivalent would raise the level at which the
others are wrongly called different, to 9 % in the worst case. Of two methods differences have the
share of equivalences too, until they pass it on (`weighted_holm`).
"""
OF_SCORE = 0.6  # share of the differences' level that the score has beside costs
EACH_LOOK = 2 / 3  # share of what is left of the 5 % that a look may use which nobody declared
DECLARED_LOOKS = (
    0.95  # share of the 5 % that looks may use together which were declared before the first
)


def spent_at(look: int, declared: int = 0) -> float:
    """Return the share of a page's 5 % for a look, from 1: equal ones of `declared` looks, then
    2/3 of what is left.
    """
    # Each look may err; by Boole the chance of any error is at most the sum. Alpha spending (Lan
    # and DeMets 1983) by the look's number, since how many will follow isn't known. A constant
    # share of what is left costs a first look at five seeds few points of power, and leaves a
    # second one enough to be worth its runs: `calibration.py ledger`.
    if look <= declared:
        return DECLARED_LOOKS / declared
    left = 1 - DECLARED_LOOKS if declared else 1.0
    looks_before = look - declared - 1
    return left * EACH_LOOK * (1 - EACH_LOOK) ** looks_before


@dataclass(frozen=True)
class Comparison:
    """Method `a` against method `b` on one metric, over the seeds both have; differences are a -
    b.
    """

    a: str
    b: str
    # mean of the differences within a seed and its own 95 % interval, of logarithms where `ratio`
    difference: Interval
    p: float | None  # two-sided p of no difference. None under three seeds
    p_equivalent: float | None
    """p of a difference of the margin or more: the larger of two one-sided tests. None also
    without a margin.
    """
    margin: float | None
    # whether differences are of natural logarithms: the costs are compared by their factor a / b
    ratio: bool = False
    # whether the values are counts, the same in every seed: they decide themselves, without a test
    exact: bool = False
    p_sign_flip: float | None = (
        None  # exact sign-flip permutation test over seeds, which assumes symmetry only
    )
    sign_flip_floor: float | None = (
        None  # the least p that the sign-flip test can reach with so many seeds: 2 / 2^n
    )
    superiority: float | None = None  # share of seeds in which a > b, ties counted half
    skewed: bool = False
    """The seeds look like skewed noise of unequal spread, or few rows of a score without a range
    carry the difference; tests claim too much there.
    """
    evidence: tuple[Evidence, ...] = field(default=(), repr=False)
    """Evidence for p, interval and plans; where there are several, a claim needs each. Empty:
    spread unknown.
    """
    p_adjusted: float | None = None  # p adjusted over its family; a claim where it is below 5 %
    p_equivalent_adjusted: float | None = None  # `p_equivalent` likewise
    first_levels: tuple[float, float] | None = None
    """Levels of the first step in its family: of differences, of equivalences."""
    next_levels: tuple[float, float] | None = (
        None  # the same at the next look, after seeds were added
    )

    @property
    def differs(self) -> bool:
        """Whether the difference is real at the family's level of 5 %."""
        return self.p_adjusted is not None and self.p_adjusted < ALPHA

    @property
    def uncertain(self) -> bool:
        """Whether a claim on the pair may be wrong with a chance above the level."""
        return self.skewed and (self.differs or self.equivalent)

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to lie within the margin, at the family's level of 5
        %.
        """
        return self.p_equivalent_adjusted is not None and self.p_equivalent_adjusted < ALPHA

    @property
    def verdict(self) -> Verdict:
        """Verdict on the pair; one that differs may be equivalent as well: real, and too small
        to matter.
        """
        if self.p is None:
            return "untested"
        if self.differs:
            return "different"
        return "equivalent" if self.equivalent or self.exact else "undecided"

    @cached_property
    def deciding(self) -> tuple[float, float] | None:
        """Interval of the difference at the level that decides the pair: without 0 just where it
        differs.
        """
        if (
            self.p is None
            or self.p_adjusted is None
            or self.first_levels is None
            or not self.evidence
        ):
            return None
        clipped = self.p_adjusted >= 1 or self.p == 0
        return acceptance(
            self.evidence, self.first_levels[0] if clipped else ALPHA * self.p / self.p_adjusted
        )

    @cached_property
    def detectable(self) -> float | None:
        """Least true difference that so many seeds find at this spread with a chance of 80 %, at
        the first level.
        """
        if self.first_levels is None or not self.evidence:
            return None
        return max(
            detectable(one, self.difference.n, self.first_levels[0]) for one in self.evidence
        )

    @cached_property
    def seeds_needed(self) -> int | None:
        """Seeds that would decide at the next look with a chance of 80 % if the mean difference
        is the true one.
        """
        # None above 10,000.
        if self.next_levels is None or not self.evidence:
            return None
        return seeds_to_decide(self.evidence, self.margin, *self.next_levels)

    def other(self, method: str) -> str:
        return self.b if self.a == method else self.a

    def winner(self, better: Better) -> str | None:
        """Return the method that is shown to be better; None where none is."""
        if not self.differs or better == "neither":
            return None
        return self.a if (self.difference.mean > 0) == (better == "higher") else self.b


def compare_pairs(
    values: Values,
    *,
    exact: bool = False,
    ratio: bool = False,
    margin: float | None = None,
    grid: float | None = None,
    evidence: EvidenceOf | None = None,
    lent: Mapping[tuple[str, str], Lent] | None = None,
) -> tuple[Comparison, ...]:
    """Compare every pair of methods on one metric by the seeds both have, in the order given;
    `decide` gives verdicts.

    With `exact` any difference of methods that have one value in several seeds each (a count of
    parameters) is real, and p is 0 or 1. With `ratio` logarithms are compared, and `margin` is one
    of theirs. `grid` is the spacing of measured values. `evidence` returns a pair's, from its
    methods and shared seeds: empty where the spread is unknown, None where the pair can't be
    tested; by default the paired t test's. `lent` as in `share_variances`, in the order of the
    methods.
    """
    pairs = dict[tuple[str, str], Comparison]()
    for a, b in itertools.combinations(values, 2):
        if not (seeds := sorted(values[a].keys() & values[b].keys())):
            continue
        table = np.array([[values[name][seed] for seed in seeds] for name in (a, b)], dtype=float)
        if exact and all(len(of) > 1 and len({*of.values()}) == 1 for of in (values[a], values[b])):
            value = float(table[0, 0] - table[1, 0])
            point = Interval(len(seeds), value, 0.0, value, value)
            pairs[a, b] = Comparison(a, b, point, 0.0 if value else 1.0, None, None, exact=True)
            continue
        spacing = grid / float(table.min()) if grid and ratio else grid
        table = np.log(table) if ratio else table
        over_seeds = OverSeeds.of(table[0] - table[1], spacing)
        given = (
            evidence(a, b, seeds)
            if evidence and len(seeds) > 1
            else (over_seeds,)
            if over_seeds
            else ()
        )
        pairs[a, b] = replace(_over_seeds(a, b, table, given), margin=margin, ratio=ratio)
    shared = share_variances({pair: c.evidence for pair, c in pairs.items()}, len(values), lent)
    return tuple(tested_by(c, shared[pair]) for pair, c in pairs.items())


def _over_seeds(
    a: str, b: str, table: NDArray[np.float64], given: tuple[Evidence, ...] | None
) -> Comparison:
    """Return a pair by its values, [2, seeds], with the evidence that it is given."""
    differences, n = table[0] - table[1], table.shape[1]
    enough, found = n >= LEAST_SEEDS and given is not None, given or ()
    by_signs, sd = (
        (sign_flip(differences), float(differences.std(ddof=1))) if n > 1 else (None, None)
    )
    return Comparison(
        a,
        b,
        Interval(n, float(differences.mean()), sd, *widest(found)),
        p=(by_signs if differences.any() else 1.0) if enough else None,  # of an unknown spread
        p_equivalent=None,
        margin=None,
        p_sign_flip=by_signs,
        sign_flip_floor=2.0 ** (1 - n) if n > 1 else None,
        superiority=float(np.mean((differences > 0) + 0.5 * (differences == 0))) if n > 1 else None,
        skewed=looks_skewed(*table),
        evidence=found if enough else (),
    )


def tested_by(c: Comparison, evidence: tuple[Evidence, ...]) -> Comparison:
    """Return a pair with other evidence, if there is any: its tests and interval follow from it."""
    if not evidence:
        return c
    low, high = widest(evidence)
    near = max(p_equivalent(one, c.margin) for one in evidence) if c.margin else None
    p = max(one.p() for one in evidence)
    return replace(
        c,
        difference=replace(c.difference, low=low, high=high),
        p=p,
        p_equivalent=near,
        evidence=evidence,
    )


Metric = TypeVar("Metric", bound=Hashable)


def decide(
    comparisons: Iterable[Comparison], look: int = 1, declared: int = 0
) -> tuple[Comparison, ...]:
    """Return the comparisons of a metric alone with their verdicts, as `decide_family` of one
    metric.
    """
    return decide_family({None: comparisons}, look, declared=declared)[None]


def decide_family(
    family: Mapping[Metric, Iterable[Comparison]],
    look: int = 1,
    score: Metric | None = None,
    *,
    guess: bool = True,
    declared: int = 0,
) -> dict[Metric, tuple[Comparison, ...]]:
    """Return the comparisons of metrics, one family, with their verdicts at a look, from 1, of so
    many declared ones.

    The chance of any false difference, and of any false equivalence, is held to its share of what
    this look may spend of 5 %. With three methods or more Shaffer's procedure decides each metric's
    differences (`shares_of`), and Holm's the equivalences of all metrics. With two, each metric has
    one pair, and Holm's procedure with weights decides them together. Adjusted p are scaled so that
    below 5 % is a claim; exact pairs need none. Without `guess` the page has no verdicts on
    guessing, and differences have their share too.
    """
    pairs = {metric: tuple(of) for metric, of in family.items()}
    first, following = (
        levels(pairs, at, score, guess=guess, declared=declared) for at in (look, look + 1)
    )
    spent = spent_at(look, declared)
    different = _adjusted(pairs, spent, score, guess=guess)
    equal = _adjusted_of_margin(pairs, spent, score)

    def member(c: Comparison, metric: Metric) -> Comparison:
        if not _tested(c):
            return replace(c, p_adjusted=c.p)
        decided = replace(
            c,
            p_adjusted=next(different[metric]),
            first_levels=first[metric],
            next_levels=following[metric],
        )
        if c.p_equivalent is None:
            return decided
        return replace(decided, p_equivalent_adjusted=next(equal[metric]))

    return {metric: tuple(member(c, metric) for c in of) for metric, of in pairs.items()}


def decide_in_one_step(
    family: Mapping[Metric, Iterable[Comparison]],
    metric: Metric,
    look: int = 1,
    *,
    guess: bool = True,
    declared: int = 0,
) -> tuple[Comparison, ...]:
    """Return a metric's comparisons, each tested at an equal share of the metric's part
    (Bonferroni).

    For claims beside those of `decide_family` in the metric's place, such as those on checkpoints
    beside methods: a pair whose two claims are both false then has one part, and none passes
    anything on or has an equivalence's part.
    """
    pairs = {name: tuple(of) for name, of in family.items()}
    tested = {name: [c for c in of if _tested(c)] for name, of in pairs.items()}
    part, _ = _of_differences(tested, guess=guess)
    part *= ALPHA * weights_of(tested, metric)[metric]
    each, each_next = (
        part * spent_at(at, declared) / max(1, len(tested[metric])) for at in (look, look + 1)
    )
    return tuple(
        replace(
            c,
            p_adjusted=None if c.p is None else min(1.0, ALPHA * c.p / each),
            first_levels=(each, 0.0),
            next_levels=(each_next, 0.0),
        )
        if _tested(c)
        else replace(c, p_adjusted=c.p)
        for c in pairs[metric]
    )


def levels(
    family: Mapping[Metric, Iterable[Comparison]],
    look: int = 1,
    score: Metric | None = None,
    *,
    guess: bool = True,
    declared: int = 0,
) -> dict[Metric, tuple[float, float]]:
    """Return each metric's levels of the first step of `decide_family`: for differences, for
    equivalences.
    """
    pairs = {metric: [c for c in of if _tested(c)] for metric, of in family.items()}
    alpha = ALPHA * spent_at(look, declared)
    shares = shares_of(pairs, score, guess=guess)
    if _of_two(pairs):
        weights = weights_of(pairs, score)
        parts = {metric: alpha / max(1, len(tested)) for metric, tested in pairs.items()}
        return {
            metric: (
                parts[metric] * shares[metric],
                parts[metric] * FOR_EQUIVALENCES * weights[metric],
            )
            for metric in pairs
        }
    bounded = [c for of in pairs.values() for c in of if c.p_equivalent is not None]
    equal = alpha * FOR_EQUIVALENCES / max(1, len(bounded))
    return {
        metric: (alpha * share / max(1, len(pairs[metric])), equal)
        for metric, share in shares.items()
    }


def last_level(
    family: Mapping[Metric, Iterable[Comparison]],
    metric: Metric,
    score: Metric | None,
    *,
    guess: bool = True,
    declared: int = 0,
) -> float:
    """Return the level that a metric's difference has at a first look once all others are
    decided: the most it can.
    """
    pairs = {name: [c for c in of if _tested(c)] for name, of in family.items()}
    alpha = ALPHA * spent_at(1, declared)
    if _of_two(pairs):
        kept, every = _of_differences(pairs, guess=guess)
        weight = weights_of(pairs, score)[metric]
        return alpha * (kept + weight * (every - kept))
    least_factor = LEAST_FACTOR * len(pairs[metric]) if _sharing(pairs[metric]) else 1.0
    return alpha * shares_of(pairs, score, guess=guess)[metric] / max(1.0, least_factor)


def shares_of(
    family: Mapping[Metric, Sequence[Comparison]],
    score: Metric | None = None,
    *,
    guess: bool = True,
) -> dict[Metric, float]:
    """Return the share that the differences by each metric of a family have of what a look may
    spend.

    Of two methods it is that of the first step, before another metric's difference passes on its
    own.
    """
    tested = {metric: [c for c in of if _tested(c)] for metric, of in family.items()}
    kept, every = _of_differences(tested, guess=guess)
    whole = every if _of_two(tested) else kept
    return {metric: whole * weight for metric, weight in weights_of(tested, score).items()}


def weights_of(
    family: Mapping[Metric, Sequence[Comparison]], score: Metric | None = None
) -> dict[Metric, float]:
    """Return the weight of each metric among the tested ones: `OF_SCORE` for the score, the rest
    equally for costs.
    """
    costs = [metric for metric, of in family.items() if metric != score and any(map(_tested, of))]
    scored = score is not None and any(map(_tested, family.get(score, ())))
    of_score = (OF_SCORE if costs else 1.0) if scored else 0.0
    of_cost = (1 - of_score) / max(1, len(costs))
    return {metric: of_score if metric == score and scored else of_cost for metric in family}


def _of_differences(
    tested: Mapping[Metric, Sequence[Comparison]], *, guess: bool
) -> tuple[float, float]:
    """Return the share of differences without and with that of equivalences, which is theirs where
    there is no margin.

    Without verdicts on guessing they have its share too.
    """
    margin = any(c.margin for of in tested.values() for c in of)
    every = FOR_DIFFERENCES + FOR_EQUIVALENCES + (0.0 if guess else FOR_GUESSING)
    return every - FOR_EQUIVALENCES if margin else every, every


def _adjusted(
    family: Mapping[Metric, Sequence[Comparison]],
    spent: float,
    score: Metric | None,
    *,
    guess: bool,
) -> dict[Metric, Iterator[float]]:
    """Return the adjusted p of the tested differences by metric, scaled so that below 5 % is a
    claim.
    """
    p = {
        metric: [c.p for c in of if c.p is not None and _tested(c)] for metric, of in family.items()
    }
    if _of_two(family):
        kept, every = _of_differences(family, guess=guess)
        weights = weights_of(family, score)
        weight_of_pair = [
            weights[metric] / len(values) for metric, values in p.items() for _ in values
        ]
        all_p = [value for values in p.values() for value in values]
        of_pairs = iter(weighted_holm(all_p, weight_of_pair, kept / every))
        return {
            metric: iter([min(1.0, next(of_pairs) / (spent * every)) for _ in values])
            for metric, values in p.items()
        }
    shares = shares_of(family, score, guess=guess)
    adjusted = {
        metric: shaffer(
            values, len(_methods(family[metric])), LEAST_FACTOR * _sharing(family[metric])
        )
        for metric, values in p.items()
    }
    return {
        metric: iter([min(1.0, p / (spent * shares[metric])) for p in of])
        for metric, of in adjusted.items()
    }


def _adjusted_of_margin(
    family: Mapping[Metric, Sequence[Comparison]], spent: float, score: Metric | None
) -> dict[Metric, Iterator[float]]:
    """Return the adjusted p of the tested equivalences by metric, scaled so that below 5 % is a
    claim.
    """
    p = {
        metric: [c.p_equivalent for c in of if c.p_equivalent is not None and _tested(c)]
        for metric, of in family.items()
    }
    share = spent * FOR_EQUIVALENCES
    if _of_two(family):
        # Fixed weights: the rest of a metric's part belongs to its difference, as only one of both
        # claims can be false.
        weights = weights_of(family, score)
        return {
            metric: iter(
                [min(1.0, value * len(values) / (share * weights[metric])) for value in values]
            )
            for metric, values in p.items()
        }
    adjusted = iter(holm([value for values in p.values() for value in values]))
    return {
        metric: iter([min(1.0, next(adjusted) / share) for _ in values])
        for metric, values in p.items()
    }


def _sharing(pairs: Iterable[Comparison]) -> bool:
    """Return whether pairs share a variance, so that their p depend on each other in ways
    Shaffer's steps don't see.
    """
    return any(evidence.prior for c in pairs for evidence in c.evidence)


def _tested(c: Comparison) -> bool:
    return c.p is not None and not c.exact


def _methods(comparisons: Iterable[Comparison]) -> set[str]:
    return {name for c in comparisons if _tested(c) for name in (c.a, c.b)}


def _of_two(family: Mapping[Metric, Iterable[Comparison]]) -> bool:
    """Return whether no metric has tested pairs of three methods: Holm's procedure then takes
    all metrics together.
    """
    return all(len(_methods(of)) < 3 for of in family.values())


def compare_costs(
    values: Values, margin: float, grid: float | None = None
) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the factor of their costs above 0; `margin` is the share
    that counts as none.
    """
    return compare_pairs(values, ratio=True, margin=math.log1p(margin), grid=grid)


SPREAD, SKEW = 3.0, 1.0
"""Ratio of the methods' standard deviations, and coefficient of skewness of the differences,
from which a pair looks like skewed noise of unequal spread. So skewed are 12 % of samples of
five normal differences and 27 % of exponential ones, of ten 9 % and 46 %; three can't be.
"""


def looks_skewed(of_a: NDArray[np.float64], of_b: NDArray[np.float64]) -> bool:
    """Return whether two methods' values over the same seeds look like skewed noise of unequal
    spread.
    """
    if of_a.size < LEAST_SEEDS:
        return False
    low, high = sorted((float(of_a.std(ddof=1)), float(of_b.std(ddof=1))))
    return high >= SPREAD * low and skewness(of_a - of_b) > SKEW


def skewness(values: NDArray[np.float64]) -> float:
    """Return the absolute coefficient of skewness, m₃ / m₂^1.5 with moments about the mean; 0
    for constant values.
    """
    spread = values - values.mean()
    square = float(np.mean(spread**2))
    return abs(float(np.mean(spread**3))) / square**1.5 if square else 0.0


ROW_SKEW = 3.0
"""Skewness over rows above which few rows seem to carry a difference; benchmarks/calibration.py
counts the marks.
"""


def carried_by_few(rows: NDArray[np.float64]) -> bool:
    return skewness(rows) > ROW_SKEW


# Ranks, and the Pareto front


class Membership(NamedTuple):
    """A method's place: on the front, off it, or undecided."""

    place: Literal["on", "off", "undecided"]
    by: tuple[str, ...] = ()  # the methods that dominate it, where it is off


def pareto_membership(
    methods: Sequence[str], family: Mapping[str, Iterable[Comparison]], better: Mapping[str, Better]
) -> dict[str, Membership]:
    """Return each method's place on the front over the metrics of a decided family: metric ->
    pairs with verdicts.
    """
    # off: another is shown better in one metric, and better or equivalent in all; on: better than
    # each other in some
    wins, even = set[tuple[str, str, str]](), set[tuple[str, str, str]]()
    for metric, comparisons in family.items():
        for c in comparisons:
            if winner := c.winner(better[metric]):
                wins.add((metric, winner, c.other(winner)))
            elif c.verdict == "equivalent":
                even |= {(metric, c.a, c.b), (metric, c.b, c.a)}

    def dominates(one: str, other: str) -> bool:
        won = [metric for metric in family if (metric, one, other) in wins]
        return bool(won) and all(metric in won or (metric, one, other) in even for metric in family)

    def place(method: str) -> Membership:
        others = [other for other in methods if other != method]
        if by := tuple(other for other in others if dominates(other, method)):
            return Membership("off", by)
        safe = all(any((metric, method, other) in wins for metric in family) for other in others)
        return Membership("on" if safe else "undecided")

    return {method: place(method) for method in methods}


def rank_intervals(
    pairs: Iterable[Comparison], methods: Sequence[str], better: Better
) -> dict[str, tuple[int, int]]:
    """Return each method's rank as an interval: [1 + number shown to be better, k - number shown
    to be worse].
    """
    # undecided is not transitive, so a single order would claim more than is known
    wins = [(winner, c.other(winner)) for c in pairs if (winner := c.winner(better))]
    won, lost = (Counter(pair[at] for pair in wins) for at in (0, 1))
    return {method: (1 + lost[method], len(methods) - won[method]) for method in methods}
