"""Spearman's rank correlation of predicted and expected numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.metric import RowMetric, quality
from hpml_bench.records.predictions import Predictions


class Spearman(RowMetric):
    """Pearson's correlation of mean ranks, which move with each row too."""

    target = "number"
    metric = quality(
        "test_spearman", "Spearman's rho",
        definition="Correlation of the ranks of predictions and targets over the test rows, ties at their mean rank; 0 "
        "where either is constant.",
        bounds=(-1.0, 1.0),
    )  # fmt: skip

    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        x, y = np.asarray(predictions.reference), np.asarray(predictions.prediction)
        u, v = _ranks(x), _ranks(y)
        if not u.any() or not v.any():
            return np.zeros(len(u))
        both, of_u, of_v = (float((a * b).mean()) for a, b in ((u, v), (u, u), (v, v)))
        rho = both / np.sqrt(of_u * of_v)
        moved = u * v + _above(x, v) + _above(y, u) - 3 * both
        spread = sum((a * a + 2 * _above(of, a)) / mean - 3 for of, a, mean in ((x, u, of_u), (y, v, of_v)))
        return np.asarray(rho + moved / np.sqrt(of_u * of_v) - rho / 2 * spread)

    def weights(self, reference: NDArray[Any]) -> NDArray[np.float64]:
        """Return the square of each row's distance from the middle rank."""
        squares = _ranks(reference) ** 2
        return squares if squares.any() else np.ones(len(squares))


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return mean ranks as shares of the rows, less those of the middle."""
    return 0.5 - _above(values, np.ones(len(values)))


def _above(values: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each row the weights of the rows with larger values, and half of those with its own, over all rows."""
    at = np.unique(values, return_inverse=True)[1]
    sums = np.bincount(at, weights=weights)
    from_here = np.cumsum(sums[::-1])[::-1]
    return np.asarray((from_here - sums / 2)[at] / len(values))
