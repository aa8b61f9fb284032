"""Energy of the training phase, by the hardware's counters: NVML on GPUs, RAPL on CPUs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hpml_bench.plugins.probe import Probe, Run
from hpml_bench.records.run import Metric
from hpml_bench.system.gpus import reading

RAPL = Path("/sys/class/powercap")

METRICS = (
    Metric(
        name="energy_joules", title="energy of training", unit="J", better="lower", over_ranks="sum", over_steps="once",
        phase="train", format=",.0f", group="energy", depends_on_machine=True,
        definition="From the first step to the last, validation included: the GPUs' own counters (NVML total energy), "
        "or the CPU packages' (RAPL, whole machine, counted once a node). Empty where the hardware doesn't say.",
    ),
)  # fmt: skip


class EnergyProbe(Probe):
    """Reads the counter before the first step and after the last."""

    of_training = True
    metrics = METRICS

    def start(self, run: Run) -> None:
        """Keep the run."""
        self.run = run
        self.before = self.joules = math.nan

    def before_training(self) -> None:
        """Read the counter."""
        self.before = self._read()

    def after_training(self) -> None:
        """Read the counter again; NaN where it has wrapped around."""
        used = self._read() - self.before
        self.joules = used if used >= 0 else math.nan

    def stop(self) -> dict[str, Any]:
        """Return the difference."""
        return {"energy_joules": self.joules}

    def _read(self) -> float:
        if self.run.group.device.type == "cuda":
            from hpml_bench.training.distributed import uuid

            return gpu_joules(uuid(self.run.group.device))
        joules = rapl_joules()
        return joules if self.run.group.first_here or math.isnan(joules) else 0.0


def gpu_joules(uuid: str) -> float:
    """Return a GPU's joules since the driver was loaded; NaN without a counter (before Volta, in MIG mode)."""
    return reading(uuid, lambda library, handle: library.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)


def rapl_joules(folder: Path = RAPL) -> float:
    """Return the joules of all CPU packages; NaN where counters are missing or readable by root alone."""
    try:
        # Packages only: a `psys` zone, where there is one, contains them.
        zones = [zone for zone in folder.glob("intel-rapl:?") if (zone / "name").read_text().startswith("package")]
        counters = [int((zone / "energy_uj").read_text()) for zone in zones]
    except (OSError, ValueError):
        return math.nan
    return sum(counters) / 1e6 if counters else math.nan
