"""Files kept between runs: entries that come into being as a whole, under a lock; and hashes remembered."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from hpml_bench.errors import UserError
from hpml_bench.records import digest

RACY_SECONDS = 2.0
"""A file younger than this may still change without a change of its size and time stamp."""


def cache_folder() -> Path:
    """Return where fetched and prepared files are kept: $HPML_BENCH_CACHE, or hpml-bench in the user's cache folder."""
    own = os.environ.get("HPML_BENCH_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpml-bench"


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
def new_entry(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a path beside `target` to write a cache entry to; it takes the target's place when all went well.

    Args:
        target: the file or folder to come into being as a whole.
        replace: a folder that stands there is damaged, and goes first.

    """
    _make(target.parent)
    room = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        yield room / target.name
        if replace and target.is_dir():
            shutil.rmtree(target)
        (room / target.name).replace(target)
    finally:
        shutil.rmtree(room, ignore_errors=True)


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """Hold the lock of a cache entry, so that of several ranks one builds it and the others find it."""
    _make(entry.parent)
    with FileLock(f"{entry}.lock"):
        yield


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache {folder} can't be made ({error.strerror}); set HPML_BENCH_CACHE to another folder"
        ) from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"the cache {folder} can't be written to; set HPML_BENCH_CACHE to another folder")
