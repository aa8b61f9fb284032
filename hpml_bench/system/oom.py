"""Out-of-memory kills by the kernel, counted for this process's control group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
MOUNTS = Path("/proc/self/mountinfo")
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
    with suppress(OSError):
        lines = [line.split(":", 2) for line in GROUPS.read_text().splitlines()]
        groups = {controller: group for _, controllers, group in lines for controller in controllers.split(",")}
        for line in MOUNTS.read_text().splitlines():
            mount, _, system = line.partition(" - ")
            root, place = mount.split()[3:5]
            kind, *_, options = system.split()
            controller = "" if kind == "cgroup2" else "memory" if "memory" in options.split(",") else kind
            if not kind.startswith("cgroup") or controller not in groups:
                continue
            with suppress(ValueError):  # the group is outside the mount
                folder = Path(place) / Path(groups[controller]).relative_to(root)
                if not controller:
                    yield folder / "memory.events"
                elif groups[controller] != "/":  # the root group is the whole machine
                    yield from _each(folder)


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
