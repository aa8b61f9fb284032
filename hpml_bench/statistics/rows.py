"""What per-example predictions say: the noise of a finite test set, alone and crossed with that of seeds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from hpml_bench.statistics.intervals import ALPHA, Interval, t_quantile


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947) from the rows that only one of two methods gets right.

    Twice the binomial tail of the smaller count with p = 1/2, at most 1.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0


def crossed_interval(values: ArrayLike) -> Interval:
    """Return the mean of a seeds x rows table with a 95 % interval for other seeds *and* other test rows.

    The two-way random-effects analysis of variance: with the mean squares of seeds, rows and their interaction,
    the mean of n x m values has variance (MS_seeds + MS_rows - MS_interaction) / (n m). That is what a bootstrap
    over seeds and rows estimates, without its counting the interaction three times (Owen 2007) or its too narrow
    percentiles at few seeds. Degrees of freedom after Satterthwaite (1946). Never narrower than the interval over
    seeds alone, which his approximation would now and then allow.

    Args:
        values: [n seeds, m rows] with n, m >= 2: 1 where a row was right, or the difference of two methods.

    Returns:
        n (seeds), mean, the standard deviation of the seeds' means, and the interval.

    """
    table = np.asarray(values, dtype=float)
    n, m = table.shape
    mean = float(table.mean())
    by_seed, by_row = table.mean(axis=1), table.mean(axis=0)
    square_seeds = m * float(by_seed.var(ddof=1))
    square_rows = n * float(by_row.var(ddof=1))
    rest = table - by_seed[:, None] - by_row[None, :] + mean
    square_rest = float(np.square(rest).sum()) / ((n - 1) * (m - 1))
    squares = np.array([square_seeds, square_rows, square_rest]) / (n * m)
    freedom = np.array([n - 1, m - 1, (n - 1) * (m - 1)])
    # an interaction above a main effect's square is chance: the variance is no less than that of rows or seeds alone
    variance = float(max(squares[0] + squares[1] - squares[2], squares[0], squares[1]))
    sd = float(by_seed.std(ddof=1))
    if variance == 0:
        return Interval(n, mean, sd, mean, mean)
    half = t_quantile(1 - ALPHA / 2, variance**2 / float((squares**2 / freedom).sum())) * math.sqrt(variance)
    half = max(half, t_quantile(1 - ALPHA / 2, n - 1) * sd / math.sqrt(n))  # never surer than on this test set
    return Interval(n, mean, sd, mean - half, mean + half)
