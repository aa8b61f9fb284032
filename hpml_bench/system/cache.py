"""Files kept between runs: entries that come into being as a whole, under a lock; and hashes remembered."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
from filelock import FileLock

from hpml_bench.errors import UserError
from hpml_bench.system import disk
from hpml_bench.system.hashing import digest

RACY_SECONDS = 2.0
"""A file younger than this may still change without a change of its size and time stamp."""
NEW = ".new-"
"""How folders begin whose content is not whole yet."""
FOREIGN_SECONDS = 86_400
"""For so long such a folder without a lock is left alone."""
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""What only writes meet; a disk's other errors may be those of the file that is read."""
ELSEWHERE = "set HPML_BENCH_CACHE to a folder on another disk"
_AS_TEXT = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust tell errno."""


def cache_folder() -> Path:
    """Return where fetched and prepared files are kept: $HPML_BENCH_CACHE, or hpml-bench in the user's cache folder."""
    own = os.environ.get("HPML_BENCH_CACHE")
    return Path(own).expanduser() if own else platformdirs.user_cache_path("hpml-bench")


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256; remembered by path, size and time stamp, since weights are large."""
    facts = path.stat()
    key = [str(path.resolve()), facts.st_size, facts.st_mtime_ns]
    memo = cache_folder() / "hashes" / digest(key[0])
    try:
        *known, value = json.loads(memo.read_text())
        if known == key:
            return str(value)
    except (OSError, ValueError, TypeError):
        pass
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - facts.st_mtime > RACY_SECONDS:
        with new_entry(memo, replace=True) as fresh:
            fresh.write_text(json.dumps([*key, value]))
    return value


@contextmanager
def new_entry(target: Path, *, replace: bool = False, entry: Path | None = None) -> Iterator[Path]:
    """Yield a path on the disk of `target` to write to; it takes the target's place when all went well.

    Args:
        target: the file or folder to come into being as a whole.
        replace: a folder that stands there is damaged, and goes first.
        entry: the cache entry that the target is a part of, where it is not one itself.

    """
    _make(target.parent)
    with new_folder((entry or target).parent) as room:
        yield room / target.name
        if replace and target.is_dir():
            shutil.rmtree(target)
        (room / target.name).replace(target)


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """Yield a folder that goes afterwards; where this process is killed, with the next use of `parent`."""
    _make(parent)
    folder = parent / f"{NEW}{uuid.uuid4().hex[:12]}"
    with FileLock(f"{folder}.lock"):  # there before the folder and after it: one without a held lock is abandoned
        try:
            folder.mkdir()
            yield folder
        finally:
            _remove(folder)


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """Hold the lock of a cache entry, so that of several ranks one builds it and the others find it."""
    _make(entry.parent)
    with FileLock(f"{entry}.lock"):
        yield


def disk_error(error: BaseException | None) -> UserError | None:
    """Return the sentence for an exception behind which the cache's disk stands; None for any other.

    Who wraps exceptions asks here first, or a full disk would be a fault of the file that is read.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else next(map(int, _AS_TEXT.findall(str(error))), None)
        name = getattr(error, "filename", None)
        inside = isinstance(name, str) and Path(os.path.realpath(name)).is_relative_to(cache_folder().resolve())
        if number and (number in WRITE_ERRORS or (number in disk.STORAGE_ERRORS and inside)):
            advice = "free some space there if it is full"
            if isinstance(name, str) and not inside:  # as in the folder for temporary files
                return UserError(f"{name}: {os.strerror(number)}; {advice}")
            return UserError(f"the cache {cache_folder()}: {os.strerror(number)}; {advice}, or {ELSEWHERE}")
        error = error.__cause__ or error.__context__
    return None


def check_space() -> None:
    """Look whether anything can be written to the cache.

    Raises:
        UserError: it can't be made or written to, or its disk is nearly full.

    """
    for folder in (cache_folder(), cache_folder() / "hashes"):  # what is found there is not made anew, nor cleaned then
        _make(folder)
    disk.check_space(cache_folder(), "the preparation of model and data", f"free some space, or {ELSEWHERE}")


def _make(folder: Path) -> None:
    """Make a folder of the cache if it isn't there, and remove what killed processes left in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache {folder} can't be made ({error.strerror}); set HPML_BENCH_CACHE to another folder"
        ) from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"the cache {folder} can't be written to; set HPML_BENCH_CACHE to another folder")
    for abandoned in {path.with_suffix("") for path in folder.glob(f"{NEW}*")}:
        with suppress(OSError):
            foreign = not Path(f"{abandoned}.lock").exists()  # of a version that held no lock, and may be at work on it
            if foreign and time.time() - abandoned.stat().st_mtime < FOREIGN_SECONDS:
                continue
            with FileLock(f"{abandoned}.lock", timeout=0):  # of a living process: a TimeoutError
                _remove(abandoned)


def _remove(folder: Path) -> None:
    """Remove a folder that is not whole, and its lock, which is held."""
    shutil.rmtree(folder, ignore_errors=True)
    Path(f"{folder}.lock").unlink(missing_ok=True)
