"""The disk under a results folder: looked at before a run, and its errors told in one sentence."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpml_bench.errors import UserError

LEAST_FREE_MB = 32
"""Free space below which no run begins; its points, predictions and logs take a few MB."""
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM}


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Let a full, read-only or failing disk end the body in one sentence.

    Raises:
        UserError: something could not be written; what was committed before is whole.

    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        raise UserError(
            f"{error.filename or folder}: {error.strerror}; what was recorded before is kept, and the same command "
            "goes on from there when this is mended"
        ) from None


def check_space(
    folder: Path, what: str = "a run", advice: str = "free some space, then the same command goes on"
) -> None:
    """Look whether a run, or `what` else needs as much, can be written.

    Raises:
        UserError: the disk is nearly full.

    """
    free = shutil.disk_usage(folder).free / 1e6
    if free < LEAST_FREE_MB:
        raise UserError(f"{folder}: {free:.0f} MB are free there, and {what} needs {LEAST_FREE_MB}; {advice}")
