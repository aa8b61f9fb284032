"""Average precision: how far up a rare class stands among the rows, sorted by its probability."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.metric import RowMetric, quality
from hpml_bench.records.predictions import Predictions
from hpml_bench.system.errors import UserError

# difference of the logarithms of two odds that counts as none, since losses are of float32
TIE = 1e-5


class AveragePrecision(RowMetric):
    """The mean of the precisions at each row of the rarer of two classes.

    The sum over thresholds of (R_n - R_(n-1)) P_n, of recall and precision among the rows whose
    probability is at least the n-th largest, without interpolation: equal probabilities are one
    threshold. That is `sklearn.metrics.average_precision_score`, with the rarer class as the
    positive one.
    """

    target = "class"
    metric = quality(
        "test_average_precision",
        "average precision",
        definition=(
            "Mean over the test rows of the rarer class (of equals the second) of its share of the "
            "rows to which the model gives it as large a probability or a larger one; it follows "
            "from the loss. Of two classes only."
        ),
        bounds=(0.0, 1.0),
    )

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        if classes > 2:
            raise UserError(
                f"average_precision is of two classes, and there are {classes}; rank_by macro_f1 "
                f"or mcc"
            )

    def check(self, reference: NDArray[Any]) -> None:
        if not _rare(reference).any():
            raise UserError(
                f"all {len(reference):,} test rows are of one class, and average_precision is of "
                f"two; give test rows of both, as by more test_samples"
            )

    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        rare, loss = (
            _rare(np.asarray(predictions.reference)),
            np.asarray(predictions.loss, dtype=np.float64),
        )
        if not rare.any():
            return np.zeros(len(rare))
        at = _places(rare, loss)
        hits, shown = np.bincount(at, weights=rare), np.cumsum(np.bincount(at))
        precision = np.cumsum(hits) / shown
        below, hit_below = (
            np.cumsum(of[::-1])[::-1] for of in (hits * precision / shown, hits / shown)
        )
        value = precision[at][rare].mean()
        own = rare * (precision[at] - value + hit_below[at]) - below[at]
        return np.asarray(value + own / rare.mean())

    def weights(self, reference: NDArray[Any]) -> NDArray[np.float64]:
        rare = _rare(reference)
        return rare.astype(np.float64) if rare.any() else np.ones(len(rare))


def _places(rare: NDArray[np.bool_], loss: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the place of each row by the probability of the rare class, from 0; equal ones have
    one place.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = -loss - np.log(-np.expm1(-loss))  # logarithm, of the row's own class
        least = np.where(rare, -odds, odds)
        order = np.argsort(least, kind="stable")
        at = np.cumsum(np.diff(least[order], prepend=least[order[:1]]) > TIE)
    places = np.empty(len(at), dtype=np.int64)
    places[order] = at
    return places


def _rare(reference: NDArray[Any]) -> NDArray[np.bool_]:
    counts = np.bincount(reference, minlength=2)
    return np.asarray(reference == (1 if counts[1] <= counts[0] else 0))
