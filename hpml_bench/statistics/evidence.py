"""Evidence on a mean difference: its standard error and degrees of freedom, at any number of
seeds or rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from hpml_bench.statistics.intervals import ALPHA, finite, t_quantile

POWER = 0.8  # power at which a difference counts as detectable
MOST_SEEDS = 10_000
LOSSES = (
    1.0,
    1 / 2,
    1 / 4,
    1 / 8,
)  # shares of the range that rare rows may lose, in the guard against them
LEAST_SEEDS = 3  # fewest seeds for a verdict: two differences show next to nothing of their spread


class Evidence(ABC):
    """A mean over seeds, or rows, whose error is known as a function of their number; tested by
    Student's t.

    On other rows, or groups, it has guards against rare ones that may be missing among these:
    `p_rare`, `error_at`.
    """

    n: int
    mean: float
    most: ClassVar[int] = MOST_SEEDS  # largest number that is planned
    # degrees of freedom of the variance over seeds that methods share (see `share_variances`)
    prior: float = 0.0
    span: float = 0.0  # range by which a row's or group's score can change; 0 where it has none
    opposed: tuple[int, ...] = (0,)
    """Rows (their means over seeds) on the other side of 0 than the mean by more than half of each
    of `LOSSES`.

    Rows of two ends have but the first: where as many are opposed, the largest loss is the least
    sure.
    """

    @abstractmethod
    def error(self, n: int) -> float:
        """Return the standard error of the mean over n seeds, or rows."""

    @abstractmethod
    def freedom(self, n: int) -> float:
        """Return the degrees of freedom of the error's estimate."""

    def rows(self, n: int) -> int:
        """Return the number of rows of n seeds, or rows."""
        return n

    def error_at(self, difference: float, n: int) -> float:
        """Return the standard error over n seeds if this is the true difference, for a test of
        it.
        """
        # δ may be the difference of a share δ / r of the rows, each by the range r. A row's
        # variance is then δ (r - δ), whether or not such a row is among these: the score test's
        # error (Rao 1948).
        size = abs(difference)
        return max(self.error(n), math.sqrt(size * max(0.0, self.span - size) / self.rows(n)))

    def p_rare(self) -> float:
        """Return the two-sided p of a true mean of 0, were rare rows of the other sign too few
        here.
        """
        return p_of_rare_rows(self.mean, self.rows(self.n), self.span, self.opposed)

    def least_rare(self, alpha: float, n: int | None = None) -> float:
        """Return the least mean for which `p_rare` is below a level, at n seeds or rows, or at
        its own.
        """
        # For a loss l: l (q - opposed / m) / (1 - q), q being the share at which the binomial
        # chance is alpha / 2
        m, least = self.rows(n or self.n), 0.0
        for share_of_range, count in zip(LOSSES, self.opposed, strict=False):
            opposed = count * m // self.rows(self.n)
            if self.span and opposed < m:
                share = float(scipy.special.bdtri(opposed, m, alpha / 2))
                least = max(least, share_of_range * self.span * (share - opposed / m) / (1 - share))
        return least

    def p(self) -> float:
        """Return the two-sided p of no difference: Student's t with the evidence's degrees of
        freedom, or `p_rare`.
        """
        n = self.n
        return max(
            float(2 * scipy.special.stdtr(self.freedom(n), -abs(self.mean) / self.error(n))),
            self.p_rare(),
        )

    def ends(self, alpha: float) -> tuple[float, float]:
        """Return the ends of the interval of the mean at confidence 1 - alpha."""
        half = t_quantile(1 - alpha / 2, self.freedom(self.n)) * self.error(self.n)
        return self.mean - half, self.mean + half

    def accepted(self, alpha: float) -> tuple[float, float]:
        """Return the ends of the means that a two-sided test at `alpha` doesn't reject; without
        0 where `p` is less.
        """
        half = max(
            t_quantile(1 - alpha / 2, self.freedom(self.n)) * self.error(self.n),
            self.least_rare(alpha, self.n),
        )
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class OverSeeds(Evidence):
    """Differences within seeds: the paired t test's evidence, for other seeds on the same rows."""

    n: int
    mean: float
    sd: float
    prior: float = 0.0

    @classmethod
    def of(cls, differences: ArrayLike, grid: float | None = None) -> OverSeeds | None:
        """Return the evidence of one difference per seed; None of one alone, or of equal ones on
        no known `grid`.
        """
        # Values on a grid (accuracies on 1 / rows, memory on pages) may agree by luck: the variance
        # of rounding to it, g²/12 (Sheppard 1898), is always added, so that equal differences are
        # no surer than their grid.
        data = finite(differences)
        equal = (
            np.ptp(data) <= 1e-9 * np.abs(data).max()
        )  # equal but for rounding of floats is equal
        if data.size < 2 or (equal and grid is None):
            return None
        sd = math.sqrt((0.0 if equal else data.var(ddof=1)) + (grid or 0.0) ** 2 / 12)
        return cls(data.size, float(data.mean()), sd)

    def error(self, n: int) -> float:
        return self.sd / math.sqrt(n)

    def freedom(self, n: int) -> float:
        return n - 1 + self.prior

    @property
    def variance(self) -> float:
        return self.sd**2

    def moderated(self, variance: float, prior: float) -> OverSeeds:
        return replace(self, sd=math.sqrt(variance), prior=prior)


@dataclass(frozen=True)
class OverSeedsAndRows(Evidence):
    """A seeds x rows table of differences in the two-way random-effects analysis of variance.

    The mean of n x m values has variance (MS_seeds + MS_rows - MS_interaction) / (n m) (Owen 2007),
    with degrees of freedom after Satterthwaite (1946). At another number of seeds the squares
    follow from their expectations: E MS_seeds = σ²_i + m σ²_s, E MS_rows = σ²_i + n σ²_r, E
    MS_interaction = σ²_i.
    """

    n: int
    m: int
    mean: float
    squares: tuple[float, float, float]  # mean squares of seeds, rows and interaction
    span: float = 1.0
    opposed: tuple[int, ...] = (0,)
    prior: float = 0.0
    effective: float | None = (
        None  # rows, or groups, of equal weight that vary as much; None: all weigh the same
    )

    @classmethod
    def of(
        cls, values: ArrayLike, span: float = 1.0, effective: float | None = None
    ) -> OverSeedsAndRows:
        """Return the evidence of [n seeds, m rows], n, m >= 2: scores of a method, or
        differences of two methods'.
        """
        table = np.asarray(values, dtype=float)
        n, m = table.shape
        mean = float(table.mean())
        by_seed, by_row = table.mean(axis=1), table.mean(axis=0)
        rest = table - by_seed[:, None] - by_row[None, :] + mean
        free = (
            m * freedom_of(m, effective) / (1 + freedom_of(m, effective))
        )  # m - 1 where all weigh the same
        of_seeds, of_rows = (
            m * float(by_seed.var(ddof=1)),
            n * float(np.square(by_row - mean).sum()) / free,
        )
        squares = of_seeds, of_rows, float(np.square(rest).sum()) / ((n - 1) * free)
        return cls(n, m, mean, squares, span, opposed_to(mean, by_row, span), effective=effective)

    def rows(self, n: int) -> int:  # noqa: ARG002 - as many at any number of seeds
        return self.m

    def error(self, n: int) -> float:
        """Return the standard error over n seeds and m rows; no less than that of one row that
        changes by its range.
        """
        # An interaction above a main effect's square is chance: the variance is at least that of
        # rows or seeds alone. Where no row or only one ever differs the table doesn't show how rare
        # that is: a row is the least unit.
        seeds, rows, rest = (square / (n * self.m) for square in self._squares(n))
        return math.sqrt(max(seeds + rows - rest, seeds, rows, (self.span / self.m) ** 2))

    def freedom(self, n: int) -> float:
        """Return Satterthwaite's degrees of freedom, at least those of the seeds' mean square."""
        parts = [square / (n * self.m) for square in self._squares(n)]
        of_seeds = n - 1 + self.prior
        of_rows = freedom_of(self.m, self.effective)
        each = (of_seeds, of_rows, (n - 1) * of_rows)
        spread = sum(part**2 / freedom for part, freedom in zip(parts, each, strict=True))
        return max(of_seeds, self.error(n) ** 4 / spread) if spread else of_seeds

    @property
    def variance(self) -> float:
        return self.squares[0] / self.m

    def moderated(self, variance: float, prior: float) -> OverSeedsAndRows:
        return replace(self, squares=(self.m * variance, *self.squares[1:]), prior=prior)

    def _squares(self, n: int) -> tuple[float, float, float]:
        seeds, rows, rest = self.squares
        return seeds, rows + (n - self.n) * max(0.0, rows - rest) / self.n, rest


PRIOR = 2.4
"""Degrees of freedom of the variance that five or more methods of one noise share
(benchmarks/simulation/power.py).
"""
LEAST_FACTOR = (
    2 / 3
)  # least factor of Shaffer's procedure, as a share of the pairs, where variances are shared


class Lent(NamedTuple):
    """Variance over seeds of a pair's differences in earlier suites, without the part that test
    rows have in it.
    """

    variance: float
    freedom: float  # degrees of freedom that it counts for


def share_variances(
    pairs: Mapping[tuple[str, str], tuple[Evidence, ...]],
    methods: int,
    lent: Mapping[tuple[str, str], Lent] | None = None,
) -> dict[tuple[str, str], tuple[Evidence, ...]]:
    """Return the evidence of a metric's pairs with each variance over seeds shrunk to that of its
    methods' pairs.

    Of pairs that earlier suites lend more degrees of freedom, `lent`, it is shrunk to theirs
    instead.
    """
    # Smyth's moderated t (2004): of the own variance s² with d = n - 1 degrees of freedom, and the
    # mean variance s0² of all pairs that have one of the pair's methods, (d s² + d0 s0²) / (d + d0)
    # with d + d0 degrees of freedom. d0 is `PRIOR`, less under five methods, none for two, and less
    # by the ratio of the mean variances of either's pairs.
    moderated, prior = dict(pairs), PRIOR * min(1.0, max(0, methods - 2) / 3)
    for kind in (OverSeeds, OverSeedsAndRows) if prior or lent else ():
        of = {
            pair: one
            for pair, evidence in pairs.items()
            for one in evidence
            if isinstance(one, kind)
        }
        names = {name for pair in of for name in pair}
        by_method = {
            name: [one.variance for pair, one in of.items() if name in pair] for name in names
        }
        for (a, b), one in of.items():
            near, (low, high) = (
                [*by_method[a], *by_method[b]],
                sorted(map(fmean, (by_method[a], by_method[b]))),
            )
            shared = (sum(near) - one.variance) / (len(near) - 1)  # the pair's own is in both
            own, weight = one.n - 1, prior * (low / high if high else 0.0)
            earlier = lent_here(pairs[a, b], (lent or {}).get((a, b)))
            if earlier is not None and earlier.freedom > weight:
                shared, weight = earlier
            shrunk = one.moderated((own * one.variance + weight * shared) / (own + weight), weight)
            moderated[a, b] = tuple(shrunk if other is one else other for other in moderated[a, b])
    return moderated


def lent_here(evidence: Sequence[Evidence], lent: Lent | None) -> Lent | None:
    """Return what earlier suites lend to a pair with the part that its own rows add; None where
    there are none.
    """
    rows = next((one for one in evidence if isinstance(one, OverSeedsAndRows)), None)
    if lent is None or rows is None:
        return None
    # E MS_seeds / m = σ²_s + σ²_i / m: σ²_s is lent, and the rows' part is known well, with (n -
    # 1)(m - 1) degrees
    return Lent(lent.variance + rows.squares[2] / rows.m, lent.freedom)


def effective_number(weights: ArrayLike) -> float | None:
    """Return the number of rows, or groups, of equal weight that vary as much as these; None where
    all weigh the same.

    The variance of a mean with weights w is estimated by a sum of squares with weights w², whose
    degrees of freedom are about (Σ w²)² / Σ w⁴ - 1 (Satterthwaite 1946, for equal variances): where
    few are heavy, about their number.
    """
    data = np.asarray(weights, dtype=float)
    squares = np.square(data / data.max())
    return float(squares.sum() ** 2 / np.square(squares).sum()) if np.ptp(squares) > 1e-9 else None


def freedom_of(n: int, effective: float | None) -> float:
    """Return the degrees of freedom of the variance over n rows, or groups, of effectively so
    many; at least 1.
    """
    return n - 1.0 if effective is None else max(1.0, effective - 1)


def opposed_to(mean: float, rows: NDArray[Any], span: float) -> tuple[int, ...]:
    """Return how many values of rows lie on the other side of 0 than their mean, by over half of
    each of `LOSSES`.
    """
    if not span:
        return (0,)
    halves = [loss * span / 2 for loss in LOSSES]
    against, ahead = (
        tuple(int((signed > half).sum()) for half in halves) for signed in (-rows, rows)
    )
    if abs(mean) < 1e-12 * span:  # its sign is rounding's
        return tuple(map(max, against, ahead))
    return against if mean > 0 else ahead


def p_of_rare_rows(mean: float, m: int, span: float, opposed: Sequence[int]) -> float:
    """Return the largest over `LOSSES` of twice the binomial chance of at most so many opposed rows
    of m.

    The true mean is 0 there: rare rows lose this share of the range.
    """
    # Where all rows but a share s gain δ and the rest lose l, the mean is 0 if s = (δ / l) / (1 + δ
    # / l). With the opposed rows among these m: P(K <= opposed) with s = (opposed / m + |δ| / l) /
    # (1 + |δ| / l). Were l the range r alone, rows that lose a little less than r / 2 would go
    # uncounted, and the test claim too much of them.
    if not span:
        return 0.0
    return max(
        _p_of_losses(abs(mean) / (loss * span), m, count)
        for loss, count in zip(LOSSES, opposed, strict=False)
    )


def _p_of_losses(gain: float, m: int, opposed: int) -> float:
    """Return twice the chance of at most `opposed` of m rows, the mean being a gain of so many
    losses of a row.
    """
    if opposed >= m:
        return 0.0
    return min(1.0, 2 * float(scipy.special.bdtr(opposed, m, (opposed / m + gain) / (1 + gain))))


def p_equivalent(evidence: Evidence, margin: float) -> float:
    """Return the larger p of the two one-sided t tests of a difference of `margin` or more
    (Schuirmann 1987).
    """
    t = -(margin - abs(evidence.mean)) / evidence.error_at(margin, evidence.n)
    return float(scipy.special.stdtr(evidence.freedom(evidence.n), t))


def acceptance(evidence: Sequence[Evidence], alpha: float) -> tuple[float, float]:
    """Return the ends of the means that not all two-sided tests at `alpha` reject: without 0
    just where all do.
    """
    lows, highs = zip(*(one.accepted(alpha) for one in evidence), strict=True)
    return min(lows), max(highs)


def widest(evidence: Sequence[Evidence]) -> tuple[float | None, float | None]:
    """Return the ends of the widest of the 95 % intervals; none without evidence."""
    if not evidence:
        return None, None
    lows, highs = zip(*(one.ends(ALPHA) for one in evidence), strict=True)
    return min(lows), max(highs)


def detectable(evidence: Evidence, n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the least true difference that a two-sided test over n seeds finds with this power."""
    # F(t(1 - α/2, n - 1); n - 1, δ / error) = 1 - power, F being the noncentral t distribution,
    # without significant differences of the wrong sign; no less than `least_rare` plus the normal
    # quantile of the power times the error.
    by_t = _noncentrality(evidence.freedom(n), 1 - alpha / 2, power) * evidence.error(n)
    rare = evidence.least_rare(alpha, n)
    return max(by_t, rare + float(scipy.special.ndtri(power)) * evidence.error(n)) if rare else by_t


def _noncentrality(freedom: float, quantile: float, power: float) -> float:
    return float(scipy.special.nctdtrinc(freedom, 1 - power, t_quantile(quantile, freedom)))


def seeds_to_decide(
    evidence: Sequence[Evidence], margin: float | None, alpha: float, alpha_equal: float
) -> int | None:
    """Return the least number of seeds that would decide if the mean difference is the true one;
    None above `most`.
    """
    # To decide is to find the difference, or to show that it lies within the margin, with a chance
    # of 80 % each.
    to_find = seeds_to_find(evidence, abs(evidence[0].mean), alpha)
    if margin is None or abs(evidence[0].mean) >= margin:
        return to_find
    to_show = seeds_to_show(evidence, margin, alpha_equal, mean=evidence[0].mean)
    return min((n for n in (to_find, to_show) if n is not None), default=None)


def seeds_to_find(
    evidence: Sequence[Evidence], size: float, alpha: float, power: float = POWER
) -> int | None:
    """Return the least number of seeds at which a difference of `size` is detectable by every
    evidence.
    """
    return _least(
        lambda n: max(detectable(one, n, alpha, power) for one in evidence) <= size, evidence
    )


def seeds_to_show(
    evidence: Sequence[Evidence],
    margin: float,
    alpha: float,
    power: float = POWER,
    mean: float = 0.0,
) -> int | None:
    """Return the least number of seeds that show equivalence within the margin if `mean` is the
    true difference.
    """

    def provable(
        one: Evidence, n: int
    ) -> float:  # distance from it at which each test has (1 + power) / 2
        return _noncentrality(one.freedom(n), 1 - alpha, (1 + power) / 2) * one.error_at(margin, n)

    return _least(
        lambda n: max(provable(one, n) for one in evidence) <= margin - abs(mean), evidence
    )


def _least(enough: Callable[[int], bool], evidence: Sequence[Evidence]) -> int | None:
    """Return by bisection the least number of seeds or rows that is enough, as all larger ones
    are; None above most.
    """
    # of rare rows the chance goes in steps, so that the numbers between which is chosen are part of
    # the result
    low, high = LEAST_SEEDS - 1, min(one.most for one in evidence)
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def cautious(evidence: Evidence) -> Evidence:
    """Return the same with its variance over seeds at a bound, for plans; where rows alone vary,
    the same.
    """
    if not isinstance(evidence, OverSeeds | OverSeedsAndRows):
        return evidence
    factor = sd_upper_bound(1.0, evidence.n + evidence.prior)
    return evidence.moderated(evidence.variance * factor**2, evidence.prior)


def sd_upper_bound(sd: float, n: float, confidence: float = 0.8) -> float:
    """Return the one-sided upper confidence bound of a standard deviation estimated from n
    normal values.
    """
    # a plan by the spread of a pilot itself suffices half the time, one by this bound in 80 % of
    # pilots (Browne 1995)
    return sd * math.sqrt(
        (n - 1) / float(scipy.special.chdtri(n - 1, confidence))
    )  # of the upper tail
