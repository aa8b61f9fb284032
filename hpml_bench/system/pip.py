"""pip as a child process that ends with this one, however that dies."""

from __future__ import annotations

import os
import sys

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
