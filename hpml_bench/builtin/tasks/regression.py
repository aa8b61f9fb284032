"""Regression: one number for each text; squared error, RMSE, MAE, Pearson's and Spearman's
correlation.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.task import ROUNDING, Guess, first_true, loss_metrics
from hpml_bench.plugins.text_task import TextTask
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers
from hpml_bench.records.run import Metric
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from torch import Tensor

_metric = partial(Metric.define, phase="test", group="quality")


class Regression(TextTask):
    """A linear layer on one pooled hidden state of the encoder predicts a number.

    The layer gives z, and the number is mean + sd z, with mean and standard deviation of the
    training targets. The loss is the squared error of z, so that gradients are the same whatever
    the target's unit; `test_loss` and all metrics are in that unit. Numbers are computed in
    float64: a large mean would swallow them in float32.
    """

    class Options(TextTask.Options):
        """Input of the head, form of the numbers, and treatment of bad rows."""

        decimal_mark: Literal["point", "comma"] | None = None
        """How texts write the numbers to learn: `point` as in 1,234.50 and 1'234.50, `comma` as in
        1.234,50 and 1 234,50. Empty: with a decimal point, and nothing between thousands.
        """

    title = "Regression"
    target = "number"
    headline = "test_rmse"
    outputs = 1
    metrics = (
        loss_metrics("", "Squared error, divided by the variance of the training targets,")[0],
        loss_metrics("", "Squared error")[1],
        _metric(
            "test_rmse",
            "RMSE",
            "",
            "lower",
            ".3f",
            (
                "Root of the mean squared error over the test rows, in the target's unit, after "
                "the last step."
            ),
            bounds=(0.0, None),
        ),
        _metric(
            "test_mae",
            "MAE",
            "",
            "lower",
            ".3f",
            "Mean absolute error over the test rows, in the target's unit, after the last step.",
            bounds=(0.0, None),
        ),
        _metric(
            "test_pearson",
            "Pearson's r",
            "",
            "higher",
            ".3f",
            (
                "Linear correlation of predictions and targets over the test rows; none where "
                "either is constant."
            ),
            bounds=(-1.0, 1.0),
        ),
        _metric(
            "test_spearman",
            "Spearman's rho",
            "",
            "higher",
            ".3f",
            "Correlation of the ranks of predictions and targets over the test rows, ties at their "
            "mean rank; none where either is constant.",
            bounds=(-1.0, 1.0),
        ),
    )

    def check(self, split: str, labels: pa.Array, rows: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        row = (
            first_true(pc.invert(pc.is_finite(labels))) if pa.types.is_floating(labels.type) else 0
        )
        if row is not None:
            text = sanitize(rows.column("text")[row].as_py(), 60)
            raise UserError(
                f"a {split} row has the target {labels[row].as_py()!r}, which is no finite number: "
                f"{text!r}"
            )

    def facts(self, train: Dataset) -> dict[str, float]:
        """Return mean and standard deviation (of the population) of the training targets; refuse
        a constant.
        """
        batches = train.with_format("arrow").iter(1000)
        labels = np.concatenate([batch.column("label").to_numpy() for batch in batches])
        if labels.min() == labels.max():
            raise UserError(
                f"all {len(labels)} training rows have the target {labels[0]:g}; regression needs "
                f"two"
            )
        return {"mean": float(labels.mean()), "sd": float(labels.std())}

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the squared errors of z, summed: those of the numbers over the training
        targets' variance.
        """
        return (
            (outputs.squeeze(-1) - (labels - self.found["mean"]) / self.found["sd"]).square().sum()
        )

    def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (self.predict(outputs, labels) - labels).square()

    def predict(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.found["mean"] + self.found["sd"] * outputs.squeeze(-1).double()

    def evaluate(self, predictions: Predictions) -> dict[str, float]:
        from scipy.stats import rankdata

        reference, prediction = (
            np.asarray(predictions.reference),
            np.asarray(predictions.prediction),
        )
        errors = prediction - reference
        return {
            "loss": float(np.mean(predictions.loss, dtype=np.float64)),
            "rmse": math.sqrt(float(np.mean(errors**2))),
            "mae": float(np.abs(errors).mean()),
            "pearson": _pearson(reference, prediction),
            "spearman": _pearson(rankdata(reference), rankdata(prediction)),
        }

    def scores(self, predictions: Predictions) -> NDArray[Any]:
        return linearised_rmse(
            np.asarray(predictions.reference), np.asarray(predictions.prediction)
        )

    def contradicted(self, predictions: Predictions) -> NDArray[np.bool_]:
        errors = np.asarray(predictions.prediction) - np.asarray(predictions.reference)
        return np.asarray(
            ~np.isclose(predictions.loss, errors**2, rtol=ROUNDING, atol=1e-30, equal_nan=True)
        )

    def guess(self, reference: Answers, texts: TextAnswers | None = None) -> Guess:
        """Answer the mean of these rows; its RMSE, their standard deviation, is chance."""
        labels = np.asarray(reference, dtype=np.float64)
        mean, chance = labels.mean(), float(labels.std())
        sentence = (
            f"Guessing the mean of the test rows, {mean:.4g}, for each of them has an RMSE of "
            f"{chance:.4g}."
        )
        return Guess(
            sentence, scores=linearised_rmse(labels, np.full(len(labels), mean)), chance=chance
        )


def linearised_rmse(reference: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.float64]:
    """Return one value per row [n] whose mean is exactly the RMSE: rmse + (error^2 - mse) / (2
    rmse).

    The square root of a mean, linearised at that mean: the infinitesimal jackknife (Efron 1982, The
    Jackknife, the Bootstrap and Other Resampling Plans, ch. 6), which for a function of a mean is
    the delta method. All 0 where every row is exact.
    """
    squares = np.square(np.asarray(prediction, dtype=np.float64) - reference)
    mean = float(squares.mean())
    if mean == 0:
        return np.zeros(len(squares))
    rmse = math.sqrt(mean)
    return np.asarray(rmse + (squares - mean) / (2 * rmse))


def _pearson(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return Pearson's correlation; NaN where either is constant. Equals scipy.stats.pearsonr."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    x, y = (
        values - values.mean()
        for values in (np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    )
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1, 1))
