"""Scores of rows: systems compared for other rows, as pairs or as shares, and for other seeds
and rows.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from hpml_bench.statistics.evidence import (
    Evidence,
    Lent,
    OverSeeds,
    OverSeedsAndRows,
    freedom_of,
    opposed_to,
    widest,
)
from hpml_bench.statistics.intervals import ALPHA, Interval, clopper_pearson, t_quantile
from hpml_bench.statistics.verdicts import Comparison, carried_by_few, compare_pairs, tested_by

MOST_ROWS = 10_000_000
ROUNDING = 1e-9  # largest difference, as a share of the range, that is taken for rounding
LEAST_ROWS = 3  # fewest rows, or groups of rows, for a verdict


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947) from the rows that only one of two
    methods gets right.
    """
    from_a, differ = min(only_a, only_b), only_a + only_b
    return min(1.0, 2 * float(scipy.special.bdtr(from_a, differ, 0.5))) if differ else 1.0


@dataclass(frozen=True)
class OverRows(Evidence):
    """Differences of rows or groups, [n]: Student's t with guards against rare rows."""

    n: int
    mean: float
    sd: float
    span: float = 1.0
    opposed: tuple[int, ...] = (0,)
    share: float = 1.0  # rows, or groups, of equal weight that vary as much, over their number
    most: ClassVar[int] = MOST_ROWS

    @classmethod
    def of(
        cls, differences: ArrayLike, span: float = 1.0, effective: float | None = None
    ) -> "OverRows | None":
        """Return the evidence of differences of n >= 2 rows or groups; None where all are equal
        and have no range.
        """
        data = np.asarray(differences, dtype=float)
        mean = float(data.mean())
        found = cls(
            data.size,
            mean,
            _sd(data, effective),
            span,
            opposed_to(mean, data, span),
            (effective or data.size) / data.size,
        )
        return found if found.error(found.n) > 0 else None

    def error(self, n: int) -> float:
        return max(self.sd / math.sqrt(n), self.span / n)

    def freedom(self, n: int) -> float:
        return freedom_of(n, None if self.share == 1 else self.share * n)

    def ends(self, alpha: float) -> tuple[float, float]:
        return self.accepted(alpha)


@dataclass(frozen=True)
class RightAndWrong(OverRows):
    """Rows, or groups, whose scores are one of two ends such as right and wrong: McNemar's exact
    test (1947).

    Its interval multiplies that of the difference among the discordant rows, 2 θ - 1 with θ after
    Clopper and Pearson (1934), by that of their share, and by the range.
    """

    only_a: int = 0  # rows that only the first gets right
    only_b: int = 0

    @classmethod
    def of_rows(cls, a: NDArray[Any], b: NDArray[Any], span: float = 1.0) -> "RightAndWrong":
        """Return the evidence of two systems' rows, [n] of two values that lie `span` apart."""
        differences = a.astype(float) - b
        only_a, only_b = int((differences > span / 2).sum()), int((differences < -span / 2).sum())
        return cls(
            differences.size,
            float(differences.mean()),
            float(differences.std(ddof=1)),
            span,
            (min(only_a, only_b),),
            only_a=only_a,
            only_b=only_b,
        )

    def p(self) -> float:
        return mcnemar(self.only_a, self.only_b)

    def accepted(self, alpha: float) -> tuple[float, float]:
        differ = self.only_a + self.only_b
        share = clopper_pearson(differ, self.n, alpha)
        of_these = clopper_pearson(self.only_a, differ, alpha) if differ else (0.0, 1.0)
        low, high = (2 * theta - 1 for theta in of_these)
        return self.span * low * share[low < 0], self.span * high * share[high > 0]


@dataclass(frozen=True)
class TwoShares(Evidence):
    """Two means of rows within a known range, without the rows: unpaired shares.

    p is the larger of that of Agresti and Caffo's interval (2000), which adds a success and a
    failure to each, and of Fisher's exact test (1935), as the first claims too much of few rows in
    the tails. Errors must be independent: of systems that err apart, such as always-yes and
    always-no, it claims too much.
    """

    n: int  # rows of each
    mean: float
    a: float  # mean of the first as a share of the range, of 0 to 1
    b: float
    span: float = 1.0  # the range
    most: ClassVar[int] = MOST_ROWS

    def error(self, n: int) -> float:
        adjusted = [(share * n + 1) / (n + 2) for share in (self.a, self.b)]
        return self.span * math.sqrt(sum(share * (1 - share) for share in adjusted) / (n + 2))

    def least_rare(self, alpha: float, n: int | None = None) -> float:  # noqa: ARG002 - it has no single rows
        return 0.0

    def freedom(self, n: int) -> float:  # noqa: ARG002 - so many that Student's t is normal
        return 1e6

    @property
    def _middle(self) -> float:
        return self.span * (self.a - self.b) * self.n / (self.n + 2)

    def p(self) -> float:
        return max(
            float(2 * scipy.special.ndtr(-abs(self._middle) / self.error(self.n))), self._exact
        )

    @cached_property
    def _exact(self) -> float:
        """Fisher's p of the whole numbers of successes that lie between the shares; twice the
        smaller tail.
        """
        low, high = sorted((self.a * self.n, self.b * self.n))
        return fisher(math.floor(high + 1e-9), math.ceil(low - 1e-9), self.n)

    def ends(self, alpha: float) -> tuple[float, float]:
        """Return the ends of the interval of the difference: without 0 just where the test
        rejects.
        """
        half = float(scipy.special.ndtri(1 - alpha / 2)) * self.error(self.n)
        low, high = self._middle - half, self._middle + half
        return (min(low, 0.0), max(high, 0.0)) if self._exact >= alpha else (low, high)

    def accepted(self, alpha: float) -> tuple[float, float]:
        return self.ends(alpha)


def _sd(data: NDArray[Any], effective: float | None) -> float:
    """Return the standard deviation of rows, or groups, of effectively so many."""
    free = freedom_of(data.size, effective)
    return float(
        data.std(ddof=1) if effective is None else data.std() * math.sqrt((1 + free) / free)
    )


def mean_of_rows(
    scores: ArrayLike, span: float, effective: float | None = None
) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean of rows, or groups, [n >= 2], for others; None where equal
    ones lack a range.

    Clopper and Pearson's where scores are one of two ends, `span` apart, else Student's t with
    guards.
    """
    data = np.asarray(scores, dtype=float)
    if _has_two_ends([data], span) and float(np.ptp(data)) > span / 2:
        upper = int((data > data.mean()).sum())
        low, high = (float(data.min()) + span * end for end in clopper_pearson(upper, data.size))
        return low, high
    mean = float(data.mean())
    found = OverRows(
        data.size, mean, _sd(data, effective), span, share=(effective or data.size) / data.size
    )
    unseen = (
        span * clopper_pearson(0, data.size)[1]
    )  # a share of rows that may be missing here, by the range
    half = max(t_quantile(1 - ALPHA / 2, found.freedom(found.n)) * found.error(found.n), unseen)
    return (mean - half, mean + half) if half else None


def fisher(a: int, b: int, n: int) -> float:
    """Return twice the smaller tail of Fisher's exact test of a and b successes in n trials
    each, at most 1.
    """
    more, total = max(a, b), a + b
    far = math.ceil(
        20 * math.sqrt(n)
    )  # the chance of counts further off is below e^-800 (Hoeffding 1963), 0 in floats
    of_first = np.arange(
        max(0, total - n, total // 2 - far), min(n, total, total // 2 + far + 1) + 1
    )
    parts = np.stack([of_first, total - of_first])
    logs = -scipy.special.betaln(parts + 1, n - parts + 1).sum(axis=0)  # but for a constant
    chances = np.exp(logs - logs.max())
    return min(1.0, 2 * float(chances[of_first >= more].sum() / chances.sum()))


def compare_rows(
    scores: Mapping[str, NDArray[Any]],
    margin: float | None = None,
    span: float = 1.0,
    *,
    bounded: bool = True,
    effective: float | None = None,
) -> tuple[Comparison, ...]:
    """Compare every pair of systems by the mean of their rows' scores, for other rows; `decide`
    gives verdicts.

    McNemar's test where all scores are one of two ends, `span` apart, else Student's t with guards:
    of few rows with two ends that claims too much, as all of 4 fall to one side in 1 of 8 pages of
    equal systems, and its p is 0.03. `scores` are of rows, or of groups as `group_scores` gives
    them, in one order for all systems, and `span` is the range of a score, known (`bounded`) or as
    seen: then skewed differences are marked; `effective` is the number of rows, or groups, of equal
    weight that vary as much (`effective_number`).
    """
    exact = _has_two_ends(scores.values(), span)

    def evidence(a: str, b: str) -> Evidence | None:
        if exact:
            return RightAndWrong.of_rows(scores[a], scores[b], span)
        return OverRows.of(scores[a].astype(float) - scores[b], span, effective)

    n = len(next(iter(scores.values()), ()))
    pairs = _compare({name: float(of.mean()) for name, of in scores.items()}, n, margin, evidence)
    if bounded:
        return pairs
    return tuple(
        replace(c, skewed=carried_by_few(scores[c.a].astype(float) - scores[c.b])) for c in pairs
    )


def _has_two_ends(scores: Iterable[NDArray[Any]], span: float) -> bool:
    """Return whether all scores are one of two values that lie `span` apart, but for rounding."""
    every = np.concatenate([np.asarray(of, dtype=float) for of in scores] or [np.zeros(0)])
    if not every.size or not span:
        return False
    above = (every - every.min()) / span
    return bool((np.abs(above - np.round(above)) < ROUNDING).all() and above.max() < 1 + ROUNDING)


def compare_shares(
    means: Mapping[str, float],
    n: int,
    margin: float | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> tuple[Comparison, ...]:
    """Compare every pair of systems by means of n rows each, whose scores lie in `bounds`;
    without these by no test.
    """

    def evidence(a: str, b: str) -> TwoShares:
        low, high = bounds or (0.0, 1.0)
        of_a, of_b = ((means[name] - low) / (high - low) for name in (a, b))
        return TwoShares(n, means[a] - means[b], of_a, of_b, high - low)

    return _compare(means, n, margin, evidence if bounds else None)


def _compare(
    means: Mapping[str, float],
    n: int,
    margin: float | None,
    evidence: Callable[[str, str], Evidence | None] | None,
) -> tuple[Comparison, ...]:
    """Return every pair of systems by their means of n rows and a pair's evidence, None where
    all rows are equal.
    """
    found = []
    for a, b in itertools.combinations(means, 2):
        plain = Comparison(
            a, b, Interval(n, means[a] - means[b], None, None, None), None, None, margin
        )
        if evidence is not None and n >= LEAST_ROWS:
            one = evidence(a, b)
            plain = tested_by(replace(plain, p=1.0), (one,) if one else ())
        found.append(plain)
    return tuple(found)


# Over seeds and rows


Scores = Mapping[str, Mapping[int, NDArray[Any]]]
"""method -> seed -> scores of the test rows, [rows], in the same order for all; their mean is
the metric.
"""


def group_scores(scores: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Return a score per group, [G], whose mean over the groups is exactly the mean of the rows'
    scores.

    The mean over m rows is a ratio of means over G groups, of scores' totals and of sizes;
    linearised a group's score is s + G size_g / m (s_g - s), with means s_g in the group and s over
    all rows (Cochran 1977, ch. 9A). `groups` [m rows] are equal for rows of one group; the scores
    are in the order of their values.
    """
    values = np.asarray(scores, dtype=float)
    _, places, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    mean = values.mean()
    surplus = np.bincount(places, weights=values) - sizes * mean
    return np.asarray(mean + len(sizes) / values.size * surplus)


def crossed_evidence(
    values: ArrayLike, span: float = 1.0, step: float = 1.0, effective: float | None = None
) -> tuple[Evidence, ...]:
    """Return the evidence of a seeds x rows table for other seeds and rows, and that for other
    seeds alone.

    A claim needs both: Satterthwaite's approximation would now and then be surer of other rows than
    of these. Evidence without spread is left out. `values` [n seeds, m rows], n, m >= 2, are scores
    of a method, or differences of two; `span` is the range of a row's score, 0 without one, `step`
    the least change of it, 0 for real numbers, `effective` as in `compare_rows`.
    """
    table = np.asarray(values, dtype=float)
    over_seeds = OverSeeds.of(table.mean(axis=1), grid=step / table.shape[1] or None)
    both: tuple[Evidence | None, ...] = (OverSeedsAndRows.of(table, span, effective), over_seeds)
    return tuple(one for one in both if one is not None and one.error(one.n) > 0)


def crossed_interval(
    values: ArrayLike, span: float = 1.0, step: float = 1.0, effective: float | None = None
) -> Interval:
    """Return the mean of a seeds x rows table with a 95 % interval for other seeds *and* other
    test rows.
    """
    table = np.asarray(values, dtype=float)
    low, high = widest(crossed_evidence(table, span, step, effective))
    return Interval(
        len(table), float(table.mean()), float(table.mean(axis=1).std(ddof=1)), low, high
    )


def compare_scores(
    scores: Scores,
    margin: float | None,
    span: float = 1.0,
    step: float = 1.0,
    *,
    bounded: bool = True,
    effective: float | None = None,
    lent: Mapping[tuple[str, str], Lent] | None = None,
) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the mean of their rows' scores, for other seeds and other
    rows.

    `span`, `step` and `effective` as in `crossed_evidence`, `lent` as in `compare_pairs`; without a
    range (`bounded`) differences that few rows carry are marked.
    """

    def table(a: str, b: str, seeds: Sequence[int]) -> list[NDArray[Any]]:
        return [scores[a][seed].astype(float) - scores[b][seed] for seed in seeds]

    def evidence(a: str, b: str, seeds: Sequence[int]) -> tuple[Evidence, ...] | None:
        of = table(a, b, seeds)
        # one row shows nothing of others
        return crossed_evidence(of, span, step, effective) if of[0].size > 1 else None

    def marked(c: Comparison) -> bool:
        return c.skewed or carried_by_few(
            np.mean(table(c.a, c.b, [*scores[c.a].keys() & scores[c.b].keys()]), axis=0)
        )

    means = {
        method: {seed: float(rows.mean()) for seed, rows in of.items()}
        for method, of in scores.items()
    }
    pairs = compare_pairs(means, margin=margin, evidence=evidence, lent=lent)
    return pairs if span and bounded else tuple(replace(c, skewed=marked(c)) for c in pairs)
