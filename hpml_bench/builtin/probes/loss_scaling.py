"""Steps that fp16 skipped because their gradient overflowed."""

from __future__ import annotations

from hpml_bench.plugins.probe import Probe, Run, Step
from hpml_bench.records.run import Metric, Point


class LossScalingProbe(Probe):
    """Counts the steps without an update, in fp16 alone."""

    of_training = True
    metrics = (
        Metric.define(
            "skipped_steps", "skipped steps", "", "lower", ",.0f",
            "Steps whose gradient overflowed in fp16: they change nothing, and after each the loss is scaled by half "
            "as much.", phase="train", group="gradient",
        ),
    )  # fmt: skip

    def start(self, run: Run) -> None:
        super().start(run)
        self.values = {"skipped_steps": 0} if run.settings.precision == "fp16" else {}

    def definitions(self) -> tuple[Metric, ...]:
        return self.metrics if self.values else ()

    def after_steps(self, window: list[Step]) -> list[Point]:
        if self.values:
            self.values["skipped_steps"] += sum(step.overflowed for step in window)
        return []
