"""Temporary folder of this process: removed when it ends, or by the next process if it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import util
from pathlib import Path

from hpml_bench.system import locks

PREFIX = "hpmlb-"
"""Short, since sockets are made in the folder, and a socket's path has at most 107 characters."""
AFTER_MULTIPROCESSING = -200
"""Exit priority: multiprocessing removes its own folder, which is inside ours, at -100."""


class _Own:
    """The folder, the process that made it, and the open descriptor that holds its lock while that process lives."""

    path: Path | None = None
    pid = 0
    descriptor = -1


def folder() -> Path:
    """Return the folder, made at the first call, which also removes those that killed processes left."""
    if _Own.path is None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        while _Own.path is None:
            _claim(Path(tempfile.mkdtemp(prefix=PREFIX)))
        util.Finalize(None, remove, exitpriority=AFTER_MULTIPROCESSING)
    return _Own.path


@contextmanager
def as_temporary() -> Iterator[None]:
    """Put temporary files of this process, and of processes started in the body, into the folder."""
    own, before, variable = str(folder()), tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = own
    try:
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable


def remove() -> None:
    """Remove the folder; only the process that made it does."""
    if _Own.path is not None and _Own.pid == os.getpid():
        shutil.rmtree(_Own.path, ignore_errors=True)
        os.close(_Own.descriptor)
        _Own.path = None


def _claim(path: Path) -> None:
    """Lock a folder just made, unless another process took it for abandoned and removed it meanwhile.

    Raises:
        UserError: the file system has no locks.

    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.stat()
        except OSError as error:
            os.close(descriptor)
            if error.errno in locks.UNSUPPORTED:
                path.rmdir()
                raise locks.unsupported(path.parent, error, "set TMPDIR to a folder on another one") from None
            return
        _Own.path, _Own.pid, _Own.descriptor = path, os.getpid(), descriptor


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's folders that no living process holds."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if path.stat().st_uid != os.geteuid() or path.is_symlink():
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
