"""Disk space, disk errors, and locks on files, which the kernel releases when their process ends.

On a file system without locks `filelock` would only warn and take a marker file instead, which
outlives a killed process: here that is an error.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock

from hpml_bench.system.errors import UserError

LEAST_FREE_MB = (
    32  # free space below which no run begins; its points, predictions and logs take a few MB
)
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""Errors of writes only; other errors of a disk may concern the file that is read."""
STORAGE_ERRORS = WRITE_ERRORS | {errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE}


@contextmanager
def explained(explain: Callable[[Exception], UserError | None]) -> Iterator[None]:
    """Turn the body's exceptions for which `explain` returns a user error into that; others are
    raised as they are.
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
    """Turn the errors of a full, read-only or failing disk under a results folder into user
    errors.
    """

    def explain(error: Exception) -> UserError | None:
        if not isinstance(error, OSError) or error.errno not in STORAGE_ERRORS:
            return None
        return UserError(
            f"{error.filename or folder}: {error.strerror}; the runs that are recorded are kept; "
            "when the disk can be written to again, the same command goes on from there"
        )

    return explained(explain)


def make_folder(folder: Path, what: str, advice: str) -> None:
    """Make a folder, and those that it is in; UserError on `what` if it can't be made or written
    to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{what} can't be made ({error.strerror}); {advice}") from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(f"{what} can't be written to; {advice}")


def check_space(
    folder: Path,
    what: str = "a run",
    advice: str = "free some space, then the same command goes on",
) -> None:
    free = shutil.disk_usage(folder).free / 1e6
    if free < LEAST_FREE_MB:
        raise UserError(
            f"{folder}: {free:.0f} MB are free there, and {what} needs {LEAST_FREE_MB}; {advice}"
        )


NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Errors of flock where there are no locks: on Lustre mounted without `flock`, on NFS without
its lock daemon.
"""


@contextmanager
def lock_held(path: Path, advice: str, timeout: float = -1) -> Iterator[None]:
    """Hold a lock while the body runs; filelock's Timeout if it isn't free in time, UserError
    without such locks.
    """
    lock = FileLock(path, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise no_locks_error(path.parent, error, advice) from None
    try:
        yield
    finally:
        lock.release()


def no_locks_error(folder: Path, error: OSError, advice: str) -> UserError:
    return UserError(
        f"{folder}: this file system can't lock files ({error.strerror}); {advice}, or have it "
        "mounted with locks (Lustre: -o flock)"
    )
