"""Losses and scores: of training batches, of validation rows during training, of test rows at the end."""

from __future__ import annotations

from typing import Any

from hpml_bench.plugins.probe import Evaluation, Finished, Probe, Run, Step
from hpml_bench.records.run import Metric, Point

LAST_WINDOW = 20  # last steps whose mean is the final training loss


class QualityProbe(Probe):
    """Follows losses and evaluations; the metrics are the task's."""

    def start(self, run: Run) -> None:
        super().start(run)
        self.losses: list[float] = []

    def after_steps(self, window: list[Step]) -> list[Point]:
        self.losses.extend(step.loss for step in window)
        return [Point(metric="train_loss", step=step.index, value=step.loss) for step in window]

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        if evaluation.phase == "validation":
            names = ("loss", self.run.task.headline.removeprefix("test_"))
            return [
                Point(metric=f"validation_{name}", step=evaluation.step, value=evaluation.metrics[name])
                for name in names
                if name in evaluation.metrics  # answers may not be generated during training
            ]
        self.values = {f"test_{name}": value for name, value in evaluation.metrics.items()}
        return []

    def state(self) -> dict[str, Any]:
        return {}

    def definitions(self) -> tuple[Metric, ...]:
        return self.run.task.metrics

    def stop(self) -> dict[str, Any]:
        return {**_final(self.losses), **self.values}

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        return _final([step.loss for step in run.steps])


def _final(losses: list[float]) -> dict[str, float]:
    last = losses[-LAST_WINDOW:]
    return {"train_loss": sum(last) / len(last)} if last else {}
