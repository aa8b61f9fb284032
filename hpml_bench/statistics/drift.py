"""The drift of a run's step times: their shift from its first to its last third, with an interval.

Steps are taken as independent of each other; a machine that is slow for seconds at a time makes
intervals too narrow.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST, MOST = (
    4,
    300,
)  # steps of a third: fewer have no interval at this level, more are averaged, to limit the pairs
CONFIDENCE = 0.95
OUTLYING = 3.0
"""Standard deviations, estimated from the median absolute one, beyond which a step doesn't count
for the line.
"""
MAD_TO_SD = 1 / NormalDist().inv_cdf(
    0.75
)  # standard deviation of a normal distribution per median absolute deviation

Array = NDArray[np.float64]


class Drift(NamedTuple):
    """Relative change of a step's time from the first to the last third; all NaN where there are
    too few steps.
    """

    estimate: float
    low: float
    high: float


def step_time_drift(seconds: ArrayLike, tokens: ArrayLike) -> Drift:
    """Return how much longer a step of the last third takes than one of the first, of equal
    padded tokens: [steps].
    """
    ratios = _to_expected(np.asarray(seconds, dtype=float), np.asarray(tokens, dtype=float))
    third = len(ratios) // 3
    if third < LEAST:
        return Drift(math.nan, math.nan, math.nan)
    shift = hodges_lehmann(np.log(_blocks(ratios[:third])), np.log(_blocks(ratios[-third:])))
    return Drift(*(math.expm1(value) for value in shift))


def hodges_lehmann(first: Array, last: Array) -> tuple[float, float, float]:
    """Return the shift from the first to the last sample and its 95 % interval (Hodges and
    Lehmann 1963).
    """
    # the ends are the k-th smallest and k-th largest difference, k from the normal approximation of
    # Mann and Whitney's statistic (Hollander, Wolfe and Chicken 2014, section 4.3)
    differences = np.sort(np.subtract.outer(last, first), axis=None)
    n, m = len(first), len(last)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    k = max(1, math.floor(n * m / 2 - z * math.sqrt(n * m * (n + m + 1) / 12)))
    return float(np.median(differences)), float(differences[k - 1]), float(differences[-k])


def _to_expected(seconds: Array, tokens: Array) -> Array:
    """Return each time divided by that of a batch of its size, by a line without outliers."""
    # tokens take its place where no line with positive values fits, or all batches have one size
    expected, kept = tokens, np.full(len(seconds), True)
    for _ in range(2):
        if not kept.any() or np.ptp(tokens[kept]) == 0:
            return seconds / tokens
        expected = np.asarray(
            np.polyval(np.polyfit(tokens[kept], seconds[kept], 1), tokens), dtype=np.float64
        )
        off = seconds - expected
        apart = np.abs(off - np.median(off))
        kept = apart <= OUTLYING * MAD_TO_SD * np.median(apart)
    return seconds / (tokens if (expected <= 0).any() else expected)


def _blocks(ratios: Array) -> Array:
    """Return the ratios, with consecutive ones averaged where there are many."""
    return np.array([block.mean() for block in np.array_split(ratios, min(len(ratios), MOST))])
