"""Descriptors of open files that the ranks of a run need, and the limit on them."""

import resource

from hpml_bench.system import processes
from hpml_bench.system.errors import UserError

FOR_EACH_RANK = 4
"""Descriptors of the process that has most, for each rank: the parent has three (a rank's sentinel,
the pipe to it, and its connection to the store), a rank has one connection to each other one for
each of its process groups.
"""
BESIDE_RANKS = 128
"""Descriptors for all else: libraries, logs, data."""


def allow(ranks: int) -> None:
    """Raise the soft limit on open files to what a run of so many ranks needs, here and in the fork
    server, from which they inherit it; UserError where the hard limit is lower.
    """
    needed = FOR_EACH_RANK * ranks + BESIDE_RANKS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _within(needed, hard):
        raise UserError(
            f"a run of {ranks} ranks needs {needed} open files in a process, and the hard limit is "
            f"{hard}; raise it (ulimit -Hn {needed} as root, or LimitNOFILE of systemd), or give "
            f"fewer ranks by --nproc"
        )
    if not _within(needed, soft):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    server = processes.fork_server()
    if server is None or processes.identify(server) is None:
        return
    # it may have begun under a lower limit
    server_soft, server_hard = resource.prlimit(server, resource.RLIMIT_NOFILE)
    if not _within(needed, server_soft):
        resource.prlimit(server, resource.RLIMIT_NOFILE, (needed, server_hard))


def _within(needed: int, limit: int) -> bool:
    return limit == resource.RLIM_INFINITY or needed <= limit
