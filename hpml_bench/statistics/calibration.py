"""Calibration: how often answers are right, against the probability that was given to them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS, LEAST = 10, 20  # most bins, and least rows of each but a single one


class Reliability(NamedTuple):
    """Bins of as many rows each, by rising probability of the answer."""

    probability: NDArray[np.float64]  # [bins], mean probability of the answers
    right: NDArray[np.float64]  # [bins], share of right answers
    rows: int  # rows of a bin, one more in some

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of both (Naeini et al. 2015), over bins of equal mass."""
        return float(np.abs(self.probability - self.right).mean())


def reliability(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> Reliability:
    """Return the bins of answers to n rows by their probability, [n]; of equal ones in the rows' order."""
    count = max(1, min(BINS, len(right) // LEAST))
    parts = np.array_split(np.argsort(probability, kind="stable"), count)
    given, share = (np.array([of[part].mean(dtype=float) for part in parts]) for of in (probability, right))
    return Reliability(given, share, len(right) // count)
