"""Out of memory, told apart from other ends: on the host by error or by the kernel's kill, on the GPU by error."""

from __future__ import annotations

import re
from pathlib import Path

from hpml_bench.records import RunError, Status

COUNTERS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/proc/vmstat",
)
"""Where the kernel counts its kills: of this control group (version 2, version 1), else of the machine."""
_HOST = re.compile(r"can't allocate memory|cannot allocate memory|std::bad_alloc", re.IGNORECASE)


def oom_kills() -> int:
    """Return how many processes the kernel has ended for want of memory, as far as it tells."""
    return next((kills for name in COUNTERS if (kills := _count(Path(name))) is not None), 0)


def _count(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def status_of(error: RunError) -> Status:
    """Return the status of a run that ended with this error of a rank."""
    if error.kind == "OutOfMemoryError":
        return "oom_cuda"
    if error.kind == "MemoryError" or _HOST.search(error.message):
        return "oom_host"
    return "failed"
