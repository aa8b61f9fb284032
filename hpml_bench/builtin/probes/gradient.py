"""Norm of the gradient, per step and on average, and the steps that fp16 skipped because it
overflowed.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Finished, Run, Step, StepsProbe
from hpml_bench.records.run import Metric, Point

_metric = partial(Metric.define, over_steps="mean", phase="train", group="gradient")
SKIPPED = Metric.define(
    "skipped_steps",
    "skipped steps",
    "",
    "lower",
    ",.0f",
    "Steps whose gradient overflowed in fp16: they change nothing, and after each the loss is "
    "scaled by half as much.",
    phase="train",
    group="gradient",
)
METRICS = (
    _metric(
        "grad_norm",
        "gradient norm",
        "",
        "neither",
        ".3g",
        "Global L2 norm of the gradient of all trained parameters, head included, after the "
        "all-reduce and before clipping; mean over all steps. Methods with different parameter "
        "counts don't compare by it.",
    ),
    _metric(
        "grad_norm_per_sqrt_parameter",
        "gradient norm / √parameters",
        "",
        "neither",
        ".2e",
        "The gradient norm divided by the square root of the number of trained parameters, head "
        "included: the "
        "root mean square of a gradient entry, which depends less on the number of parameters.",
    ),
)


class GradientProbe(StepsProbe):
    """Averages the norms that the training loop computes for clipping."""

    of_training = True
    metrics = (*METRICS, SKIPPED)

    def start(self, run: Run) -> None:
        super().start(run)
        self.parameters = sum(p.numel() for p in run.model.parameters() if p.requires_grad)

    def after_steps(self, window: list[Step]) -> list[Point]:
        super().after_steps(window)
        norms = [
            Point(metric="grad_norm", step=s.index, value=None if s.overflowed else s.grad_norm)
            for s in window
        ]
        return norms + [
            Point(metric="learning_rate", step=step.index, value=step.lr) for step in window
        ]

    def state(self) -> dict[str, Any]:
        return {}

    def definitions(self) -> tuple[Metric, ...]:
        return self.metrics if self.run.settings.precision == "fp16" else METRICS

    def stop(self) -> dict[str, Any]:
        skipped = {"skipped_steps": sum(step.overflowed for step in self.steps)}
        return _means(self.steps, self.parameters) | (
            skipped if SKIPPED in self.definitions() else {}
        )

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        trained = run.value("trainable_parameters") + run.value("head_parameters")
        return _means(run.steps, trained) if run.steps else {}


def _means(steps: Sequence[Step], parameters: float) -> dict[str, float]:
    norms = [step.grad_norm for step in steps if not step.overflowed]
    mean = sum(norms) / len(norms) if norms else math.nan
    return {"grad_norm": mean, "grad_norm_per_sqrt_parameter": mean / math.sqrt(parameters)}
