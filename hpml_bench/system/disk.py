"""Disk space and disk errors, told in one sentence."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hpml_bench.errors import UserError

LEAST_FREE_MB = 32
"""Free space below which no run begins; its points, predictions and logs take a few MB."""
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM}


@contextmanager
def explained(explain: Callable[[Exception], UserError | None]) -> Iterator[None]:
    """Let an exception that `explain` has a sentence for end the body in that sentence.

    Raises:
        UserError: it had one; all other exceptions are raised as they are.

    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        raise sentence from None


def errors_as_user_errors(folder: Path) -> AbstractContextManager[None]:
    """Let a full, read-only or failing disk under a results folder end the body in one sentence."""

    def explain(error: Exception) -> UserError | None:
        if not isinstance(error, OSError) or error.errno not in STORAGE_ERRORS:
            return None
        return UserError(
            f"{error.filename or folder}: {error.strerror}; what was recorded before is kept, and the same command "
            "goes on from there when this is mended"
        )

    return explained(explain)


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
