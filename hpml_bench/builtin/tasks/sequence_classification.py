"""Sequence classification: one of several classes for each text; cross-entropy, accuracy,
macro-F1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from hpml_bench.data.columns import short, some
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

    from hpml_bench.plugins.rows import Rows

MACRO_F1, BRIER = registry.plugin("metrics", "macro_f1"), registry.plugin("metrics", "brier")
WEIGHT = "weight of {}"  # name of the fact that is a class's weight in the training loss
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MOST_NOTED = 100  # most classes whose weights are noted
MOST_NAMED = 12  # most classes without a test row that are named
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

    class Options(TextTask.Options):
        """Input of the head, weights of classes, and treatment of bad rows."""

        class_weights: Literal["balanced"] | dict[str, Weight] | None = None
        """Weights of the classes in the training loss, for classes of different frequency: by
        name, as in `{rare: 10}`, 1 for a class without one; or `balanced`: rows / (classes x rows
        of the class) among the training rows, as scikit-learn's. A step's loss is sum of w l / sum
        of w over the global batch, that of torch.nn.CrossEntropyLoss(weight=w); losses of
        validation and test rows have no weights. Empty: all classes weigh the same.
        """

        @field_validator("class_weights", mode="before")
        @classmethod
        def _named(cls, weights: Any) -> Any:
            """Take the classes 0 and 1 of YAML by their names."""
            if isinstance(weights, Mapping):
                return {str(name): weight for name, weight in weights.items()}
            if weights not in (None, "balanced"):
                raise ValueError(
                    "is neither `balanced` nor a weight by class, such as {rare: 10, common: 1}"
                )
            return weights

    def __init__(
        self,
        options: Any,
        label_names: tuple[str, ...] = (),
        facts: Mapping[str, float] | None = None,
    ):
        super().__init__(options, label_names, facts)
        self._weights: Tensor | None = None
        if self.options.class_weights:
            train_loss, *others = self.metrics
            definition = f"{train_loss.definition} Each row counts by the weight of its class."
            self.metrics = (train_loss.model_copy(update={"definition": definition}), *others)

    @cached_property
    def class_weights(self) -> NDArray[np.float32]:
        """Weight of each class in the training loss, [classes]."""
        weights = [self.found[WEIGHT.format(name)] for name in self.label_names]
        return np.array(weights, dtype=np.float32)

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
        counts = np.bincount(train["label"][:], minlength=len(self.label_names))
        if np.count_nonzero(counts) < 2:
            only = self.label_names[int(counts.argmax())]
            raise UserError(
                f"all {len(train)} training rows are of the class '{only}'; classification needs "
                f"two"
            )
        given = self.options.class_weights
        if not given:
            return {}
        weights = _balanced(counts) if given == "balanced" else self._given(given)
        return {
            WEIGHT.format(name): weight
            for name, weight in zip(self.label_names, weights, strict=True)
        }

    def _given(self, weights: Mapping[str, float]) -> list[float]:
        """Return the weight of each class. Raises UserError: one is of no class."""
        unknown = sorted(weights.keys() - set(self.label_names))
        if unknown:
            raise UserError(
                f"task.options.class_weights has '{short(unknown[0])}', which is no class; the "
                f"classes are {some([*map(short, self.label_names)], 12)}"
            )
        return [weights.get(name, 1.0) for name in self.label_names]

    def notes(self, facts: Mapping[str, float]) -> dict[str, str]:
        if not self.options.class_weights:
            return {}
        weights = [f"{short(name)} {facts[WEIGHT.format(name)]:.6g}" for name in self.label_names]
        return {"weights of classes in the training loss": some(weights, MOST_NOTED)}

    def test_notes(self, test: pa.Table) -> dict[str, str]:
        counts = np.bincount(test.column("label").to_numpy(), minlength=len(self.label_names))
        missing = [short(self.label_names[place]) for place in np.flatnonzero(counts == 0)]
        if not missing:
            return {}
        which = f"{len(missing)} of {len(counts)}: {some(missing, MOST_NAMED)}"
        return {"classes without a test row": which}

    def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="none")

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        if not self.options.class_weights:
            return cross_entropy(outputs, labels, reduction="sum")
        if self._weights is None or self._weights.device != outputs.device:
            self._weights = outputs.new_tensor(self.class_weights)  # a copy waits for the device
        return cross_entropy(outputs, labels, self._weights, reduction="sum")

    def divisor(self, rows: Rows, indices: NDArray[np.int64]) -> float:
        """Return the number of these rows; with class weights, the sum of their weights."""
        if not self.options.class_weights:
            return super().divisor(rows, indices)
        return float(self.class_weights[rows.labels[indices]].sum(dtype=np.float64))

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


def _balanced(counts: NDArray[np.int64]) -> list[float]:
    """Return rows / (classes x rows of the class) of each class: those with rows weigh as much
    together.

    `sklearn.utils.class_weight.compute_class_weight("balanced", ...)`, whose documentation names
    King and Zeng 2001, Logistic Regression in Rare Events Data, Political Analysis 9. A class
    without training rows is in no training loss, and its weight without effect.
    """
    classes = np.count_nonzero(counts)
    weights = counts.sum() / (classes * np.maximum(counts, 1))
    return [float(weight) for weight in weights]
