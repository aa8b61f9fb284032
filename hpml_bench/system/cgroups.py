"""Control groups of this process, of versions 1 and 2, wherever they are mounted: their limits
and counts of kills.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

GROUPS = Path("/proc/self/cgroup")
MOUNTS = Path("/proc/self/mountinfo")
MACHINE = Path(
    "/proc/vmstat"
)  # the kernel's count for the whole machine, used where no control group has one
T = TypeVar("T")
MEMORY = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""By version the files of limit and use, and the key of what can be reclaimed in `memory.stat`."""
UNLIMITED = 1 << 60  # bytes from which on a limit of version 1 is none


class Group(NamedTuple):
    """A mounted control group."""

    version: int
    name: str  # as in /proc/self/cgroup; `/` is the root group
    folder: Path
    mount: Path


class Budget(NamedTuple):
    """A limit and what is used of it, both in bytes or both in processes."""

    limit: int
    used: int

    @property
    def free(self) -> int:
        return max(0, self.limit - self.used)


def groups(controller: str) -> Iterator[Group]:
    """Yield this process's groups for a controller, such as `memory`: of version 2, of version
    1, or of both.
    """
    with suppress(OSError):
        lines = [line.split(":", 2) for line in GROUPS.read_text().splitlines()]
        names = {
            controller: name
            for _, controllers, name in lines
            for controller in controllers.split(",")
        }
        for line in MOUNTS.read_text().splitlines():
            mount, _, system = line.partition(" - ")
            root, place = mount.split()[3:5]
            kind, *_, options = system.split()
            version = 2 if kind == "cgroup2" else 1
            wanted = "" if version == 2 else controller
            if (
                not kind.startswith("cgroup")
                or wanted not in ["", *options.split(",")]
                or wanted not in names
            ):
                continue
            with suppress(ValueError):  # the group is outside the mount
                folder = Path(place) / Path(names[wanted]).relative_to(root)
                yield Group(version, names[wanted], folder, Path(place))


def cpus() -> float | None:
    """Return the CPU cores that the quota allows; None without one."""
    return min(_found("cpu", _quota), default=None)


def memory() -> Budget | None:
    """Return the memory of the group that has the least left (bytes), without its reclaimable
    files; None: no limit.
    """
    return min(_found("memory", _memory), key=lambda budget: budget.free, default=None)


def processes() -> Budget | None:
    """Return the processes and threads of the group that has the fewest left; None without a
    limit.
    """

    def pids(folder: Path, _: int) -> Budget:
        return Budget(*(int((folder / name).read_text()) for name in ("pids.max", "pids.current")))

    return min(_found("pids", pids), key=lambda budget: budget.free, default=None)


def throttled() -> int:
    """Return how many periods ended with a quota of cores used up, of this process's group and
    those above.
    """
    return sum(_found("cpu", lambda folder, _: _entry(folder / "cpu.stat", "nr_throttled")))


def _found(controller: str, read: Callable[[Path, int], T | None]) -> Iterator[T]:
    """Yield what `read` finds in the folders of a controller's groups, and of those that they
    are in.
    """
    for group in groups(controller):
        for folder in (group.folder, *group.folder.parents):
            with suppress(OSError, ValueError):  # the file is missing, or says "max"
                if (
                    folder.is_relative_to(group.mount)
                    and (value := read(folder, group.version)) is not None
                ):
                    yield value


def _quota(folder: Path, version: int) -> float | None:
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
    return quota / period if quota > 0 else None


def _memory(folder: Path, version: int) -> Budget | None:
    maximum, current, reclaimable = MEMORY[version]
    limit, used = (int((folder / name).read_text()) for name in (maximum, current))
    return (
        Budget(limit, used - (_entry(folder / "memory.stat", reclaimable) or 0))
        if limit < UNLIMITED
        else None
    )


def _entry(file: Path, key: str) -> int | None:
    """Return the number beside a key in a file of lines `KEY NUMBER`; None where there is none."""
    lines = file.read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key} ")), None)


def oom_kills() -> int:
    """Return how many processes of this control group, or else machine, the kernel killed for
    lack of memory.
    """
    counts: dict[tuple[int, int], int] = {}
    for path in (*_counters(), MACHINE):
        with suppress(OSError):
            status = path.stat()
            kills = _entry(path, "oom_kill")
            if kills is not None and (path != MACHINE or not counts):
                counts[status.st_dev, status.st_ino] = (
                    kills  # containers may mount one hierarchy in two places
                )
    return sum(counts.values())


def _counters() -> Iterator[Path]:
    """Yield the counters of this process's control group; of version 1 those below it too, which
    2 includes.
    """
    for group in groups("memory"):
        if group.version == 2:
            yield group.folder / "memory.events"
        elif group.name != "/":  # the root group is the whole machine
            for place, _, files in os.walk(group.folder):  # a group may be removed meanwhile
                if "memory.oom_control" in files:
                    yield Path(place) / "memory.oom_control"
