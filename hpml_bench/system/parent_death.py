"""The kernel's signal on a parent's death: a child that asks for it never outlives its parent."""

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
