"""Out-of-memory kills by the kernel, counted for this process's control group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hpml_bench.system import cgroups

MACHINE = Path("/proc/vmstat")
"""The kernel's count for the whole machine, used where no control group has one."""


def oom_kills() -> int:
    """Return how many processes of this control group, or else machine, the kernel killed for lack of memory."""
    files = {}
    for path in _counters():
        with suppress(OSError):
            status = path.stat()
            files[status.st_dev, status.st_ino] = path  # containers may mount one hierarchy in two places
    counted = [kills for path in files.values() if (kills := _count(path)) is not None]
    return sum(counted) if counted else _count(MACHINE) or 0


def _counters() -> Iterator[Path]:
    """Yield the counters of this process's control group, wherever it is mounted.

    In version 2 a group's count includes groups below it; in version 1 it doesn't, so that each of them is read.
    """
    for group in cgroups.groups("memory"):
        if group.version == 2:
            yield group.folder / "memory.events"
        elif group.name != "/":  # the root group is the whole machine
            yield from _each(group.folder)


def _each(folder: Path) -> Iterator[Path]:
    """Yield the counters of a group of version 1 and of those below it; a group may be removed meanwhile."""
    for place, _, files in os.walk(folder, onerror=None):
        if "memory.oom_control" in files:
            yield Path(place) / "memory.oom_control"


def _count(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
