"""Control groups whose memory is limited, made for real below this process's own."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers import skips
from hpml_bench.system import cgroups

LIMITS = ("memory.max", "memory.limit_in_bytes")
"""File of the limit, in versions 2 and 1."""


@contextmanager
def limited(size: int) -> Iterator[Path]:
    """Yield the folder of a group with so many bytes; the test is skipped where none can be
    made.
    """
    try:
        own = next(path.parent for path in cgroups._counters() if path.exists())
        group = Path(tempfile.mkdtemp(prefix="hpml-test-", dir=own))
    except (OSError, StopIteration) as error:
        skips.only_as_root(f"no control group of memory can be made here: {error}")
    try:
        limit = next((p for name in LIMITS if (p := group / name).exists()), None)
        if limit is None:
            skips.only_as_root("control groups below this one have no memory of their own")
        limit.write_text(str(size))
        yield group
    finally:
        deadline = time.monotonic() + 60
        while group.exists() and time.monotonic() < deadline:
            with suppress(OSError):  # busy, until its last process is gone
                group.rmdir()
            time.sleep(0.05)
