"""Tests over rows alone, whose scores are a method's means over its runs: for other test rows and
these trained models.

McNemar's and Clopper and Pearson's figures are sums of binomial chances, other intervals are
searched in the test that they invert.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy import stats

from audit.statistics import Comparison, Floats, Guard


@dataclass(frozen=True, kw_only=True)
class OverRows(Comparison):
    """A mean difference over n rows, or groups: Student's t with the guard against rare ones."""

    own: Guard
    most: ClassVar[int] = 10_000_000

    def guard(self, n: int) -> Guard:
        """Return the guard at a number of rows, of which as large a share is opposed, rounded
        down.
        """
        return replace(
            self.own,
            m=n,
            opposed=tuple(k * n // self.n for k in self.own.opposed),
            many=self.own.many * n / self.n,
        )

    def errors(self, n: int) -> list[tuple[float, float]]:
        """Return standard error and degrees of freedom at a number of rows: no less than one
        row's change by r.
        """
        return [(max(math.sqrt(self.variance / n), self.own.span / n), self.guard(n).free)]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval: what the test at 5 % accepts."""
        return self.accepted(0.05) if self.spreads else None


@dataclass(frozen=True, kw_only=True)
class RightAndWrong(OverRows):
    """Rows, or groups, of two values: McNemar's exact test; plans and margins are those of
    Student's t.
    """

    only_first: int
    only_second: int

    @property
    def p_different(self) -> float:
        """McNemar's p."""
        differ = self.only_first + self.only_second
        return min(
            1.0, 2 * float(stats.binom.cdf(min(self.only_first, self.only_second), differ, 0.5))
        )

    def accepted(self, level: float) -> tuple[float, float]:
        """Return the interval among the discordant rows times that of their share, at the end
        that makes it wider.
        """
        differ = self.only_first + self.only_second
        share = clopper_pearson(differ, self.n, level)
        theta = clopper_pearson(self.only_first, differ, level) if differ else (0.0, 1.0)
        low, high = (self.own.span * (2 * end - 1) for end in theta)
        return min(low * end for end in share), max(high * end for end in share)


def clopper_pearson(k: int, n: int, level: float) -> tuple[float, float]:
    found = stats.binomtest(k, n).proportion_ci(1 - level)
    return float(found.low), float(found.high)


def of_two_values(scores: Iterable[Floats], span: float) -> bool:
    """Whether all scores are one of two that lie the range apart, but for rounding."""
    every = np.concatenate(list(scores))
    above = (every - every.min()) / (span or math.inf)
    return span > 0 and bool((np.minimum(np.abs(above), np.abs(above - 1)) < 1e-9).all())


def compare_over_rows(
    d: Floats, span: float, scores: Iterable[Floats], weights: Floats
) -> OverRows:
    """Return the comparison of a difference by row or group; McNemar's where all methods'
    `scores` have two values.
    """
    guard = Guard.of(d, span, weights)
    found = float(d.mean()), guard.spread(float(((d - d.mean()) ** 2).sum())), len(d)
    if not of_two_values(scores, span):
        return OverRows(*found, own=guard)
    first_only, second_only = int((d > span / 2).sum()), int((d < -span / 2).sum())
    return RightAndWrong(*found, own=guard, only_first=first_only, only_second=second_only)


def interval_over_rows(scores: Floats, span: float, weights: Floats) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over rows or groups: of two values Clopper and Pearson's,
    else Student's t.

    The latter is wide enough for rows, off by the range, of which there may be so many unseen; none
    where equal scores have no range.
    """
    n, mean = len(scores), float(scores.mean())
    if of_two_values([scores], span) and np.ptp(scores) > 0:
        low, high = clopper_pearson(int((scores > mean).sum()), n, 0.05)
        return float(scores.min()) + span * low, float(scores.min()) + span * high
    guard = Guard.of(scores, span, weights)
    error = max(math.sqrt(guard.spread(float(((scores - mean) ** 2).sum())) / n), span / n)
    half = max(float(stats.t.ppf(0.975, guard.free)) * error, span * (1 - 0.025 ** (1 / n)))
    return (mean - half, mean + half) if half else None
