"""Heartbeats: a small file per rank, written in place, by which the parent distinguishes work
from a hang.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from hpml_bench.system.files import read_bytes

LENGTH = 128
PATTERN = "heartbeat-rank*"
STACK_SIGNAL = (
    signal.SIGUSR1
)  # the signal at which a rank that has begun writes its Python stacks to its log
SAVE_SIGNAL = signal.SIGURG
"""The signal at which a rank saves its state at the next window's end, and ends; one that has
not begun ignores it.
"""
LOOK_SECONDS = 10.0
BUSY_CPU, BUSY_BYTES = (
    0.1,
    1e6,
)  # least use by work: a tenth of a core, or bytes per second from or to disk


@dataclass(frozen=True)
class Beat:
    """The last heartbeat of a rank."""

    rank: int
    pid: int
    count: int  # rises with every beat; compared instead of a time, so that no clock matters
    where: str
    at: float  # time of the file's last change, in seconds since 1970


class _Heart:
    """This process's file; None where no parent watches, as under torchrun."""

    file: int | None = None
    count = 0
    where = ""


def begin(folder: Path, rank: int) -> None:
    _Heart.file = os.open(
        folder / PATTERN.replace("*", str(rank)), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644
    )
    beat("start-up")


def beat(where: str) -> None:
    """Write this rank's current work, such as `training step 3`. Takes microseconds: one write
    to the page cache.
    """
    if _Heart.file is not None:
        _Heart.count += 1
        _Heart.where = where
        line = f"{os.getpid()}\t{_Heart.count}\t{where}"
        os.pwrite(_Heart.file, line.encode()[: LENGTH - 1].ljust(LENGTH - 1) + b"\n", 0)


@contextmanager
def busy(every: float = LOOK_SECONDS) -> Iterator[None]:
    """Repeat the last beat during a long body, such as a model's loading, while this process
    computes or reads.
    """
    over = threading.Event()

    def look() -> None:
        before = _work()
        while not over.wait(every):
            now = _work()
            if now[0] - before[0] > BUSY_CPU * every or now[1] - before[1] > BUSY_BYTES * every:
                beat(_Heart.where)
            before = now

    thread = threading.Thread(target=look, name="busy", daemon=True)
    if _Heart.file is not None:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()


def _work() -> tuple[float, int]:
    """Return the CPU seconds and the disk bytes that this process has used; 0 bytes if the
    kernel has no count.
    """
    moved = 0
    with suppress(
        psutil.Error, OSError, AttributeError, RuntimeError, ValueError
    ):  # the latter: an empty file
        counters = psutil.Process().io_counters()
        moved = counters.read_bytes + counters.write_bytes
    return time.process_time(), moved


def read(folder: Path) -> tuple[Beat, ...]:
    """Return the last beat of each rank, by rank; ranks whose file isn't written yet are left
    out.
    """
    found = []
    for path in folder.glob(PATTERN):
        try:
            pid, count, where = read_bytes(path).decode(errors="replace").split("\t")
            rank, at = int(path.name.removeprefix(PATTERN[:-1])), path.stat().st_mtime
            found.append(Beat(rank, int(pid), int(count), where.strip(), at))
        except (OSError, ValueError):  # just begun, or half written
            continue
    return tuple(sorted(found, key=lambda beat: beat.rank))


def remove(folder: Path) -> None:
    for path in folder.glob(PATTERN):
        path.unlink(missing_ok=True)
