"""The machine: CPU cores, memory, limits of the container and the shell, the clock."""

from __future__ import annotations

import ctypes
import os
import resource
import tempfile
import time

from hpml_bench.doctor.check import Found, as_bytes

LEAST_MEMORY = 1.2e9
"""Free bytes that quickstart needs: it ran under a limit of 1.15 GB, and was killed under one of 1.0."""
LEAST_PROCESSES = 40
"""Processes and threads that quickstart needs; on two cores it has 20 at most."""
LEAST_OPEN_FILES = 1024
"""Open files that a run of many methods may need; the usual soft limit."""
SKEW = 2.0
"""Seconds by which the clock may differ from the file system's, whose stamps may be coarse."""
TIME_ERROR, STA_UNSYNC = 5, 0x40
"""State and status bit of a clock without a time server; adjtimex(2)."""


def processor() -> Found:
    """Say how many cores a run may use, and why not all."""
    from hpml_bench.system import cgroups, environment

    cores, all_cores, quota = environment.cores(), os.cpu_count() or 1, cgroups.cpus()
    limit = f", by the container's quota of {quota:g}" if quota is not None and quota < all_cores else ""
    limit = limit or (", by affinity or the job's share" if cores < all_cores else "")
    return Found("ok", f"{environment.processor()}, {cores} of {all_cores} cores{limit}")


def memory() -> Found:
    """Compare the free memory with the needs of quickstart."""
    import psutil

    from hpml_bench.system import cgroups

    machine, group = psutil.virtual_memory(), cgroups.memory()
    free = machine.available if group is None else min(machine.available, group.free)
    found = f"{as_bytes(free)} free of {as_bytes(machine.total)}"
    if group is not None and group.limit < machine.total:
        found = f"{as_bytes(free)} free of the container's {as_bytes(group.limit)} (machine: {as_bytes(machine.total)})"
    if free < LEAST_MEMORY:
        return Found(
            "fail", found, f"quickstart needs {as_bytes(LEAST_MEMORY)}: end other processes or raise the limit"
        )
    return Found("ok", found)


def limits() -> Found:
    """Say what the container and the shell limit beside cores and memory."""
    from hpml_bench.system import cgroups

    pids = cgroups.processes()
    files, space = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS))
    found = [
        f"{'any number of' if files == resource.RLIM_INFINITY else f'{files:,}'} open files",
        "no limit on processes" if pids is None else f"{pids.free:,} more processes of {pids.limit:,}",
    ]
    if pids is not None and pids.free < LEAST_PROCESSES:
        advice = (
            f"quickstart needs {LEAST_PROCESSES} processes and threads: docker run --pids-limit, TasksMax of systemd"
        )
        return Found("fail", ", ".join(found), advice)
    if space != resource.RLIM_INFINITY:
        found.append(f"{as_bytes(space)} of addresses")
        return Found("warn", ", ".join(found), "torch and CUDA reserve many addresses: ulimit -v unlimited")
    if files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES:
        return Found("warn", ", ".join(found), f"many ranks need more open files: ulimit -n {LEAST_OPEN_FILES}")
    return Found("ok", ", ".join(found))


def clock() -> Found:
    """Compare the clock with the file system's, and ask the kernel whether a time server sets it."""
    skew = _skew()
    if skew is not None and abs(skew) > SKEW:
        found = f"{abs(skew):.1f} s {'ahead of' if skew < 0 else 'behind'} the file system's"
        return Found("warn", found, "let both machines follow a time server")
    synchronised, error = _kernel_clock()
    if synchronised is None:
        return Found("ok", "whether a time server sets it is not known: the kernel doesn't tell")
    if synchronised:
        return Found("ok", f"set by a time server, at most {error:.3g} s off")
    advice = "jobs on several machines need equal clocks: run chronyd or ntpd on the host"
    return Found("warn", "no time server sets it, says the kernel", advice)


def _skew() -> float | None:
    """Return the file system's time less ours (s) in the working folder; None where that can't be written to."""
    try:
        with tempfile.TemporaryFile(dir=".") as file:
            before = time.time()
            file.write(b"doctor")
            file.flush()
            return os.fstat(file.fileno()).st_mtime - before
    except OSError:
        return None


class _Timex(ctypes.Structure):
    """First fields of <sys/timex.h>, and room for the others."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("others", ctypes.c_byte * 256),
    )


def _kernel_clock() -> tuple[bool | None, float]:
    """Return whether the kernel counts its clock as synchronised, and its greatest error (s); None: it doesn't tell."""
    values = _Timex()  # modes is 0: nothing is set
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(values))
    if state < 0:  # not allowed in this container
        return None, 0.0
    return state != TIME_ERROR and not values.status & STA_UNSYNC, values.maxerror / 1e6
