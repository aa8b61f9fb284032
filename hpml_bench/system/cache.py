"""Cache of files kept between runs: entries are written whole, under a lock; hashes of large
files are remembered.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from hpml_bench.system import disk, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import open_plain, read_bytes, remove
from hpml_bench.system.text import digest

RACY_SECONDS = (
    2.0  # a file younger than this may still change without a change of its size and time stamp
)
ELSEWHERE = "set HPML_BENCH_CACHE to a folder on another disk"
_AS_TEXT = re.compile(r"\(os error (\d+)\)")  # the errno in messages of libraries written in Rust


def cache_folder() -> Path:
    """Return the folder of fetched and prepared files: $HPML_BENCH_CACHE, or hpml-bench in the
    user's cache folder.

    Raises UserError for a user without a home folder.
    """
    own = os.environ.get("HPML_BENCH_CACHE")
    try:
        return Path(own).expanduser() if own else platformdirs.user_cache_path("hpml-bench")
    except RuntimeError as error:
        raise UserError(
            f"the cache: {error}; set HPML_BENCH_CACHE to a folder by its whole path"
        ) from None


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256; it is remembered by path, size and time stamp, since weights are
    large.
    """
    facts = path.stat()
    key = [str(path.resolve()), facts.st_size, facts.st_mtime_ns]
    memo = cache_folder() / "hashes" / digest(key[0])
    with suppress(OSError, ValueError, TypeError, RecursionError):
        *known, value = json.loads(read_bytes(memo))
        if known == key:
            return str(value)
    with open_plain(path, follow=True) as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - facts.st_mtime > RACY_SECONDS:
        with new_entry(memo, replace=True) as fresh:
            fresh.write_text(json.dumps([*key, value]))
    return value


@contextmanager
def new_entry(target: Path, *, replace: bool = False, entry: Path | None = None) -> Iterator[Path]:
    """Yield a path on the disk of `target` to write to; it is renamed to `target` if the body
    raises nothing.
    """
    # replace: remove a damaged folder of that name first; entry: the cache entry that the target is
    # a part of
    _make(target.parent)
    with new_folder((entry or target).parent) as folder:
        yield folder / target.name
        # a folder is replaced by nothing, and replaces no file
        if replace and (target.is_dir() or (folder / target.name).is_dir()):
            remove(target)
        (folder / target.name).replace(target)


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder, removed afterwards; if this process is killed, the next use of
    `parent` removes it.
    """
    _make(parent)
    folder = temporary.beside(parent / "new")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """Hold the lock of a cache entry, so that one of several ranks builds it and the others find
    it.
    """
    _make(entry.parent)
    with disk.lock_held(Path(f"{entry}.lock"), ELSEWHERE):
        yield


def disk_error(error: BaseException | None) -> UserError | None:
    """Return the error to show for an exception that the cache's disk caused; None for any
    other.
    """
    # first asked where exceptions become errors about a file: a full disk is no fault of the file
    while error is not None:
        number = (
            error.errno
            if isinstance(error, OSError)
            else next(map(int, _AS_TEXT.findall(str(error))), None)
        )
        name = getattr(error, "filename", None)
        inside = isinstance(name, str) and Path(os.path.realpath(name)).is_relative_to(
            cache_folder().resolve()
        )
        if number and (number in disk.WRITE_ERRORS or (number in disk.STORAGE_ERRORS and inside)):
            advice = "free some space there if it is full"
            if isinstance(name, str) and not inside:  # such as the folder for temporary files
                return UserError(f"{name}: {os.strerror(number)}; {advice}")
            return UserError(
                f"the cache {cache_folder()}: {os.strerror(number)}; {advice}, or {ELSEWHERE}"
            )
        error = error.__cause__ or error.__context__
    return None


def check_space() -> None:
    """Raise UserError if the cache can't be made or written to, or its disk is nearly full."""
    for folder in (
        cache_folder(),
        cache_folder() / "hashes",
    ):  # a run that finds every entry cleans them only here
        _make(folder)
    disk.check_space(
        cache_folder(), "the preparation of model and data", f"free some space, or {ELSEWHERE}"
    )


def _make(folder: Path) -> None:
    """Make a cache folder if it is missing, and remove the incomplete entries of killed
    processes.
    """
    disk.make_folder(folder, f"the cache {folder}", "set HPML_BENCH_CACHE to another folder")
    temporary.remove_left(folder)
