"""Processes of a run: the fork server and its descendants, ended and reaped when the run is over; a
program's guard.

`python -m hpml_bench.system.processes PARENT REPORT FOLDER COMMAND...` is the guard.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import NoReturn

import psutil

from hpml_bench.system.child import PR_SET_PDEATHSIG, prctl

PR_SET_CHILD_SUBREAPER = 36  # from <sys/prctl.h>
PF_EXITING = 4  # from <linux/sched.h>: flag of a process that is exiting and no zombie yet
LAST_SECONDS = 5.0  # seconds to wait for a killed process
LINGER_SECONDS = (
    5.0  # seconds within which processes that a guarded program started may end after it
)
ENDED = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


def identify(pid: int) -> psutil.Process | None:
    """Return the process with this number, unequal to any later one with it; None where there is
    none, or a zombie.
    """
    try:
        process = psutil.Process(pid)
        return None if process.status() in ENDED else process
    except psutil.NoSuchProcess:
        return None


def identity(pid: int) -> str | None:
    """Return machine, boot and start time of a process, unequal for any later one; None without
    one, or a zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    began = fields[19]  # clock ticks since the boot; proc(5)
    return None if identify(pid) is None else f"{home()}:{boot()}:{began}"


def is_here(identity: str) -> bool:
    """Return whether a process with this identity is, or was, one of this machine, or of this
    container on it.
    """
    # False for earlier boots of a machine without an id, which can't be distinguished from other
    # machines
    place, started, _ = identity.rsplit(":", 2)
    return place == home() and (started == boot() or not place.startswith(":"))


def home() -> str:
    """Return the identity of this machine, or container on it, which numbers processes; a reboot
    keeps it.
    """
    # a machine's first namespace always has the same number; names of hosts are not unique
    # (containers')
    return f"{_text('/etc/machine-id')}:{namespace()}"


def namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def boot() -> str:
    return _text("/proc/sys/kernel/random/boot_id")


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def alive(process: psutil.Process) -> bool:
    """Whether this very process runs, and not a later one with its number."""
    return identify(process.pid) == process


def stopped(pid: int) -> bool:
    process = identify(pid)
    with suppress(psutil.NoSuchProcess):
        return process is not None and process.status() in {
            psutil.STATUS_STOPPED,
            psutil.STATUS_TRACING_STOP,
        }
    return False


def memory_mb(pid: int | str, key: str) -> float | None:
    """Return an entry of /proc/PID/status in MB, such as its peak `VmHWM`; None where there is
    none.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(
            int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{key}:")
        )
    except (OSError, StopIteration, ValueError):
        return None


def fork_server() -> int | None:
    """Return the number of the process that ranks are forked from, dead or alive; None before it
    was started.
    """
    pid: int | None = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    return pid


def descendants() -> set[psutil.Process]:
    """Return all processes that descend from the fork server, zombies left out."""
    server = fork_server()
    try:
        children = [] if server is None else psutil.Process(server).children(recursive=True)
    except psutil.NoSuchProcess:
        return set()
    return {process for process in children if alive(process)}


def adopted(seen: Iterable[psutil.Process]) -> set[psutil.Process]:
    """Return this process's descendants in sessions that `seen` ones led: orphans, born while
    these were killed.
    """
    leaders, found = {process.pid for process in seen}, set()
    for process in psutil.Process().children(recursive=True):
        with suppress(ProcessLookupError):
            found |= {process} if os.getsid(process.pid) in leaders and alive(process) else set()
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL; processes that have ended are ignored, and later ones with the same number
    are not touched.
    """
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()


def end_fork_server() -> None:
    """Kill the fork server and its forks, and wait: multiprocessing would take a dying server
    for a running one.
    """
    server = fork_server()
    kill(process for process in [server and identify(server)] if process)
    await_dying_server()


def await_dying_server() -> None:
    """Wait until a killed fork server has ended; its other threads may outlive its main thread."""
    server, deadline = fork_server(), time.monotonic() + LAST_SECONDS
    while server and time.monotonic() < deadline:
        ended = identify(server) is None
        if not psutil.pid_exists(server) or not (ended or _ending(server)):
            return
        if ended and not hasattr(os, "waitid"):  # macOS with Python 3.12 or older
            return
        with suppress(ChildProcessError, AttributeError):
            if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
        time.sleep(0.01)


def _ending(pid: int) -> bool:
    """Whether a process is exiting, or a SIGKILL is pending for it."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        pending = re.findall(
            r"^(?:Sig|Shd)Pnd:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
        )
        killed = any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in pending)
        return killed or bool(int(fields[6]) & PF_EXITING)
    return False


def terminate(processes: Iterable[psutil.Process]) -> None:
    """Kill a run's remaining processes, wait for their end, and reap those that became our
    children as orphans.
    """
    left = set(processes)
    deadline = time.monotonic() + LAST_SECONDS
    while left:
        kill(left)
        left = {process for process in left if not _gone(process)}
        if time.monotonic() > deadline:  # in uninterruptible sleep: the SIGKILL is pending
            return
        if left:
            time.sleep(0.01)


def _gone(process: psutil.Process) -> bool:
    """Whether a process has ended and, if it is our child, was reaped; it may die between the
    two checks.
    """
    if alive(process):
        return False
    try:
        if not process.is_running() or process.ppid() != os.getpid():
            return True
        return os.waitpid(process.pid, os.WNOHANG)[0] == process.pid
    except (psutil.NoSuchProcess, ChildProcessError):
        return True


@contextmanager
def subreaper() -> Iterator[None]:
    """Adopt orphans among our descendants while the body runs, in place of init."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0)


# The guard of a program


def guard(parent: str, report: str, folder: str, *command: str) -> None:
    """Run a program that isn't ours in a folder until all its processes have ended, and write a
    report as JSON.

    Where who waits for it is killed, the kernel asks this process, which adopts the program's
    orphans, to end. Reported is `error`, why it can't be started; or `status` (negative: a signal),
    `seconds`, `largest_mb` (peak memory of its largest process), and `left` (names of the processes
    that it left behind).
    """
    signal.signal(signal.SIGTERM, _end)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    with subreaper():
        if os.getppid() != int(parent):  # it ended before the call
            return
        began = time.monotonic()
        try:
            program = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL)  # noqa: S603 - its user allowed it
        except OSError as error:
            Path(report).write_text(json.dumps({"error": str(error)}))
            return
        ended = {"status": program.wait(), "seconds": time.monotonic() - began}
        until = time.monotonic() + LINGER_SECONDS
        while (left := _children()) and time.monotonic() < until:
            time.sleep(0.05)
        names = sorted(process.name() for process in left if alive(process))
        _end_all()
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
        Path(report).write_text(json.dumps(ended | {"largest_mb": largest, "left": names}))


def _children() -> list[psutil.Process]:
    """Return all descendants of this process that run; children that have ended are reaped."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return [process for process in psutil.Process().children(recursive=True) if alive(process)]


def _end(*_: object) -> NoReturn:
    _end_all()
    os._exit(1)


def _end_all() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while left := _children():
        terminate(left)


if __name__ == "__main__":
    guard(*sys.argv[1:])
