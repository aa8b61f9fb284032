"""Where child processes begin. The parent hands these over by name, so that it need not import what they import."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends, however that dies."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        raise SystemExit("the parent has ended")


def prepare(settings_json: str, target: str) -> None:
    """Begin `worker.prepare_to`."""
    from hpml_bench import worker

    worker.prepare_to(settings_json, target)


def start(spec_json: str, prepared_json: str, folder: str, launched: float) -> None:
    """Begin `worker.start` in a rank."""
    from hpml_bench import worker

    die_with_parent()  # torch's launcher has asked for SIGINT in its place, which ranks don't heed
    worker.start(spec_json, prepared_json, folder, launched)
