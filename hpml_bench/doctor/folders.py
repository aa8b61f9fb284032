"""Folders: whether they can be written to and locked, the space on their disks, the size of caches."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from hpml_bench.doctor.check import Found, as_bytes, refused

RESULTS = Path("reports/quickstart")
"""Folder that `run-all` writes to."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
ENOUGH_SHARED = 1e9
"""Bytes of shared memory that are enough for ranks on several GPUs; Docker's default is 64 MB."""
LITTLE = 1e9
"""Free bytes below which most models don't fit on a disk."""
SIZE_SECONDS = 1.0
"""Time limit of adding up a cache's files."""


def results_folder() -> Found:
    """Try the folder of quickstart's results."""
    return _tried(RESULTS, "work in another folder, or give run-all another --out")


def temporary_folder() -> Found:
    """Try the folder of temporary files, in which locks and sockets are made."""
    from hpml_bench.launch.fork_server import check_tmpdir

    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        return Found("fail", "no folder for temporary files can be written to", "set TMPDIR to one that can")
    check_tmpdir()
    found = _tried(Path(folder), "set TMPDIR to another folder")
    try:
        with tempfile.TemporaryDirectory() as inner, socket.socket(socket.AF_UNIX) as own:
            own.bind(f"{inner}/socket")
    except OSError as error:
        return Found("fail", f"{folder} can't hold sockets ({error.strerror})", "set TMPDIR to another folder")
    named = os.environ.get("TMPDIR")
    if named and found.state == "ok" and os.path.realpath(named) != os.path.realpath(folder):
        return Found("warn", f"TMPDIR {named} can't be written to; {folder} is used", "set TMPDIR to another folder")
    return found


def cache() -> Found:
    """Try our own cache, without which nothing can be prepared."""
    from hpml_bench.system.cache import cache_folder

    return _with_size(_tried(cache_folder(), "set HPML_BENCH_CACHE to another folder"), cache_folder())


def hub_cache() -> Found:
    """Try the hub's cache, of which quickstart needs nothing."""
    from huggingface_hub import constants

    return _of_library(Path(constants.HF_HUB_CACHE), "HF_HUB_CACHE or HF_HOME")


def datasets_cache() -> Found:
    """Try the cache of the library datasets, of which quickstart needs nothing."""
    from huggingface_hub import constants

    folder = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
    return _of_library(Path(os.path.expanduser(folder)), "HF_DATASETS_CACHE or HF_HOME")  # noqa: PTH111 - never raises


def shared_memory() -> Found:
    """Look at the shared memory, through which ranks on several GPUs exchange data."""
    from hpml_bench.system.gpus import visible_gpus

    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    found = f"{SHARED_MEMORY}: {as_bytes(free)} free"
    if free < ENOUGH_SHARED and len(visible_gpus()) > 1:
        return Found("warn", found, "several GPUs need more: docker run --shm-size=8g, or --ipc=host")
    return Found("ok", found)


def _of_library(folder: Path, variables: str) -> Found:
    from hpml_bench.system.errors import UserError

    if folder.parts[:1] == ("~",):  # the libraries would make a folder of this name in the working folder
        return Found("warn", f"{folder}: this user has no home folder", f"set {variables} to a folder")
    try:
        return _with_size(_tried(folder, f"set {variables} to another folder; quickstart needs none"), folder)
    except UserError as error:
        return refused(error, "warn")


def _tried(folder: Path, advice: str) -> Found:
    """Write and lock a file in a folder, or where the folder would be made; the file is gone afterwards.

    Raises:
        UserError: it can't be written or locked, or the disk has no room for a run.

    """
    from hpml_bench.system import disk
    from hpml_bench.system.errors import UserError

    try:
        folder = folder.absolute()
        place = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"doctor")
            file.flush()
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in disk.NO_LOCKS:
            raise disk.no_locks_error(folder, error, advice) from None
        raise UserError(f"{folder} can't be written to ({error.strerror}); {advice}") from None
    disk.check_space(place, advice=f"free some space, or {advice}")
    free = shutil.disk_usage(place).free
    found = f"{folder}: writable, {as_bytes(free)} free"
    if free < LITTLE:
        return Found("warn", found, f"most models need more: free some space, or {advice}")
    return Found("ok", found)


def _with_size(found: Found, folder: Path) -> Found:
    """Return a finding with the size of the folder's files, of some of them where adding up takes too long."""
    deadline, total, least = time.monotonic() + SIZE_SECONDS, 0, ""
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                total += os.lstat(f"{place}/{name}").st_size
        if time.monotonic() > deadline:
            least = "more than "
            break
    return Found(found.state, f"{found.finding}, {least}{as_bytes(total)} in it", found.advice)
