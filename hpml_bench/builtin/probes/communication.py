"""Communication of DDP per step: bytes all-reduced, and the time of the all-reduces."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hpml_bench.plugins.probe import Probe, Run, Step
from hpml_bench.records.run import Metric, Point

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel

SAMPLE_EVERY = 10
"""Sampling interval of DDP's logger: it records the times of the first ten passes and then of every
tenth.

It records a pass when the next one begins; on a GPU the host waits there until the former is done.
"""

_metric = partial(Metric.define, phase="train", group="communication")
_time = partial(_metric, over_ranks="max", over_steps="mean", depends_on_machine=True)

METRICS = (
    _metric(
        "allreduced_bytes_per_step",
        "all-reduced per step",
        "bytes",
        "lower",
        ",.0f",
        "Gradient bytes that each rank gives into DDP's all-reduce at every step: the sum over the "
        "trained parameters, head included. What crosses the wire depends on the algorithm (ring: "
        "2(N-1)/N times this).",
        noisy=False,
    ),
    _time(
        "communication_ms",
        "all-reduce time",
        "ms",
        "lower",
        ".2f",
        "Time from the first all-reduce of a backward pass to the end of its last, as DDP's logger "
        "notes it in its first ten passes, those of the rehearsal among them, and every tenth "
        "after them, those of the warm-up left out; the largest rank's mean. Waiting for slower "
        "ranks is in it, and so is what runs beside the backward pass. None with one rank.",
    ),
    _time(
        "communication_percent",
        "all-reduce share",
        "%",
        "lower",
        ".1f",
        "The all-reduce time as a percentage of the mean time of the same steps.",
    ),
)

OVER_NODES = tuple(
    _metric(
        f"{where}_nodes_bytes_per_step",
        f"all-reduced {where} nodes per step",
        "bytes",
        "lower",
        ",.0f",
        f"Bytes that a ring all-reduce moves {where} nodes at every step, in runs over several: "
        "each of the ring's W links, one a rank, carries 2(W-1)/W of the all-reduced bytes, and "
        f"{links}. Computed, not measured: other algorithms move other amounts.",
        noisy=False,
    )
    for where, links in (
        ("within", "W - N of them stay within one of the N nodes"),
        ("between", "N of them lead from one of the N nodes to the next"),
    )
)


class DdpLog(NamedTuple):
    """Record of DDP's logger so far: the last pass, and the recorded steps with the sum of their
    all-reduces' time.
    """

    last: int = 0
    steps: int = 0
    nanoseconds: float = 0.0


def read_log(model: DistributedDataParallel) -> DdpLog:
    """Return the record of DDP's logger, which gives the last pass and the mean over those
    recorded.
    """
    log = model._get_ddp_logging_data()  # type: ignore[no-untyped-call]
    mean, last = log.get("avg_backward_comm_time"), int(log.get("iteration", 0))
    steps = min(last, SAMPLE_EVERY) + max(0, last // SAMPLE_EVERY - 1)
    return DdpLog() if mean is None else DdpLog(last, steps, mean * steps)


class CommunicationProbe(Probe):
    """Sums the bytes of the gradients that DDP reduces, and reads DDP's own log at the end."""

    of_training = True
    metrics = (*METRICS, *OVER_NODES)

    def start(self, run: Run) -> None:
        super().start(run)
        self.bytes = sum(
            p.numel() * p.element_size() for p in run.model.parameters() if p.requires_grad
        )
        self.model: DistributedDataParallel | None = None
        self.before: list[DdpLog] = []
        self.rehearsed = 0
        self.milliseconds = math.nan
        self.seconds: dict[int, float] = {}
        self.begun = 0

    def wrapped(self, model: DistributedDataParallel) -> None:
        """Start DDP's logger, and count passes until the first step."""
        self.model = model
        model._set_ddp_runtime_logging_sample_rate(SAMPLE_EVERY)  # type: ignore[no-untyped-call]
        self._counting = model.register_forward_pre_hook(self._count)

    def _count(self, model: Any, _: object) -> None:
        self.rehearsed += model.require_backward_grad_sync

    def before_training(self) -> None:
        if self.model is not None:
            self._counting.remove()

    def after_backward(self, index: int) -> None:
        """Read DDP's log right after the rehearsal, and after the warm-up, in which connections
        are made.
        """
        if self.model is not None and index - self.begun in {1, self.run.settings.warmup_steps + 1}:
            self.before.append(read_log(self.model))

    def after_steps(self, window: list[Step]) -> list[Point]:
        """Keep the times of the steps that DDP's logger records, by its own count."""
        of_passes = {s.index - self.begun + self.rehearsed: s.seconds for s in window}
        self.seconds |= {
            i: s for i, s in of_passes.items() if i <= SAMPLE_EVERY or i % SAMPLE_EVERY == 0
        }
        return []

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any], step: int) -> None:
        self.begun, self.seconds = step, {}

    def after_training(self) -> None:
        if (
            self.model is None or not self.before
        ):  # one rank, or all steps were taken before a checkpoint
            return
        last, self.model = read_log(self.model), None
        earlier = [log for log in self.before if log.steps < last.steps]
        before = earlier[-1] if earlier else self.before[0]
        self.seconds = {i: s for i, s in self.seconds.items() if before.last < i <= last.last}
        if last.steps > before.steps:
            self.milliseconds = (
                (last.nanoseconds - before.nanoseconds) / (last.steps - before.steps) / 1e6
            )

    def definitions(self) -> tuple[Metric, ...]:
        if self.run.settings.sharding != "none" and self.run.group.world > 1:
            return ()  # whole weights and parts of gradients are exchanged, in other collectives
        return self.metrics if self.run.group.nodes > 1 else METRICS

    def stop(self) -> dict[str, Any]:
        world, nodes = self.run.group.world, self.run.group.nodes
        mean = 1000 * sum(self.seconds.values()) / len(self.seconds) if self.seconds else math.nan
        values = {
            "allreduced_bytes_per_step": self.bytes,
            "communication_ms": self.milliseconds,
            "communication_percent": 100 * self.milliseconds / mean,
        }
        if nodes > 1:
            link = 2 * (world - 1) / world * self.bytes
            values["within_nodes_bytes_per_step"] = (world - nodes) * link
            values["between_nodes_bytes_per_step"] = nodes * link
        return values
