"""Methods over several suites: mean ranks, their intervals, and which differ.

Friedman's test (1937), as Iman and Davenport (1980) correct it, says whether the methods differ at
all (Demsar 2006). Pairs are tested by the suites' differences of ranks, whatever the others do
(Benavoli, Corani and Mangili 2016): with all patterns of signs, and with the guard against rare
rows, here suites in which the better one is far behind.
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from hpml_bench.statistics.evidence import opposed_to, p_of_rare_rows
from hpml_bench.statistics.intervals import ALPHA, holm
from hpml_bench.statistics.over_rows import mean_of_rows
from hpml_bench.statistics.verdicts import EACH_LOOK, Better, Values


class RankPair(NamedTuple):
    """Two methods over the suites that have both."""

    a: str
    b: str
    difference: float  # mean rank of a less that of b; below 0, a is the better
    p: float  # two-sided p, as of `p_of_ranks`
    p_adjusted: float
    """p after Holm over the pairs, no less than Friedman's, over the look's share of the 5 %;
    below 5 % is a claim.
    """

    @property
    def winner(self) -> str | None:
        """The method that is shown to be better over suites like these; None where none is."""
        if self.p_adjusted >= ALPHA:
            return None
        return self.a if self.difference < 0 else self.b


class OverSuites(NamedTuple):
    """Ranks of methods over suites."""

    ranks: Mapping[str, float]  # mean rank of each method, from 1
    intervals: Mapping[str, tuple[float, float]]
    """95 % interval of each mean rank over suites like these, by `mean_of_rows` with ranks from
    1 to k.
    """
    # p of no difference among the methods, by Friedman's test as Iman and Davenport correct it
    p: float
    pairs: tuple[RankPair, ...]
    by_suite: Mapping[
        str, tuple[float, ...]
    ]  # rank of each method in each suite, or block of suites


def over_suites(
    suites: Sequence[tuple[Values, Better]], blocks: Sequence[int] = (), spent: float = EACH_LOOK
) -> OverSuites:
    """Return ranks over suites, values and direction of each, of the methods that all have; a
    ValueError under two.

    `blocks` are numbers, from 0, of the suites' blocks: suites of one depend on each other and
    count as one, in which methods are ranked by their mean rank. Without blocks each suite is one.
    `spent` is the share of the 5 % that this look may use, by default a first one's.
    """
    methods = shared_methods([values for values, _ in suites])
    if len(methods) < 2:
        raise ValueError("ranks over suites take two methods that each suite has")
    # without the noise of last binary digits, so that equal means tie
    means = [
        np.array([float(f"{np.mean([*values[m].values()]):.10g}") for m in methods])
        for values, _ in suites
    ]
    signs = [-1.0 if better == "higher" else 1.0 for _, better in suites]
    table = np.array([ranked(sign * mean) for sign, mean in zip(signs, means, strict=True)])
    if blocks:
        of = np.array(blocks)
        table = np.array(
            [ranked(table[of == at].mean(axis=0).round(9)) for at in range(max(blocks) + 1)]
        )
    p, most = friedman(table), float(len(methods))

    def interval(
        ranks: NDArray[np.float64],
    ) -> tuple[float, float]:  # all ranks that there are of one suite
        low, high = (mean_of_rows(ranks, most - 1) if len(ranks) > 1 else None) or (1.0, most)
        return max(1.0, low), min(most, high)

    ranks = dict(zip(methods, table.T, strict=True))
    apart = {(a, b): ranks[a] - ranks[b] for a, b in itertools.combinations(methods, 2)}
    own = [p_of_ranks(of, most - 1) for of in apart.values()]
    pairs = tuple(
        RankPair(a, b, float(of.mean()), one, min(1.0, p_adjusted / spent))
        for ((a, b), of), one, p_adjusted in zip(
            apart.items(), own, np.maximum(holm(own), p).tolist(), strict=True
        )
    )
    return OverSuites(
        ranks={name: float(of.mean()) for name, of in ranks.items()},
        intervals={name: interval(of) for name, of in ranks.items()},
        p=p,
        pairs=pairs,
        by_suite={name: tuple(of.tolist()) for name, of in ranks.items()},
    )


def least_suites(methods: int, places: float | None = None, spent: float = EACH_LOOK) -> int:
    """Return the suites that show a method which is always so many places ahead of another; of
    all places if None.
    """
    # 2 / (1 + places / (methods - 1))^n, the p of the guard, is below the look's level over the
    # pairs
    level = ALPHA * spent / (methods * (methods - 1) / 2)
    gain = 1.0 if places is None else places / (methods - 1)
    return math.floor(math.log(2 / level) / math.log1p(gain)) + 1


def shared_methods(suites: Sequence[Values]) -> tuple[str, ...]:
    """Return the methods that each suite has, in the first suite's order."""
    return (
        tuple(name for name in suites[0] if all(name in values for values in suites))
        if suites
        else ()
    )


def ranked(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks of values, the least first; equal ones share the mean of their ranks."""
    below, alike = (of(costs[:, None], costs).sum(axis=1) for of in (np.greater, np.equal))
    return np.asarray(below + (alike + 1) / 2, dtype=np.float64)


def friedman(table: NDArray[np.float64]) -> float:
    """Return the p of Friedman's test of ranks [suites, methods], by Iman and Davenport's F."""
    # F = (n - 1) Q / (n (k - 1) - Q) with k - 1 and (k - 1)(n - 1) degrees of freedom; Q is
    # corrected for ties. 1 for one suite, or ranks that are all tied.
    n, k = table.shape
    spread = float(((table - (k + 1) / 2) ** 2).sum())
    if n < 2 or not spread:
        return 1.0
    q = (k - 1) * float(((table.sum(axis=0) - n * (k + 1) / 2) ** 2).sum()) / spread
    rest = n * (k - 1) - q
    return (
        0.0
        if rest <= 1e-12
        else float(scipy.special.fdtrc(k - 1, (k - 1) * (n - 1), (n - 1) * q / rest))
    )


def p_of_ranks(differences: NDArray[np.float64], most: float) -> float:
    """Return the two-sided p of two methods' differences of ranks, [suites], of at most so many
    places each.
    """
    mean = float(differences.mean())
    opposed = opposed_to(mean, differences, most)
    return max(sign_patterns(differences), p_of_rare_rows(mean, len(differences), most, opposed))


def sign_patterns(differences: NDArray[np.float64]) -> float:
    """Return the exact two-sided p of differences of ranks: the share of sign patterns with as
    large a |sum|.
    """
    # Ranks are halves, so that the patterns of any number of suites have few sums, which are
    # counted.
    steps = np.rint(2 * differences).astype(int).tolist()
    sums = Counter({0: 1})
    for step in steps:
        more, less = (
            {total + sign * step: count for total, count in sums.items()} for sign in (1, -1)
        )
        sums = Counter(more) + Counter(less)
    observed = abs(sum(steps))
    return float(
        sum(count for total, count in sums.items() if abs(total) >= observed) / 2 ** len(steps)
    )
