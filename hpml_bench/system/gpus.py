"""GPUs as NVIDIA's driver (NVML) shows them, found without torch and CUDA; any call may fail.
Energy counters.
"""

import atexit
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from hpml_bench.system.errors import UserError

MIG_ENABLED = 1
SLOWED_BY = {
    4: "power limit",
    8: "hardware",
    32: "heat",
    64: "heat, by hardware",
    128: "power brake",
}
"""Reasons for a lower clock, by NVML's bits (nvml.h, nvmlClocksThrottleReason...); idleness and
settings are none.
"""
SLOWDOWNS = {"heat": "NVML_PERF_POLICY_THERMAL", "power": "NVML_PERF_POLICY_POWER"}
"""Causes for which NVML counts the time of a lowered clock, and its names of them."""
RAPL = Path("/sys/class/powercap")  # folder of the energy counters of CPUs
MIG = "MIG-"  # prefix of the UUID of an instance of a card in MIG mode, as `GPU-` is of a card's


@cache
def nvml() -> Any:
    """Return the initialised `pynvml` module, or None on a machine without NVIDIA's driver.

    NVML is initialised at a process's first call, which takes tens of milliseconds, and is shut
    down at its end. Raises UserError without `pynvml`.
    """
    try:
        import pynvml
    except ImportError:
        raise UserError(
            "nvidia-ml-py, by which GPUs are found, is missing: pip install nvidia-ml-py"
        ) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def shut_down() -> None:
    """Shut NVML down where this process has it initialised; the next reading initialises it."""
    if nvml.cache_info().currsize == 0:
        return
    library = nvml()
    nvml.cache_clear()
    if library is not None:
        with suppress(library.NVMLError):
            library.nvmlShutdown()


atexit.register(shut_down)
# a child would share the parent's open files of the driver, and take itself for initialised
os.register_at_fork(before=shut_down)


@cache
def visible_gpus() -> tuple[dict[str, Any], ...]:
    """Return name, UUID, memory (MB), compute capability, power limit (W) and index of each GPU
    that CUDA may use.

    Unknown values are None; the index is CUDA's in the order of the bus. Of MIG instances a process
    can use only one.
    """
    found = shareable_gpus()
    return found[:1] if found and found[0]["uuid"].startswith(MIG) else found


def shareable_gpus() -> tuple[dict[str, Any], ...]:
    """Return the same for GPUs that processes can divide: the cards, else all MIG instances."""
    library = nvml()
    chosen = devices = [] if library is None else list(_devices(library))
    if (selection := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        chosen = []  # the named ones, each once, up to the first unknown name
        for name in map(str.strip, selection.split(",")):
            named = [
                gpu
                for gpu in devices
                if name and (name == str(gpu["index"]) or gpu["uuid"].startswith(name))
            ]
            if not named:
                break
            if named[0] not in chosen:
                chosen.append(named[0])
    return tuple([gpu for gpu in chosen if not gpu["uuid"].startswith(MIG)] or chosen)


def reading(uuid: str, read: Callable[[Any, Any], float]) -> float:
    """Return `read(pynvml, handle)` for a device by CUDA's UUID; NaN if it isn't reported, or of
    a card in MIG mode.
    """
    library = nvml()
    if library is None:
        return math.nan
    handle = _handle(library, uuid)  # none in MIG mode: others use the card too
    if handle is None:
        return math.nan
    try:
        return float(read(library, handle))
    except library.NVMLError:
        return math.nan


def free_bytes(uuid: str) -> float:
    """Return the bytes that a new process could take on a GPU once this process and its children
    have ended there; NaN if unknown.
    """
    return reading(uuid, _free_bytes)


def _free_bytes(library: Any, handle: Any) -> float:
    family = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    # none where NVML gives no list; in a container its numbers may be those of the host
    processes = _ask(library, "nvmlDeviceGetComputeRunningProcesses", handle) or []
    held = sum(process.usedGpuMemory or 0 for process in processes if process.pid in family)
    return float(library.nvmlDeviceGetMemoryInfo(handle).free + held)


def gpu_joules(uuid: str) -> float:
    """Return a GPU's joules since the driver was loaded; NaN without a counter (before Volta, in
    MIG mode).
    """
    return reading(
        uuid, lambda library, handle: library.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    )


def slowed_seconds(uuid: str) -> dict[str, float]:
    """Return cause -> the seconds since the driver was loaded in which it lowered a GPU's clock;
    NaN where the driver doesn't count them.
    """
    # nvml.h, nvmlViolationTime_t: the time is in nanoseconds

    def seconds(policy: str, library: Any, handle: Any) -> float:
        status = library.nvmlDeviceGetViolationStatus(handle, getattr(library, policy))
        return float(status.violationTime / 1e9)

    return {cause: reading(uuid, partial(seconds, policy)) for cause, policy in SLOWDOWNS.items()}


def clock_mhz(uuid: str) -> float:
    """Return the clock of a GPU's multiprocessors in MHz; NaN if unknown."""
    return reading(
        uuid, lambda library, handle: library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM)
    )


def rapl_joules(folder: Path = RAPL) -> float:
    """Return the joules of all CPU packages; NaN where counters are missing or readable by root
    alone.
    """
    try:
        # Packages only: a `psys` zone, where there is one, contains them.
        zones = [
            zone
            for zone in folder.glob("intel-rapl:?")
            if (zone / "name").read_text().startswith("package")
        ]
        counters = [int((zone / "energy_uj").read_text()) for zone in zones]
    except (OSError, ValueError):
        return math.nan
    return sum(counters) / 1e6 if counters else math.nan


def states() -> list[dict[str, Any]]:
    """Return clocks (MHz), what lowers them, ECC and processes of each GPU that CUDA may use;
    None for unknown ones.
    """
    library = nvml()
    if library is None:
        return []
    found = []
    for gpu in visible_gpus():
        handle = _handle(library, gpu["uuid"])
        if handle is None:
            continue
        reasons = _ask(library, "nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        ecc = _ask(library, "nvmlDeviceGetEccMode", handle)  # now, and after the next reset
        processes = _ask(library, "nvmlDeviceGetComputeRunningProcesses", handle)
        found.append(
            {
                "clock_mhz": _ask(library, "nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_SM),
                "highest_clock_mhz": _ask(
                    library, "nvmlDeviceGetMaxClockInfo", handle, library.NVML_CLOCK_SM
                ),
                "slowed_by": None
                if reasons is None
                else [why for bit, why in SLOWED_BY.items() if reasons & bit],
                "ecc": None if ecc is None else bool(ecc[0]),
                "processes": None if processes is None else len(processes),
            }
        )
    return found


def driver() -> str | None:
    library = nvml()
    return None if library is None else _ask(library, "nvmlSystemGetDriverVersion")


def unused_accelerator() -> str:
    """Return a sentence on GPUs for which the installed torch is built and on which no run
    computes; mostly empty.
    """
    build = version("torch").partition("+")[2] if find_spec("torch") else ""
    names = {"rocm": "AMD GPUs (ROCm)", "xpu": "Intel GPUs (XPU)"}
    kind = next((name for start, name in names.items() if build.startswith(start)), "")
    if (sys.platform, platform.machine()) == ("darwin", "arm64"):
        kind = "Apple GPUs (MPS)"
    return (
        f"torch is built for {kind}, which no run uses: runs are on NVIDIA GPUs, else on the CPU"
        if kind
        else ""
    )


def _ask(library: Any, call: str, *arguments: Any) -> Any:
    """Return the result of an NVML call; None where it fails (no permission, an old driver), or
    pynvml lacks it.
    """
    try:
        return getattr(library, call)(*arguments)
    except (library.NVMLError, AttributeError):
        return None


def _devices(library: Any) -> Iterator[dict[str, Any]]:
    """Yield the cards, and in place of those in MIG mode their instances."""
    index = 0
    for number in range(_ask(library, "nvmlDeviceGetCount") or 0):
        card = _ask(library, "nvmlDeviceGetHandleByIndex", number)
        if card is None:  # not ours, as in a control group of Slurm: CUDA doesn't count it
            continue
        capability = _ask(library, "nvmlDeviceGetCudaComputeCapability", card)
        instances = _instances(library, card)
        for handle in [card] if instances is None else instances:
            memory = _ask(library, "nvmlDeviceGetMemoryInfo", handle)
            limit = _ask(library, "nvmlDeviceGetEnforcedPowerLimit", handle)
            yield {
                "name": str(_ask(library, "nvmlDeviceGetName", handle) or "GPU"),
                "uuid": str(_ask(library, "nvmlDeviceGetUUID", handle) or ""),
                "memory_mb": None if memory is None else round(memory.total / 1e6),
                "capability": None if capability is None else f"{capability[0]}.{capability[1]}",
                "power_limit_w": None if limit is None else limit / 1000,
                "index": index,
            }
        index += 1


def _instances(library: Any, card: Any) -> list[Any] | None:
    """Return the handles of a card's instances; None where it is not in MIG mode."""
    modes = _ask(library, "nvmlDeviceGetMigMode", card)  # now, and after the next reset
    if modes is None or modes[0] != MIG_ENABLED:
        return None
    numbers = range(_ask(library, "nvmlDeviceGetMaxMigDeviceCount", card) or 0)
    handles = [
        _ask(library, "nvmlDeviceGetMigDeviceHandleByIndex", card, number) for number in numbers
    ]
    return [handle for handle in handles if handle is not None]


def _handle(library: Any, uuid: str) -> Any:
    """Return the handle of an instance, or of a card that is not in MIG mode; None where there
    is none.
    """
    bare = uuid.removeprefix("GPU-").removeprefix(MIG)
    instance = _ask(library, "nvmlDeviceGetHandleByUUID", MIG + bare)
    if instance is not None:
        return instance
    card = _ask(library, "nvmlDeviceGetHandleByUUID", f"GPU-{bare}")
    return card if card is not None and _instances(library, card) is None else None
