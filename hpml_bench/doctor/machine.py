"""The machine: CPU cores, memory, limits of the container and the shell, the clock; its folders
and their disks.
"""

import fcntl
import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hpml_bench.system import temporary
from hpml_bench.system.checklist import CheckResult

State = Literal["ok", "warn", "fail"]
"""ok: works; warn: something may be missing or go wrong here; fail: the suite quickstart can't
run here.
"""
Result = CheckResult[State]
Check = Callable[[], Result]
"""A check; its name is the function's. A UserError that it raises says why quickstart can't run."""

LEAST_MEMORY = 1.2e9
"""Free bytes that quickstart needs: it ran under a limit of 1.15 GB, and was killed under one of
1.0.
"""
LEAST_PROCESSES = 40  # processes and threads that quickstart needs; on two cores it has 20 at most
LEAST_OPEN_FILES = 1024  # open files that a run of many methods may need; the usual soft limit
SKEW = (
    2.0  # seconds by which the clock may differ from the file system's, whose stamps may be coarse
)
RESULTS = Path("reports/quickstart")  # folder that `run-all` writes to
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
# bytes of shared memory that are enough for ranks on several GPUs; Docker's default is 64 MB
ENOUGH_SHARED = 1e9
LITTLE = 1e9  # free bytes below which most models don't fit on a disk


def refused(error: Exception, state: State = "fail") -> Result:
    finding, _, advice = str(error).partition("; ")
    return Result(state, finding, advice)


def as_bytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"


def processor() -> Result:
    """Say how many cores a run may use, and why not all."""
    from hpml_bench.system import cgroups, environment

    cores, all_cores, quota = environment.cores(), os.cpu_count() or 1, cgroups.cpus()
    limit = (
        f", by the container's quota of {quota:g}"
        if quota is not None and quota < all_cores
        else ""
    )
    limit = limit or (", by affinity or the job's share" if cores < all_cores else "")
    return Result("ok", f"{environment.processor()}, {cores} of {all_cores} cores{limit}")


def memory() -> Result:
    import psutil

    from hpml_bench.system import cgroups

    machine, group = psutil.virtual_memory(), cgroups.memory()
    free = machine.available if group is None else min(machine.available, group.free)
    found = f"{as_bytes(free)} free of {as_bytes(machine.total)}"
    if group is not None and group.limit < machine.total:
        found = (
            f"{as_bytes(free)} free of the container's {as_bytes(group.limit)} (machine: "
            f"{as_bytes(machine.total)})"
        )
    if free < LEAST_MEMORY:
        advice = (
            f"quickstart needs {as_bytes(LEAST_MEMORY)}: end other processes or raise the limit"
        )
        return Result("fail", found, advice)
    return Result("ok", found)


def limits() -> Result:
    from hpml_bench.system import cgroups

    pids = cgroups.processes()
    files, space = (
        resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)
    )
    found = f"{'any number of' if files == resource.RLIM_INFINITY else f'{files:,}'} open files, "
    found += (
        "no limit on processes"
        if pids is None
        else f"{pids.free:,} more processes of {pids.limit:,}"
    )
    if pids is not None and pids.free < LEAST_PROCESSES:
        needed = f"quickstart needs {LEAST_PROCESSES} processes and threads"
        return Result("fail", found, f"{needed}: docker run --pids-limit, TasksMax of systemd")
    if space != resource.RLIM_INFINITY:
        advice = "torch and CUDA reserve many addresses: ulimit -v unlimited"
        return Result("warn", f"{found}, {as_bytes(space)} of addresses", advice)
    if files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES:
        return Result(
            "warn", found, f"many ranks need more open files: ulimit -n {LEAST_OPEN_FILES}"
        )
    return Result("ok", found)


def clock() -> Result:
    try:
        with tempfile.TemporaryFile(dir=".") as file:
            before = time.time()
            file.write(b"doctor")
            file.flush()
            skew = os.fstat(file.fileno()).st_mtime - before
    except OSError:
        return Result("ok", "not compared: this folder can't be written to")
    if abs(skew) > SKEW:
        found = f"{abs(skew):.1f} s {'ahead of' if skew < 0 else 'behind'} the file system's"
        return Result("warn", found, "let both machines follow a time server")
    return Result("ok", "agrees with the file system's")


def results_folder() -> Result:
    return _tried(RESULTS, "work in another folder, or give run-all another --out")


def temporary_folder() -> Result:
    """Try the folder of temporary files, in which locks and sockets are made."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        return Result(
            "fail", "no folder for temporary files can be written to", "set TMPDIR to one that can"
        )
    temporary.check_length()
    found = _tried(Path(folder), "set TMPDIR to another folder")
    try:
        with tempfile.TemporaryDirectory() as inner, socket.socket(socket.AF_UNIX) as own:
            own.bind(f"{inner}/socket")
    except OSError as error:
        return Result(
            "fail",
            f"{folder} can't hold sockets ({error.strerror})",
            "set TMPDIR to another folder",
        )
    named = os.environ.get("TMPDIR")
    if named and found.state == "ok" and os.path.realpath(named) != os.path.realpath(folder):
        return Result(
            "warn",
            f"TMPDIR {named} can't be written to; {folder} is used",
            "set TMPDIR to another folder",
        )
    return found


def cache() -> Result:
    from hpml_bench.system.cache import cache_folder

    return _tried(cache_folder(), "set HPML_BENCH_CACHE to another folder")


def hub_cache() -> Result:
    from huggingface_hub import constants

    return _of_library(Path(constants.HF_HUB_CACHE), "HF_HUB_CACHE or HF_HOME")


def datasets_cache() -> Result:
    """Try the cache of the library datasets, of which quickstart needs nothing."""
    from huggingface_hub import constants

    folder = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
    return _of_library(Path(os.path.expanduser(folder)), "HF_DATASETS_CACHE or HF_HOME")  # noqa: PTH111 - never raises


def shared_memory() -> Result:
    """Look at the shared memory, through which ranks on several GPUs exchange data."""
    from hpml_bench.system.gpus import visible_gpus

    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    found = f"{SHARED_MEMORY}: {as_bytes(free)} free"
    if free < ENOUGH_SHARED and len(visible_gpus()) > 1:
        return Result(
            "warn", found, "several GPUs need more: docker run --shm-size=8g, or --ipc=host"
        )
    return Result("ok", found)


def _of_library(folder: Path, variables: str) -> Result:
    from hpml_bench.system.errors import UserError

    if folder.parts[:1] == (
        "~",
    ):  # the libraries would make a folder of this name in the working folder
        return Result(
            "warn", f"{folder}: this user has no home folder", f"set {variables} to a folder"
        )
    try:
        return _tried(folder, f"set {variables} to another folder; quickstart needs none")
    except UserError as error:
        return refused(error, "warn")


def _tried(folder: Path, advice: str) -> Result:
    """Write and lock a file in a folder, or where it would be made; a UserError where it can't,
    or has no room.
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
        return Result("warn", found, f"most models need more: free some space, or {advice}")
    return Result("ok", found)
