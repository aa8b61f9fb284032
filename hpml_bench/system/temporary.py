"""Temporary folder of this process: removed when it ends, or by the next process of this host if it was killed.

The folder may lie on a file system that several hosts share. A lock there may be visible to one host alone (on NFS and
Lustre locks on folders always are), so a host removes only folders of its own processes: a process locks a file in its
folder that is named after the host.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import current_process, util
from pathlib import Path

from hpml_bench.system import disk, processes
from hpml_bench.system.text import digest

PATTERN = ".*.tmp"
FOREIGN_SECONDS = 86_400
"""Age from which a temporary file counts as left over, whoever wrote it."""
_OWN = re.compile(r"\.(?P<place>[0-9a-f]{12})\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp$")


def beside(path: Path) -> Path:
    """Return a new name for a temporary file in a file's folder: with host, process namespace, process, random part."""
    return path.with_name(f".{path.name}.{host_id()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


@cache
def host_id() -> str:
    """Return the id of host, boot and PID namespace, in which process numbers are unique; hosts' names may be equal."""
    return digest([socket.gethostname(), processes.boot(), processes.namespace()], 12)


def left_over(path: Path) -> bool:
    """Return whether a temporary file is of an ended process with this `host_id`, or older than a day."""
    name = _OWN.search(path.name)
    if name is not None and name["place"] == host_id():
        return processes.identify(int(name["pid"])) is None
    try:
        return time.time() - path.lstat().st_mtime > FOREIGN_SECONDS
    except OSError:  # its process has renamed it meanwhile
        return False


PREFIX = "hpmlt-"
"""Short, since sockets are made in the folder, and a socket's path has at most 107 characters."""
AFTER_OTHERS = -200  # exit priority: what multiprocessing ends by itself is over then


class _Own:
    """The folder, the process that made it, and the open descriptor that holds its lock while that process lives."""

    path: Path | None = None
    pid = 0
    descriptor = -1


def folder() -> Path:
    """Return the folder, made at the first call, which also removes the folders of killed processes."""
    if _Own.path is None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        while _Own.path is None:
            _claim(Path(tempfile.mkdtemp(prefix=PREFIX)))
        # else multiprocessing makes one of its own, whose removal fails where a child just removed a socket in it
        vars(current_process())["_config"].setdefault("tempdir", str(_Own.path))
        util.Finalize(None, remove, exitpriority=AFTER_OTHERS)
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
        os.close(_Own.descriptor)  # first: NFS keeps a removed file that is open, and with it the folder
        shutil.rmtree(_Own.path, ignore_errors=True)
        _Own.path = None


def holder() -> str:
    """Return the name of the locked file in the folders of this host, in this start of its kernel."""
    return f".{digest([socket.gethostname(), processes.boot()], 12)}"


def _claim(path: Path) -> None:
    """Lock a folder just made, unless another process took it for abandoned and removed it meanwhile."""
    with suppress(OSError):
        descriptor = os.open(path / holder(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / holder()).stat()
        except OSError as error:
            os.close(descriptor)
            if error.errno in disk.NO_LOCKS:
                shutil.rmtree(path, ignore_errors=True)
                raise disk.no_locks_error(path.parent, error, "set TMPDIR to a folder on another one") from None
            return
        _Own.path, _Own.pid, _Own.descriptor = path, os.getpid(), descriptor


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's folders that no living process holds, of processes of this host."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if path.stat().st_uid != os.geteuid() or path.is_symlink():
                continue
            descriptor = os.open(path / holder(), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (path / holder()).unlink()  # while it is locked: a process about to lock it sees that it is gone
            finally:
                os.close(descriptor)
            shutil.rmtree(path, ignore_errors=True)
