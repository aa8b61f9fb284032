"""Macro-F1: the mean of the classes' F1, in which rare classes count as much as others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.metric import RowMetric, quality
from hpml_bench.records.predictions import Predictions

MOST_CLASSES = 1_000_000  # most classes, whose counts take memory


class MacroF1(RowMetric):
    """The mean of F1 over classes, each of which is a ratio of sums over rows."""

    target = "class"
    metric = quality(
        "test_macro_f1",
        "macro-F1",
        definition=(
            "Mean over the classes of 2TP / (2TP + FP + FN) on the test rows, 0 for a class that "
            "is neither there nor predicted."
        ),
        bounds=(0.0, 1.0),
    )

    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        reference, answer = np.asarray(predictions.reference), np.asarray(predictions.prediction)
        f1, right = self.of_classes(reference, answer), reference == answer
        ends = np.bincount(reference, minlength=len(f1)) + np.bincount(answer, minlength=len(f1))
        own = (2 * right - f1[reference]) / ends[reference] - f1[answer] / ends[answer]
        return np.asarray(f1.mean() + len(own) / len(f1) * own)

    def of_classes(self, reference: NDArray[Any], answer: NDArray[Any]) -> NDArray[np.float64]:
        """Return the F1 of each class, [C]; a ValueError where a class is far too large, or
        negative.
        """
        size = max(self.classes, int(max(reference.max(), answer.max())) + 1)
        if size > MOST_CLASSES:
            raise ValueError(f"{size} classes")
        ends = np.bincount(reference, minlength=size) + np.bincount(answer, minlength=size)
        right = np.bincount(reference[reference == answer], minlength=size)
        return np.asarray(2 * right / np.where(ends == 0, 1, ends))
