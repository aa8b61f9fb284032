"""Macro-F1: the mean of the classes' F1, in which rare classes count as much as others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.metric import RowMetric, quality
from hpml_bench.records.predictions import Predictions


class MacroF1(RowMetric):
    """The mean of F1 over classes, each of which is a ratio of sums over rows."""

    target = "class"
    metric = quality(
        "test_macro_f1", "macro-F1",
        definition="Mean over the classes of 2TP / (2TP + FP + FN) on the test rows, 0 for a class that is neither "
        "there nor predicted.",
        bounds=(0.0, 1.0),
    )  # fmt: skip

    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        reference, answer = np.asarray(predictions.reference), np.asarray(predictions.prediction)
        size, right = max(self.classes, int(max(reference.max(), answer.max())) + 1), reference == answer
        ends = np.maximum(np.bincount(reference, minlength=size) + np.bincount(answer, minlength=size), 1)
        f1 = 2 * np.bincount(reference[right], minlength=size) / ends
        own = (2 * right - f1[reference]) / ends[reference] - f1[answer] / ends[answer]
        return np.asarray(f1.mean() + len(own) / size * own)
