"""Brier score: how far the classes' probabilities lie from what was there (Brier 1950, Mon.
Weather Rev. 78).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.metric import RowMetric, quality
from hpml_bench.plugins.task import MOST_PROBABILITIES
from hpml_bench.records.predictions import Predictions
from hpml_bench.system.errors import UserError


class Brier(RowMetric):
    """A mean over rows of the squared distance between two vectors of classes."""

    target = "class"
    metric = quality(
        "test_brier",
        "Brier score",
        better="lower",
        definition=(
            "Mean over the test rows of the sum over all classes of (probability - 1 for the "
            "row's class, 0 for others)², from 0 to 2; of two classes twice the score of one. "
            f"With at most {MOST_PROBABILITIES} classes."
        ),
        bounds=(0.0, 2.0),
    )

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        if classes > MOST_PROBABILITIES:
            raise UserError(
                f"brier is of at most {MOST_PROBABILITIES} classes, and there are {classes}; "
                f"rank_by macro_f1"
            )

    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        if predictions.probabilities is None:
            raise ValueError("the predictions have no probabilities")
        given = predictions.probabilities.astype(np.float64)
        own = given[np.arange(len(given)), np.asarray(predictions.reference)]
        return np.asarray((given**2).sum(axis=1) - 2 * own + 1)

    def weights(self, reference: NDArray[Any]) -> NDArray[np.float64]:
        return np.ones(len(reference))
