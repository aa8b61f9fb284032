"""Spearman's rank correlation of predicted and expected numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.metric import RowMetric, correlation, quality
from hpml_bench.records.predictions import Predictions


class Spearman(RowMetric):
    """Pearson's correlation of mean ranks, which move with each row too."""

    target = "number"
    metric = quality(
        "test_spearman",
        "Spearman's rho",
        definition=(
            "Correlation of the ranks of predictions and targets over the test rows, ties at their "
            "mean rank; 0 where either is constant."
        ),
        bounds=(-1.0, 1.0),
    )

    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        x, y = np.asarray(predictions.reference), np.asarray(predictions.prediction)
        u, v = _ranks(x), _ranks(y)
        both, of_u, of_v = (
            a * b + _above(one, b) + _above(other, a) - 2 * (a * b).mean()
            for one, a, other, b in ((x, u, y, v), (x, u, x, u), (y, v, y, v))
        )
        return correlation(both, of_u, of_v)

    def weights(self, reference: NDArray[Any]) -> NDArray[np.float64]:
        """Return the square of each row's distance from the middle rank."""
        squares = _ranks(reference) ** 2
        return squares if squares.any() else np.ones(len(squares))


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return mean ranks as shares of the rows, less those of the middle."""
    return 0.5 - _above(values, np.ones(len(values)))


def _above(values: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each row the weights of the rows with larger values, and half of those with its
    own, over all rows.
    """
    at = np.unique(values, return_inverse=True)[1]
    sums = np.bincount(at, weights=weights)
    from_here = np.cumsum(sums[::-1])[::-1]
    return np.asarray((from_here - sums / 2)[at] / len(values))
