"""Guard of a program that isn't ours: runs it, and ends all that it started, however it or its parent ends.

A process of its own, `guard PARENT REPORT FOLDER COMMAND...`: where the one that waits for the program is killed, the
kernel asks the guard to end. Orphans of the program become the guard's children, whatever session they moved to.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from hpml_bench.system import processes
from hpml_bench.system.child import PR_SET_PDEATHSIG, prctl

LINGER_SECONDS = 5.0
"""Seconds within which processes that a program started may end after it."""


def main(parent: str, report: str, folder: str, *command: str) -> None:
    """Run a command in a folder until all its processes have ended, and write a report as JSON.

    That is `error`, why the program can't be started; or its `status` (negative: a signal), `seconds`, `largest_mb`
    (peak memory of its largest process), and `left` (names of the processes that it left behind).
    """
    signal.signal(signal.SIGTERM, _end)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    with processes.subreaper():
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
        names = sorted(process.name() for process in left if processes.alive(process))
        _end_all()
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
        Path(report).write_text(json.dumps(ended | {"largest_mb": largest, "left": names}))


def _children() -> list[psutil.Process]:
    """Return all descendants of this process that run; children that have ended are reaped."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return [process for process in psutil.Process().children(recursive=True) if processes.alive(process)]


def _end(*_: object) -> NoReturn:
    _end_all()
    os._exit(1)


def _end_all() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while left := _children():
        processes.terminate(left)


if __name__ == "__main__":
    main(*sys.argv[1:])
