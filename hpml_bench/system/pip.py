"""pip as a child process that ends with this one, however that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from hpml_bench.system import parent_death

_PROGRAM = (
    f"import os, runpy, sys; runpy.run_path({parent_death.__file__!r})['die_with_parent'](); "
    "os.getppid() == int(sys.argv.pop(1)) or sys.exit(); runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)
"""By path: what is installed, or lies where pip is called, may be a project of the same name that is being checked."""


def command(*arguments: str) -> list[str]:
    """Return the command that runs pip of this interpreter with these arguments.

    It gets the number of this process, so that pip doesn't begin where this ended before it could ask to end with it.
    """
    return [sys.executable, "-P", "-c", _PROGRAM, str(os.getpid()), *arguments]


def run(command: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a pip command; return its status and what it printed.

    When this process is interrupted, pip and what it started end too; when it is killed, pip does.

    Args:
        command: what `command` returns, and more arguments.
        seconds: after which it is ended.
        variables: added to the environment.

    Raises:
        subprocess.TimeoutExpired: it was ended.

    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(variables or {})},
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        return status, log.read()
