"""Temporary files and folder of this process: removed when it ends, or by the next one of this host
if it was killed.

They may lie on a file system that several hosts share: a file's name tells the process and the host
that wrote it, and a file in the folder tells whose that is.
"""

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

from hpml_bench.system import processes
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest

PATTERN = ".*.tmp"
FOREIGN_SECONDS = 86_400  # age from which a temporary file counts as left over, whoever wrote it
# characters of TMPDIR: a socket's path has at most 107, of which our names and multiprocessing's
# take 47
LONGEST = 60
_OWN = re.compile(r"\.(?P<place>[0-9a-f]{12})\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp$")


def beside(path: Path) -> Path:
    """Return a new name for a temporary file in a file's folder: with host, process namespace,
    process, random part.
    """
    return path.with_name(f".{path.name}.{host_id()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


@cache
def host_id() -> str:
    """Return the id of host, boot and PID namespace, in which process numbers are unique; hosts'
    names may be equal.
    """
    return digest([socket.gethostname(), processes.boot(), processes.namespace()], 12)


def remove_left(folder: Path) -> None:
    """Remove what killed processes left in a folder by such names; that of living processes
    stays, on any host.
    """
    for path in filter(left_over, folder.glob(PATTERN)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def left_over(path: Path) -> bool:
    """Return whether a file, or the newest of a folder, is of an ended process here, or older
    than a day.
    """
    if (ended := _ended(path)) is not None:
        return ended
    try:
        newest = max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
        return time.time() - newest > FOREIGN_SECONDS
    except OSError:  # its process has renamed it meanwhile
        return False


def _ended(path: Path) -> bool | None:
    """Return whether the process that named a file has ended; None where it isn't one of this
    host.
    """
    name = _OWN.search(path.name)
    if name is None or name["place"] != host_id():
        return None
    try:
        os.kill(int(name["pid"]), 0)
    except PermissionError:  # another user's, which /proc may hide
        return False
    except (ProcessLookupError, OverflowError):
        return True
    return processes.identify(int(name["pid"])) is None


# short, since sockets are made in the folder, and a socket's path has at most 107 characters
PREFIX = "hpmlt-"
AFTER_OTHERS = -200  # exit priority: what multiprocessing ends by itself is over then


class _Own:
    """The folder, and the process that made it."""

    path: Path | None = None
    pid = 0


def folder() -> Path:
    """Return the folder, made at the first call, which also removes the folders of this host's
    killed processes.
    """
    if _Own.path is None:
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):  # another user's, or removed meanwhile
                if any(map(_ended, path.glob(".owner.*"))):
                    shutil.rmtree(path, ignore_errors=True)
        _Own.path, _Own.pid = Path(tempfile.mkdtemp(prefix=PREFIX)), os.getpid()
        beside(_Own.path / "owner").touch()
        # else multiprocessing makes one of its own, whose removal fails where a child just removed
        # a socket in it
        vars(current_process())["_config"].setdefault("tempdir", str(_Own.path))
        util.Finalize(None, remove, exitpriority=AFTER_OTHERS)
    return _Own.path


@contextmanager
def as_temporary() -> Iterator[None]:
    """Put temporary files of this process, and of processes started in the body, into the
    folder.
    """
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
        _Own.path = None


def check_length() -> None:
    if len(tempfile.gettempdir()) > LONGEST:
        raise UserError(
            f"TMPDIR {tempfile.gettempdir()} is too long for a socket in it (at most {LONGEST} "
            "characters); set TMPDIR=/tmp"
        )
