"""Every pair of methods on one metric, and the ranks that follow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hpml_bench.statistics.intervals import ALPHA, Interval, mean_interval
from hpml_bench.statistics.paired import holm, paired_sd, paired_t, sign_flip, sign_flip_floor
from hpml_bench.statistics.planning import detectable_difference

Values = Mapping[str, Mapping[int, float]]
"""method -> seed -> value; finite numbers only."""
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Comparison:
    """Method `a` against method `b` on one metric, over the seeds both have; differences are a - b."""

    a: str
    b: str
    difference: Interval
    p: float | None
    """Paired t, two-sided. None where it can't be computed (fewer than two seeds)."""
    p_adjusted: float | None
    """Holm over the family of comparisons this one belongs to."""
    p_sign_flip: float | None
    """Exact sign-flip permutation test, which assumes symmetry only."""
    sign_flip_floor: float | None
    """The least p that the sign-flip test can reach with so many seeds: 2 / 2^n."""
    superiority: float | None
    """Share of seeds in which a > b, ties counted half."""
    sd: float | None
    """Standard deviation of the differences as the test takes it; None where they are all equal and don't tell it."""
    detectable: float | None
    """Least true difference found with a chance of 80 % at this `sd` and number of seeds, without adjustment."""
    detectable_first: float | None = None
    """The same at Holm's first step, where p has to be below 5 % divided by the size of the family."""
    exact: bool = False
    """Both methods are the same in every seed: the values themselves decide, not a test."""

    @property
    def differs(self) -> bool:
        """Whether the difference is real at the family's level of 5 %."""
        return self.p_adjusted is not None and self.p_adjusted < ALPHA

    @property
    def higher(self) -> str:
        """The method with the higher mean."""
        return self.a if self.difference.mean > 0 else self.b

    @property
    def lower(self) -> str:
        """The method with the lower mean."""
        return self.b if self.difference.mean > 0 else self.a


def compare_pairs(values: Values, *, exact: bool = False) -> tuple[Comparison, ...]:
    """Compare every pair of methods on one metric, in the order given, Holm-adjusted over these pairs.

    Args:
        values: method -> seed -> value; pairs that share no seed are left out.
        exact: a method that has the same value in several seeds has no noise (a count of parameters): between two such
            methods any difference is real, and p is 0 or 1. Without it, equal values may be luck, as of accuracies.

    """
    pairs = itertools.combinations(values, 2)
    compared = [_compare(a, b, values[a], values[b], exact) for a, b in pairs if values[a].keys() & values[b].keys()]
    return adjust(compared)


def adjust(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Return the comparisons as one family: Holm over all that have a p; exact ones need no adjustment."""
    family = tuple(comparisons)
    tested = [c.p for c in family if c.p is not None and not c.exact]
    adjusted = iter(holm(tested))

    def member(c: Comparison) -> Comparison:
        if c.exact or c.p is None:
            return replace(c, p_adjusted=c.p)
        first = None if c.sd is None else detectable_difference(c.sd, c.difference.n, ALPHA / len(tested))
        return replace(c, p_adjusted=next(adjusted), detectable_first=first)

    return tuple(map(member, family))


def rank_intervals(
    comparisons: Iterable[Comparison], methods: Sequence[str], better: Better
) -> dict[str, tuple[int, int]]:
    """Return each method's rank as an interval: [1 + number significantly better, k - number significantly worse].

    Ties are not transitive, so a single order would claim more than is known.
    """
    ahead = dict.fromkeys(methods, 0)
    behind = dict.fromkeys(methods, 0)
    for c in comparisons:
        if c.differs and better != "neither":
            winner, loser = (c.higher, c.lower) if better == "higher" else (c.lower, c.higher)
            ahead[loser] += 1
            behind[winner] += 1
    return {method: (1 + ahead[method], len(methods) - behind[method]) for method in methods}


def _constant(by_seed: Mapping[int, float]) -> bool:
    return len(by_seed) > 1 and len(set(by_seed.values())) == 1


def _compare(a: str, b: str, of_a: Mapping[int, float], of_b: Mapping[int, float], exact: bool) -> Comparison:
    shared = sorted(of_a.keys() & of_b.keys())
    differences = np.array([of_a[seed] - of_b[seed] for seed in shared])
    interval = mean_interval(differences)
    if exact and _constant(of_a) and _constant(of_b):
        p = 0.0 if np.any(differences != 0) else 1.0
        return Comparison(a, b, interval, p, p, None, None, None, None, None, exact=True)
    several = interval.sd is not None
    sd = paired_sd(differences)
    return Comparison(
        a,
        b,
        interval,
        p=paired_t(differences),
        p_adjusted=None,
        p_sign_flip=sign_flip(differences) if several else None,
        sign_flip_floor=sign_flip_floor(interval.n) if several else None,
        superiority=float(np.mean((differences > 0) + 0.5 * (differences == 0))) if several else None,
        sd=sd,
        detectable=None if sd is None else detectable_difference(sd, interval.n),
    )
