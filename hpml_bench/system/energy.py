"""Energy counters of the hardware: NVML on GPUs, RAPL on CPUs."""

from __future__ import annotations

import math
from pathlib import Path

from hpml_bench.system.gpus import reading

RAPL = Path("/sys/class/powercap")


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
