"""pip as a child process that ends with this one, even if this one is killed."""

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
"""The module is run by its path: an installed or local `hpml_bench` may be another version, which is being checked."""


def command(*arguments: str) -> list[str]:
    """Return the command that runs pip of this interpreter with these arguments.

    The child compares its parent with the number of this process, and doesn't begin if this process has ended.
    """
    return [sys.executable, "-P", "-c", _PROGRAM, str(os.getpid()), *arguments]


def run(command: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a pip command, that of `command`, with `variables` in its environment; return its status and output.

    When this process is interrupted, pip and its children end too; when it is killed, pip does. After `seconds` it is
    killed, and subprocess.TimeoutExpired raised.
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
