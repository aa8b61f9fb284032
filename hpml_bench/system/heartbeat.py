"""Heartbeats: a small file for each rank, written in place, by which the parent tells work from a hang."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

LENGTH = 128
PATTERN = "heartbeat-rank*"
STACK_SIGNAL = signal.SIGUSR1
"""The signal at which a rank that has begun writes its Python stacks to its log."""


@dataclass(frozen=True)
class Beat:
    """The last heartbeat of a rank."""

    rank: int
    pid: int
    count: int
    """Rises with every beat; compared instead of a time, so that no clock matters."""
    where: str


class _Heart:
    """This process's file; None where no parent watches, as under torchrun."""

    file: int | None = None
    count = 0


def begin(folder: Path, rank: int) -> None:
    """Write this process's heartbeats into `folder` from now on."""
    _Heart.file = os.open(folder / PATTERN.replace("*", str(rank)), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    beat("start-up")


def beat(where: str) -> None:
    """Write where this rank is, such as `training step 3`. Takes microseconds: one write to the page cache."""
    if _Heart.file is not None:
        _Heart.count += 1
        line = f"{os.getpid()}\t{_Heart.count}\t{where}"
        os.pwrite(_Heart.file, line.encode()[: LENGTH - 1].ljust(LENGTH - 1) + b"\n", 0)


def read(folder: Path) -> tuple[Beat, ...]:
    """Return the last beat of each rank that has begun, by rank."""
    found = []
    for path in folder.glob(PATTERN):
        try:
            pid, count, where = path.read_text(errors="replace").split("\t")
            found.append(Beat(int(path.name.removeprefix(PATTERN[:-1])), int(pid), int(count), where.strip()))
        except (OSError, ValueError):  # just begun, or half written
            continue
    return tuple(sorted(found, key=lambda beat: beat.rank))


def remove(folder: Path) -> None:
    """Remove the files of a run that is over."""
    for path in folder.glob(PATTERN):
        path.unlink(missing_ok=True)
