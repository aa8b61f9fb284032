"""State of the machine during a measurement: the core used, a stopwatch, stolen time, other
processes, throttling.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from hpml_bench.system import cgroups, environment

STEAL = 0.02  # share of the machine's time that the host may take away from a block that counts
CROWD = 1.5
"""Other processes per core, on average, that may run beside a block that counts; their share of
the time is known.
"""


class Stopwatch:
    """Wall time, and the part of it in which the main thread could have run but others had its
    core.

    The kernel keeps the latter for each thread (/proc/self/schedstat, nanoseconds on the run
    queue). The time of this process's own threads is taken off, since it may have been they that
    had the core.
    """

    def __init__(self) -> None:
        self._began = self._now()

    def read(self) -> tuple[float, float]:
        """Return seconds and seconds waited since the start."""
        wall, waited, threads = (
            now - then for now, then in zip(self._now(), self._began, strict=True)
        )
        return wall, max(0.0, waited - threads)

    def _now(self) -> tuple[float, float, float]:
        own = time.process_time() - time.thread_time()
        try:
            waited = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # a kernel without it
            waited = 0.0
        return time.perf_counter(), waited, own


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long work takes, without waiting."""
    watch = Stopwatch()
    work()
    wall, waited = watch.read()
    return wall - waited


def shared_core() -> int | None:
    """Return the core both sides are timed on, or None where a process may not choose."""
    # Both sides share it, so that a difference between cores is none between sides. It is the last,
    # since the first serves most interrupts.
    return max(environment.affinity()) if hasattr(os, "sched_getaffinity") else None


@dataclass(frozen=True)
class Snapshot:
    """Counters since the machine started, in seconds."""

    at: float
    total: float
    busy: float
    stolen: float
    own: float  # processor time of this process and the given ones, which are no others
    throttled: int  # periods in which the control group's quota ran out


def snapshot(processes: Iterable[int]) -> Snapshot:
    """Read the counters, of the cores allowed; zeros where the kernel doesn't give them."""
    # Others on a large host's other cores disturb nobody; a quota says nothing about other
    # processes there. All are summed where the kernel lists fewer cores than the numbers of those
    # allowed.
    try:
        every = psutil.cpu_times(percpu=True)
    except OSError:
        every = []
    chosen = [every[core] for core in environment.affinity() if core < len(every)] or every
    total = sum(sum(core[:8]) for core in chosen)  # the rest, of guests, is in the first
    idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in chosen)
    stolen, own = sum(getattr(core, "steal", 0.0) for core in chosen), 0.0
    for pid in (os.getpid(), *processes):
        with suppress(psutil.Error):  # it has ended
            times = psutil.Process(pid).cpu_times()
            own += times.user + times.system
    return Snapshot(
        time.monotonic(), total, total - idle - stolen, stolen, own, cgroups.throttled()
    )


def disturbance(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return a record's fields on the time between two snapshots: `steal`, `load`, and `disturbed`
    or None.

    That is why measurements meanwhile don't count, whatever was measured.
    """
    steal = max(0.0, after.stolen - before.stolen) / max(after.total - before.total, 1e-9)
    load = max(0.0, (after.busy - before.busy) - (after.own - before.own)) / max(
        after.at - before.at, 1e-9
    )
    reason = None
    if steal > STEAL:
        reason = f"the host took {steal:.0%} of the processor time"
    elif after.throttled > before.throttled:
        reason = "the control group's quota ran out"
    elif load > (cores := len(environment.affinity())) * CROWD:
        reason = f"{load:.1f} other processes ran on {cores} cores"
    return {"steal": round(steal, 4), "load": round(load, 3), "disturbed": reason}
