"""What per-example predictions say: the noise of a finite test set, alone and crossed with that of seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hpml_bench.statistics.evidence import OverSeeds, OverSeedsAndRows, ends
from hpml_bench.statistics.intervals import Interval


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947) from the rows that only one of two methods gets right.

    Twice the binomial tail of the smaller count with p = 1/2, at most 1.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0


def crossed_evidence(values: ArrayLike) -> tuple[OverSeedsAndRows, OverSeeds]:
    """Return the evidence of a seeds x rows table for other seeds and rows, and that for other seeds alone.

    A claim needs both: Satterthwaite's approximation would now and then be surer of other rows than of these.

    Args:
        values: [n seeds, m rows] with n, m >= 2: 1 where a row was right, or the difference of two methods.

    """
    table = np.asarray(values, dtype=float)
    over_seeds = OverSeeds.of(table.mean(axis=1), grid=1 / table.shape[1])
    assert over_seeds is not None  # noqa: S101 - there are two seeds and a grid
    return OverSeedsAndRows.of(table), over_seeds


def crossed_interval(values: ArrayLike) -> Interval:
    """Return the mean of a seeds x rows table with a 95 % interval for other seeds *and* other test rows.

    The wider of the intervals of `crossed_evidence`.

    Returns:
        n (seeds), mean, the standard deviation of the seeds' means, and the interval.

    """
    table = np.asarray(values, dtype=float)
    lows, highs = zip(*(ends(one) for one in crossed_evidence(table)), strict=True)
    return Interval(len(table), float(table.mean()), float(table.mean(axis=1).std(ddof=1)), min(lows), max(highs))
