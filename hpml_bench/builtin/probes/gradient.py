"""Norm of the gradient, per step and on average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Finished, Probe, Run, Step
from hpml_bench.records.run import Metric, Point

_metric = partial(Metric.define, over_steps="mean", phase="train", group="gradient")
METRICS = (
    _metric(
        "grad_norm", "gradient norm", "", "neither", ".3g",
        "Global L2 norm of the gradient of all trained parameters, head included, after the all-reduce and "
        "before clipping; mean over all steps. Methods with different parameter counts don't compare by it.",
    ),
    _metric(
        "grad_norm_per_sqrt_parameter", "gradient norm / √parameters", "", "neither", ".2e",
        "The gradient norm divided by the square root of the number of trained parameters, head included: "
        "the root mean square of a gradient entry, which depends less on the number of parameters.",
    ),
)  # fmt: skip


class GradientProbe(Probe):
    """Averages the norms that the training loop computes for clipping."""

    of_training = True
    metrics = METRICS

    def start(self, run: Run) -> None:
        self.parameters = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
        self.norms: list[float] = []

    def after_steps(self, window: list[Step]) -> list[Point]:
        self.norms.extend(step.grad_norm for step in window if not step.overflowed)
        norms = [Point(metric="grad_norm", step=s.index, value=None if s.overflowed else s.grad_norm) for s in window]
        return norms + [Point(metric="learning_rate", step=step.index, value=step.lr) for step in window]

    def stop(self) -> dict[str, Any]:
        return _means(self.norms, self.parameters)

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        trained = run.value("trainable_parameters") + run.value("head_parameters")
        return _means([step.grad_norm for step in run.steps if not step.overflowed], trained) if run.steps else {}


def _means(norms: Sequence[float], parameters: float) -> dict[str, float]:
    mean = sum(norms) / len(norms) if norms else math.nan
    return {"grad_norm": mean, "grad_norm_per_sqrt_parameter": mean / math.sqrt(parameters)}
