"""State of the machine during a measurement: the core used, a stopwatch, stolen time, other processes, throttling."""

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
"""Other processes per core, on average, that may run beside a block that counts; their share of the time is known."""
TICKS = os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Wall time, and the part of it in which the main thread could have run but others had its core.

    The kernel keeps the latter for each thread (/proc/self/schedstat, nanoseconds on the run queue). The time of this
    process's own threads is taken off, since it may have been they that had the core.
    """

    def __init__(self) -> None:
        self._began = self._now()

    def read(self) -> tuple[float, float]:
        """Return seconds and seconds waited since the start."""
        wall, waited, threads = (now - then for now, then in zip(self._now(), self._began, strict=True))
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
    # Both sides share it, so that a difference between cores is none between sides. It is the last, since the first
    # serves most interrupts.
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
    """Read the counters; zeros where the kernel doesn't give them."""
    user, nice, system, idle, iowait, irq, softirq, steal = _cpu_times()
    busy, own = user + nice + system + irq + softirq, 0.0
    for pid in (os.getpid(), *processes):
        with suppress(psutil.Error):  # it has ended
            times = psutil.Process(pid).cpu_times()
            own += times.user + times.system
    return Snapshot(time.monotonic(), busy + idle + iowait + steal, busy, steal, own, cgroups.throttled())


def _cpu_times() -> list[float]:
    """Return user, nice, system, idle, iowait, irq, softirq and steal of the cores allowed, in seconds."""
    # Others on a large host's other cores disturb nobody; a quota says nothing about other processes there. Where the
    # kernel doesn't list the cores allowed, all are summed. psutil has no core's number: it leaves out offline ones.
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
    except OSError:
        return [0.0] * 8
    names = {f"cpu{core}" for core in environment.affinity()}
    chosen = [line for line in lines if line[0] in names] or lines[:1]
    return [sum(int(line[index]) for line in chosen if index < len(line)) / TICKS for index in range(1, 9)]


def disturbance(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return a record's fields on the time between two snapshots: `steal`, `load`, and `disturbed` or None.

    That is why measurements meanwhile don't count, whatever was measured.
    """
    steal = max(0.0, after.stolen - before.stolen) / max(after.total - before.total, 1e-9)
    load = max(0.0, (after.busy - before.busy) - (after.own - before.own)) / max(after.at - before.at, 1e-9)
    reason = None
    if steal > STEAL:
        reason = f"the host took {steal:.0%} of the processor time"
    elif after.throttled > before.throttled:
        reason = "the control group's quota ran out"
    elif load > (cores := len(environment.affinity())) * CROWD:
        reason = f"{load:.1f} other processes ran on {cores} cores"
    return {"steal": round(steal, 4), "load": round(load, 3), "disturbed": reason}
