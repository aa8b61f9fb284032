"""Bytes that DDP reduces over the ranks at each step."""

from __future__ import annotations

from typing import Any

from hpml_bench.probes import Probe, Run
from hpml_bench.records import Metric

metrics = (
    Metric(
        name="allreduced_bytes_per_step",
        title="all-reduced per step",
        unit="bytes",
        better="lower",
        over_ranks="same",
        over_steps="once",
        phase="train",
        format=",.0f",
        definition="Gradient bytes that each rank gives into DDP's all-reduce at every step: the sum over the trained "
        "parameters, head included. What crosses the wire depends on the algorithm (ring: 2(N-1)/N times this).",
    ),
)


class Measure(Probe):
    """Adds up the gradients DDP will reduce."""

    def start(self, run: Run) -> None:
        """Count the bytes."""
        self.bytes = sum(p.numel() * p.element_size() for p in run.classifier.parameters() if p.requires_grad)

    def stop(self) -> dict[str, Any]:
        """Return them."""
        return {"allreduced_bytes_per_step": self.bytes}
