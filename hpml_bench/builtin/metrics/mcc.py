"""Matthews' correlation coefficient, of two classes or more (Gorodkin 2004, Comput. Biol. Chem.
28).
"""

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.metric import RowMetric, correlation, quality
from hpml_bench.records.predictions import Predictions


class Mcc(RowMetric):
    """The correlation of answers and classes, each as a vector with a 1 for its class."""

    target = "class"
    metric = quality(
        "test_mcc",
        "MCC",
        definition=(
            "Matthews' correlation coefficient of the test rows' classes and answers: 1 if all are "
            "right, 0 for answers that don't depend on the class, or are all alike."
        ),
        bounds=(-1.0, 1.0),
    )

    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        reference, answer = np.asarray(predictions.reference), np.asarray(predictions.prediction)
        size = int(max(reference.max(), answer.max())) + 1
        there, given = (
            np.bincount(of, minlength=size) / len(reference) for of in (reference, answer)
        )
        both = (reference == answer) - there[answer] - given[reference] + there @ given
        spreads = (1 + there @ there - 2 * there[reference], 1 + given @ given - 2 * given[answer])
        return correlation(both, *spreads)
