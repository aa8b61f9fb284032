"""Energy of the training phase, by the hardware's counters: NVML on GPUs, RAPL on CPUs."""

import math
from typing import Any

from hpml_bench.plugins.probe import Probe
from hpml_bench.records.run import Metric
from hpml_bench.system.gpus import gpu_joules, rapl_joules


class EnergyProbe(Probe):
    """Reads the counter before the first step and after the last."""

    of_training = True
    metrics = (
        Metric.define(
            "energy_joules",
            "energy of training",
            "J",
            "lower",
            ",.0f",
            "From the first step to the last, validation included: the GPUs' own counters (NVML "
            "total energy), or the CPU packages' (RAPL, whole machine, counted once a node). Empty "
            "where the hardware doesn't say.",
            over_ranks="sum",
            phase="train",
            group="energy",
            depends_on_machine=True,
        ),
    )

    earlier = 0.0
    """Joules up to the checkpoint from which the run went on."""

    def before_training(self) -> None:
        self.before = self._read()

    def state(self) -> dict[str, Any]:
        return {"joules": self._used()}

    def load(self, state: dict[str, Any], step: int) -> None:
        self.earlier = state["joules"]
        self.before = self._read()  # reading the checkpoint is no part of the training

    def after_training(self) -> None:
        self.values["energy_joules"] = self._used()

    def _used(self) -> float:
        """Return the joules of the steps that count; NaN where the counter has wrapped around."""
        used = self._read() - self.before
        return self.earlier + used if used >= 0 else math.nan

    def _read(self) -> float:
        if self.run.group.device.type == "cuda":
            from hpml_bench.training.distributed import uuid

            return gpu_joules(uuid(self.run.group.device))
        joules = rapl_joules()
        return joules if self.run.group.first_here or math.isnan(joules) else 0.0
