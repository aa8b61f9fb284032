"""Matthews' correlation coefficient, of two classes or more (Gorodkin 2004, Comput. Biol. Chem. 28)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.metric import RowMetric, quality
from hpml_bench.records.predictions import Predictions


class Mcc(RowMetric):
    """The correlation of answers and classes, each as a vector with a 1 for its class."""

    target = "class"
    metric = quality(
        "test_mcc", "MCC",
        definition="Matthews' correlation coefficient of the test rows' classes and answers: 1 if all are right, 0 for "
        "answers that don't depend on the class, or are all alike.",
        bounds=(-1.0, 1.0),
    )  # fmt: skip

    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        reference, answer = np.asarray(predictions.reference), np.asarray(predictions.prediction)
        size, n = int(max(reference.max(), answer.max())) + 1, len(reference)
        there, given = (np.bincount(of, minlength=size) / n for of in (reference, answer))
        right, by_chance = reference == answer, float(there @ given)
        spread, spread_given = 1 - float(there @ there), 1 - float(given @ given)
        if min(spread, spread_given) <= 0:
            return np.zeros(n)
        scale = np.sqrt(spread * spread_given)
        mcc = (right.mean() - by_chance) / scale
        above = right - right.mean() - (there[answer] + given[reference] - 2 * by_chance)
        wider = (there[reference] - there @ there) / spread + (given[answer] - given @ given) / spread_given
        return np.asarray(mcc + above / scale + mcc * wider)
