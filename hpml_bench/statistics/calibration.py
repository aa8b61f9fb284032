"""Calibration: how often answers are right, against the probability that was given to them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS, LEAST = 10, 20  # most bins, and least rows of each but a single one
DRAWS = 2000  # simulated calibrated models


class Reliability(NamedTuple):
    """Bins of as many rows each, by rising probability of the answer."""

    probability: NDArray[np.float64]  # [bins], mean probability of the answers
    right: NDArray[np.float64]  # [bins], share of right answers
    sizes: NDArray[np.int64]  # [bins], rows
    trials: NDArray[
        np.int64
    ]  # [bins], rows of equal probability whose number of right answers varies as much

    @property
    def rows(self) -> int:
        """Rows of a bin, one more in some."""
        return int(self.sizes.min())

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of both (Naeini et al. 2015), over
        bins of equal mass.
        """
        return float(np.abs(self.probability - self.right).mean())

    def error_by_chance(self) -> tuple[float, float]:
        """Return the ends between which the error of a calibrated model with these probabilities
        lies in 95 %.

        Each answer is right with its own probability, independently; simulated with a fixed seed.
        The number of wrong answers of a bin, a sum of unequal Bernoulli trials, is drawn from the
        binomial distribution of the same mean and, but for the rounding of its number of trials,
        the same variance (Ehm 1991 bounds the distance of both).
        """
        wrong = self.sizes * (1 - self.probability)
        share = np.clip(wrong / self.trials, 0, 1)
        drawn = np.random.default_rng(0).binomial(
            self.trials[:, None], share[:, None], (len(wrong), DRAWS)
        )
        errors = (np.abs(drawn - wrong[:, None]) / self.sizes[:, None]).mean(axis=0)
        low, high = np.quantile(errors, [0.025, 0.975])
        return float(low), float(high)


def reliability(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> Reliability:
    """Return the bins of answers to n rows by their probability, [n]; of equal ones in the rows'
    order.
    """
    count = max(1, min(BINS, len(right) // LEAST))
    parts = np.array_split(np.argsort(probability, kind="stable"), count)
    given, share = (
        np.array([values[part].mean(dtype=float) for part in parts])
        for values in (probability, right)
    )
    trials = np.array([_trials(1 - probability[part].astype(float)) for part in parts])
    return Reliability(given, share, np.array([len(part) for part in parts]), trials)


def _trials(chances: NDArray[np.float64]) -> int:
    """Return the number of trials of the binomial with the mean and variance of trials with
    these chances, [n].
    """
    # N q = sum(q_i) and N q (1 - q) = sum(q_i (1 - q_i)) hold at N = sum(q_i)^2 / sum(q_i^2).
    squares = float(np.square(chances).sum())
    return max(1, round(float(chances.sum()) ** 2 / squares)) if squares else 1
