"""Sequence classification: one of several classes for each text; cross-entropy, accuracy,
macro-F1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.task import (
    MOST_PROBABILITIES,
    Guess,
    first_true,
    loss_metrics,
    not_likeliest,
)
from hpml_bench.plugins.text_task import TextTask
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers
from hpml_bench.records.run import Metric
from hpml_bench.suite import registry
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from torch import Tensor

MACRO_F1, BRIER = registry.plugin("metrics", "macro_f1"), registry.plugin("metrics", "brier")
OFF = 1e-3  # distance of probabilities that rounding explains
_metric = partial(Metric.define, phase="test", group="quality")


class SequenceClassification(TextTask):
    """A linear layer on one pooled hidden state of the encoder gives one logit per class."""

    title = "Sequence classification"
    target = "class"
    headline = "test_accuracy"
    binary = True
    metrics = (
        *loss_metrics("nats", "Cross-entropy"),
        _metric(
            "test_accuracy",
            "accuracy",
            "",
            "higher",
            ".1%",
            "Share of the test rows whose most likely class is the right one, after the last step.",
            bounds=(0.0, 1.0),
        ),
        MACRO_F1.metric.model_copy(
            update={"bounds": (None, None)}
        ),  # as records of former versions have it
        BRIER.metric,
    )

    def check(self, split: str, labels: pa.Array, rows: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        known = len(self.label_names)
        integers = pa.types.is_integer(labels.type)
        row = (
            first_true(pc.or_(pc.less(labels, 0), pc.greater_equal(labels, known)))
            if integers
            else 0
        )
        if row is not None:
            text = sanitize(rows.column("text")[row].as_py(), 60)
            raise UserError(
                f"a {split} row has the label {labels[row].as_py()!r}, outside the {known} names "
                f"({', '.join(self.label_names)}): {text!r}"
            )

    def facts(self, train: Dataset) -> dict[str, float]:
        seen = train.unique("label")
        if len(seen) > 1:
            return {}
        only = self.label_names[seen[0]]
        raise UserError(
            f"all {len(train)} training rows are of the class '{only}'; classification needs two"
        )

    def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="none")

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="sum")

    def predict(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.argmax(dim=-1)

    @property
    def probable_classes(self) -> int:
        return len(self.label_names) if len(self.label_names) <= MOST_PROBABILITIES else 0

    def evaluate(self, predictions: Predictions) -> dict[str, float]:
        reference, prediction = (
            np.asarray(predictions.reference),
            np.asarray(predictions.prediction),
        )
        metrics = {
            "loss": float(np.mean(predictions.loss, dtype=np.float64)),
            "accuracy": float((reference == prediction).mean()),
            "macro_f1": float(
                MACRO_F1(len(self.label_names)).of_classes(reference, prediction).mean()
            ),
        }
        if predictions.probabilities is not None and self.probable_classes:
            metrics["brier"] = float(BRIER(len(self.label_names)).rows(predictions).mean())
        return metrics

    def scores(self, predictions: Predictions) -> NDArray[Any]:
        return np.asarray(
            np.asarray(predictions.reference) == np.asarray(predictions.prediction), dtype=bool
        )

    def contradicted(self, predictions: Predictions) -> NDArray[np.bool_]:
        wrong, given = (
            not_likeliest(predictions, len(self.label_names) or 1e9),
            predictions.probabilities,
        )
        if given is not None:
            places = (
                np.asarray(of)[:, None] for of in (predictions.reference, predictions.prediction)
            )
            own, said = (np.take_along_axis(given, of, axis=1)[:, 0] for of in places)
            off = (np.exp(-predictions.loss) - own, given.sum(axis=1) - 1, said - given.max(axis=1))
            wrong |= ~np.all([np.abs(of) <= OFF for of in off], axis=0)
        return wrong

    def guess(self, reference: Answers, texts: TextAnswers | None = None) -> Guess:
        """Answer the most frequent class of these rows; chance is one in the number of classes."""
        labels = np.asarray(reference)
        counts = np.bincount(labels, minlength=max(1, len(self.label_names)))
        most, classes = int(counts.argmax()), len(counts)
        share = float(counts[most] / counts.sum())
        sentence = (
            f"Guessing the most frequent class gets {100 * share:.1f} % of the test rows right "
            f"(macro-F1 {2 * share / (1 + share) / classes:.3f}); chance is {100 / classes:.1f} %."
        )
        return Guess(sentence, scores=(labels == most).astype(float), chance=1 / classes)
