"""Losses and scores: of training batches, of validation rows during training, of test rows at
the end.
"""

from collections.abc import Sequence
from typing import Any

from hpml_bench.plugins.probe import Evaluation, Finished, Step, StepsProbe
from hpml_bench.records.run import Metric, Point

LAST_WINDOW = 20  # last steps whose mean is the final training loss


class QualityProbe(StepsProbe):
    """Follows losses and evaluations; the metrics are the task's."""

    def after_steps(self, window: list[Step]) -> list[Point]:
        super().after_steps(window)
        return [Point(metric="train_loss", step=step.index, value=step.loss) for step in window]

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        if evaluation.phase == "validation":
            names = ("loss", self.run.task.headline.removeprefix("test_"))
            return [
                Point(
                    metric=f"validation_{name}",
                    step=evaluation.step,
                    value=evaluation.metrics[name],
                )
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
        return {**_final(self.steps), **self.values}

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        return _final(run.steps)


def _final(steps: Sequence[Step]) -> dict[str, float]:
    last = [step.loss for step in steps[-LAST_WINDOW:]]
    return {"train_loss": sum(last) / len(last)} if last else {}
