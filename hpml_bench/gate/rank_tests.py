"""Exact rank tests and the estimate and bounds that belong to them: signed-rank for pairs,
rank-sum for two samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from hpml_bench.statistics.intervals import finite

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankTest:
    """A one-sided test of a shift and, by inverting it, an estimate and bounds of the shift.

    The statistic of "the shift is `value`" is the number of comparisons above `value`; a comparison
    that equals it counts for neither side, which makes ties err on the side of no verdict.
    """

    comparisons: Floats
    """Sorted: Walsh averages (x_i + x_j) / 2 with i <= j of a sample, or differences y_j - x_i
    of two.
    """
    tail: Floats  # tail[c] = P(at least c comparisons lie above the true shift)
    error: float | None  # standard error of the mean shift; None where a single value has no spread
    freedom: int  # degrees of freedom of `error`
    size: int  # values of the sample, or of the candidate's

    @cached_property
    def estimate(self) -> float:
        """The Hodges-Lehmann estimate (1963): the median of the comparisons."""
        return float(np.median(self.comparisons))

    def p_above(self, value: float) -> float:
        """Return the p of "the shift is at most `value`", against its being larger."""
        return float(self.tail[np.count_nonzero(self.comparisons > value)])

    def lower(self, level: float) -> float | None:
        """Return the bound below which the shift lies with at most this chance; None where so
        few values give none.
        """
        # it exceeds a value exactly where `p_above` of that value is at most `level`
        needed = self._needed(level)
        return None if needed is None else float(self.comparisons[len(self.comparisons) - needed])

    def upper(self, level: float) -> float | None:
        """Return the bound above which the shift lies with at most this chance; None where so
        few values give none.
        """
        needed = self._needed(level)
        return None if needed is None else float(self.comparisons[needed - 1])

    def attained(self, level: float) -> float | None:
        """Return the highest level up to `level` that the test can have; None where it can't
        reject.
        """
        needed = self._needed(level)
        return None if needed is None else float(self.tail[needed])

    def _needed(self, level: float) -> int | None:
        """Return the least number of comparisons on one side that rejects at `level`."""
        rejects = np.flatnonzero(self.tail <= level)
        return int(rejects[0]) if rejects.size else None


def signed_rank(values: Sequence[float]) -> RankTest:
    """Return Wilcoxon's signed-rank test (1945) of a sample's centre, of finite values symmetric
    about it.
    """
    data = finite(values)
    rows, columns = np.triu_indices(data.size)
    averages = np.sort((data[rows] + data[columns]) / 2)
    error = float(data.std(ddof=1)) / math.sqrt(data.size) if data.size > 1 else None
    return RankTest(averages, signed_rank_tail(data.size), error, data.size - 1, data.size)


def rank_sum(reference: Sequence[float], candidate: Sequence[float]) -> RankTest:
    """Return the Mann-Whitney test (1947) of how far `candidate` is shifted from `reference`,
    all values finite.
    """
    x, y = finite(reference), finite(candidate)
    freedom = x.size + y.size - 2
    error = None
    if x.size > 1 and y.size > 1:
        pooled = ((x.size - 1) * x.var(ddof=1) + (y.size - 1) * y.var(ddof=1)) / freedom
        error = math.sqrt(float(pooled) * (1 / x.size + 1 / y.size))
    return RankTest(
        np.sort(np.subtract.outer(y, x).ravel()),
        rank_sum_tail(x.size, y.size),
        error,
        freedom,
        y.size,
    )


@lru_cache
def signed_rank_tail(n: int) -> Floats:
    """Return P(W >= w) for w = 0 ... n (n + 1) / 2: the coefficients of the product of 1 + x^i
    over i = 1 ... n.
    """
    counts = [1]
    for i in range(1, n + 1):
        counts = [a + b for a, b in zip(counts + [0] * i, [0] * i + counts, strict=True)]
    return _tail(counts)


@lru_cache
def rank_sum_tail(m: int, n: int) -> Floats:
    """Return P(U >= u) for u = 0 ... m n, from the Gaussian binomial Π (1 - x^(n+i)) / (1 - x^i)
    over i = 1 ... m.
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for power in range(m * n, n + i - 1, -1):
            counts[power] -= counts[power - n - i]
        for power in range(i, m * n + 1):
            counts[power] += counts[power - i]
    return _tail(counts)


def _tail(counts: list[int]) -> Floats:
    above = list(accumulate(reversed(counts)))
    return np.array([count / above[-1] for count in reversed(above)])
