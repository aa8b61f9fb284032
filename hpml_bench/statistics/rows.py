"""Noise of a finite test set, from the scores of its rows: alone, and crossed with that of seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpml_bench.statistics.evidence import Evidence, OverSeeds, OverSeedsAndRows, ends, widest
from hpml_bench.statistics.intervals import Interval


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947) from the rows that only one of two methods gets right."""
    # Twice the binomial tail of the smaller count with p = 1/2, at most 1.
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0


def group_scores(scores: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Return a score per group, [G], whose mean over the groups is exactly the mean of the rows' scores.

    Rows of a group depend on each other, so the groups are the units that another sample would replace. The mean over
    rows is a ratio of two means over groups, of their scores' totals and of their sizes; linearised at them a group's
    score is s + G size_g / m (s_g - s), with m rows in G groups, mean s_g in group g and mean s over all rows. Its
    variance over groups is that of the ratio (Cochran 1977, Sampling Techniques, ch. 9A). Groups of one row each keep
    the rows' scores.

    Args:
        scores: [m rows].
        groups: [m rows], equal for rows of one group; scores are in the order of their values.

    """
    values = np.asarray(scores, dtype=float)
    _, places, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    mean = values.mean()
    surplus = np.bincount(places, weights=values) - sizes * mean
    return np.asarray(mean + len(sizes) / values.size * surplus)


def crossed_evidence(values: ArrayLike, span: float = 1.0, step: float = 1.0) -> tuple[Evidence, ...]:
    """Return the evidence of a seeds x rows table for other seeds and rows, and that for other seeds alone.

    A claim needs both: Satterthwaite's approximation would now and then be surer of other rows than of these. Evidence
    without spread is left out: for real numbers the second where all seeds agree, without a range both where rows do.

    Args:
        values: [n seeds, m rows] with n, m >= 2: scores of a method, or differences of two methods' scores.
        span: range of a row's score, 1 for right and wrong; 0 where it has none.
        step: least amount by which a row's score changes, 1 for right and wrong; 0 for real numbers.

    """
    table = np.asarray(values, dtype=float)
    over_seeds = OverSeeds.of(table.mean(axis=1), grid=step / table.shape[1] or None)
    both: tuple[Evidence | None, ...] = (OverSeedsAndRows.of(table, span), over_seeds)
    return tuple(one for one in both if one is not None and one.error(one.n) > 0)


def rows_evidence(values: ArrayLike) -> OverSeeds | None:
    """Return the evidence of one seed's scores [m rows], or of two methods' differences, for other rows alone."""
    # Student's t over the rows with m - 1 degrees of freedom. Where a score is the linearised value of a metric that is
    # no mean of rows, the error is the infinitesimal jackknife's (Efron 1982, The Jackknife, the Bootstrap and Other
    # Resampling Plans, ch. 6). None where the rows show no spread.
    return OverSeeds.of(values)


def rows_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean for other rows, by `rows_evidence`."""
    evidence = rows_evidence(values)
    return ends(evidence) if evidence else None


def crossed_interval(values: ArrayLike, span: float = 1.0, step: float = 1.0) -> Interval:
    """Return the mean of a seeds x rows table with a 95 % interval for other seeds *and* other test rows."""
    # The wider of the intervals of `crossed_evidence`, none where that is empty; the spread is that of the seeds'
    # means.
    table = np.asarray(values, dtype=float)
    low, high = widest(crossed_evidence(table, span, step))
    return Interval(len(table), float(table.mean()), float(table.mean(axis=1).std(ddof=1)), low, high)
