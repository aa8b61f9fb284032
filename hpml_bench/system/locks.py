"""Locks on files, which the kernel releases when their process ends; a file system without such locks is an error.

There `filelock` would only warn and take a marker file instead, which outlives a killed process.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from hpml_bench.system.errors import UserError

UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Errors of flock where there are no locks: on Lustre mounted without `flock`, on NFS without its lock daemon."""


def file_lock(path: Path | str, timeout: float = -1) -> FileLock:
    """Return a kernel lock, never filelock's marker file."""
    return FileLock(path, timeout=timeout, fallback_to_soft=False)


@contextmanager
def held(path: Path | str, advice: str) -> Iterator[None]:
    """Hold a lock while the body runs, after waiting for it; raises UserError on a file system without locks."""
    lock = file_lock(path)
    acquire(lock, advice)
    try:
        yield
    finally:
        lock.release()


def acquire(lock: FileLock, advice: str) -> None:
    """Take a lock; raises Timeout if another process holds it, UserError on a file system without locks."""
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        raise unsupported(Path(lock.lock_file).parent, error, advice) from None


def unsupported(folder: Path, error: OSError, advice: str) -> UserError:
    """Return the error to show for a folder on a file system without locks."""
    return UserError(
        f"{folder}: this file system can't lock files ({error.strerror}); {advice}, or have it mounted with locks "
        "(Lustre: -o flock)"
    )
