"""Steps that fp16 skipped because their gradient overflowed."""

from __future__ import annotations

from typing import Any

from hpml_bench.plugins.probe import Probe, Run, Step
from hpml_bench.records.run import Metric, Point

METRICS = (
    Metric.once(
        "skipped_steps", "skipped steps", "", "lower", ",.0f",
        "Steps whose gradient overflowed in fp16: they change nothing, and after each the loss is scaled by half as "
        "much.", phase="train", group="gradient",
    ),
)  # fmt: skip


class LossScalingProbe(Probe):
    """Counts the steps without an update, in fp16 alone."""

    of_training = True
    metrics = METRICS

    def start(self, run: Run) -> None:
        """Note whether the loss is scaled."""
        self.scaled = run.settings.precision == "fp16"
        self.skipped = 0

    def definitions(self) -> tuple[Metric, ...]:
        """Return the definitions in fp16, where steps can be skipped."""
        return METRICS if self.scaled else ()

    def after_steps(self, window: list[Step]) -> list[Point]:
        """Count the overflowed steps."""
        self.skipped += sum(step.overflowed for step in window)
        return []

    def stop(self) -> dict[str, Any]:
        """Return the number."""
        return {"skipped_steps": self.skipped} if self.scaled else {}
