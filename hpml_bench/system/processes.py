"""Processes of a run: found through /proc, ended, and collected, so that none is left when the run is over."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36
"""From <sys/prctl.h>."""
PF_EXITING = 4
"""From <linux/sched.h>: a flag of a process that gives back what it holds, and is no zombie yet."""
LAST_SECONDS = 5.0


class Process(NamedTuple):
    """A process that its number alone would not tell from a later one."""

    pid: int
    born: int
    """Clock ticks after boot."""


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat that follow the name, from `state`; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def identify(pid: int) -> Process | None:
    """Return the process of this number; None where there is none, or only a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else Process(pid, int(fields[19]))


def stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    fields = _stat(pid)
    return fields is not None and fields[0] in "Tt"


def peak_mb(pid: int) -> float | None:
    """Return the most memory (MB, resident) that a process held so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        return None


def fork_server() -> int | None:
    """Return the number of the process that ranks are forked from, dead or alive; None before it was started."""
    pid: int | None = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    return pid


def offspring() -> set[Process]:
    """Return all processes that descend from the fork server."""
    server = fork_server()
    found: set[Process] = set()
    todo = [] if server is None else _children(server)
    while todo:
        pid = todo.pop()
        process = identify(pid)
        if process is not None and process not in found:
            found.add(process)
            todo.extend(_children(pid))
    return found


def _children(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    found: list[int] = []
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            found.extend(int(child) for child in (path / "children").read_text().split())
    return found


def kill(processes: Iterable[Process]) -> None:
    """End processes at once; those that are gone are no matter."""
    for process in processes:
        if identify(process.pid) == process:
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)


def end_fork_server() -> None:
    """End the fork server at once, and by the kernel's hand what was forked from it; the next run has a new one.

    It is waited for: one that is still dying would be taken for running by who needs one next.
    """
    server = fork_server()
    kill(process for process in [server and identify(server)] if process)
    await_dying_server()


def await_dying_server() -> None:
    """Wait until a fork server that was killed is gone as a whole: its other threads may outlive its first one."""
    server, deadline = fork_server(), time.monotonic() + LAST_SECONDS
    while server and time.monotonic() < deadline:
        fields = _stat(server)
        if fields is None or (fields[0] not in "ZX" and not int(fields[6]) & PF_EXITING and not _killed(server)):
            return
        with suppress(ChildProcessError):
            if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
        time.sleep(0.01)


def _killed(pid: int) -> bool:
    """Whether SIGKILL is on its way to a process."""
    with suppress(OSError):
        pending = re.findall(r"^(?:Sig|Shd)Pnd:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in pending)
    return False


def sweep(processes: Iterable[Process]) -> None:
    """End what is left of a run, wait until it is gone, and collect what became our own child by its parent's death."""
    left = set(processes)
    deadline = time.monotonic() + LAST_SECONDS
    while left:
        kill(left)
        left = {process for process in left if not _gone(process)}
        if time.monotonic() > deadline:  # in uninterruptible sleep: the kernel has its SIGKILL
            return
        if left:
            time.sleep(0.01)


def _gone(process: Process) -> bool:
    """Whether a process has ended and, where it is our own child, was collected: it may die between two looks."""
    fields = _stat(process.pid)
    if fields is None or int(fields[19]) != process.born:
        return True
    if fields[0] not in "ZX":
        return False
    if int(fields[1]) != os.getpid():
        return True
    try:
        return os.waitpid(process.pid, os.WNOHANG)[0] == process.pid
    except ChildProcessError:
        return True


@contextmanager
def subreaper() -> Iterator[None]:
    """While the body runs, orphans among our descendants become our children instead of the first process's."""
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        library.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
