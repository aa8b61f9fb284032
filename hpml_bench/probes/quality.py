"""Loss, accuracy and F1: on the training batches, on the validation rows along the way, on the test rows at the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpml_bench.records.run import Metric, Point
from hpml_bench.training.probe import Evaluation, Probe, Run, Step

LAST_WINDOW = 20
"""Steps whose mean is the final training loss."""

metrics = (
    Metric(
        name="train_loss",
        title="training loss",
        unit="nats",
        better="lower",
        over_ranks="same",
        over_steps="mean",
        phase="train",
        format=".3f",
        definition=f"Cross-entropy on the training batches, before the update, mean over the last {LAST_WINDOW} steps.",
    ),
    Metric(
        name="test_loss",
        title="test loss",
        unit="nats",
        better="lower",
        over_ranks="same",
        over_steps="once",
        phase="test",
        format=".3f",
        definition="Mean cross-entropy over the test rows, each exactly once, after the last step.",
    ),
    Metric(
        name="test_accuracy",
        title="accuracy",
        unit="",
        better="higher",
        over_ranks="same",
        over_steps="once",
        phase="test",
        format=".1%",
        definition="Share of the test rows whose most likely class is the right one, after the last step.",
    ),
    Metric(
        name="test_macro_f1",
        title="macro-F1",
        unit="",
        better="higher",
        over_ranks="same",
        over_steps="once",
        phase="test",
        format=".3f",
        definition="Mean over the classes of 2TP / (2TP + FP + FN) on the test rows, 0 for a class that is neither "
        "there nor predicted.",
    ),
)


def macro_f1(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
    """Return the unweighted mean of the classes' F1; equals scikit-learn's f1_score(average='macro')."""
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels, predictions), 1)
    ends = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * confusion.diagonal() / np.where(ends == 0, 1, ends)))


class Measure(Probe):
    """Follows losses and evaluations."""

    def start(self, run: Run) -> None:
        """Note the number of classes."""
        self.classes = run.classifier.head.out_features
        self.losses: list[float] = []
        self.final: dict[str, Any] = {}

    def after_steps(self, window: list[Step]) -> list[Point]:
        """Keep each step's loss."""
        self.losses.extend(step.loss for step in window)
        return [Point(metric="train_loss", step=step.index, value=step.loss) for step in window]

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        """Return validation points; keep the test result."""
        loss = float(evaluation.losses.mean())
        accuracy = float((evaluation.labels == evaluation.predictions).mean())
        if evaluation.phase == "validation":
            return [
                Point(metric="validation_loss", step=evaluation.step, value=loss),
                Point(metric="validation_accuracy", step=evaluation.step, value=accuracy),
            ]
        f1 = macro_f1(evaluation.labels, evaluation.predictions, self.classes)
        self.final = {"test_loss": loss, "test_accuracy": accuracy, "test_macro_f1": f1}
        return []

    def stop(self) -> dict[str, Any]:
        """Return the final losses, accuracy and F1."""
        last = self.losses[-LAST_WINDOW:]
        return {"train_loss": sum(last) / len(last), **self.final}
