"""Launcher: a new process group for each run, started, watched, ended and recorded."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.launch import entry, fork_server, outcome
from hpml_bench.launch.nodes import ALONE, Nodes
from hpml_bench.launch.watchdog import Watchdog
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.run import Outcome, RunError, RunRecord
from hpml_bench.system import cgroups, network, processes, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.system.text import utc_now
from hpml_bench.training.request import RunRequest

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

RunRanks = Callable[[RunRequest, Stop], Outcome]
"""Runs all ranks of a run until they have ended; returns the outcome."""


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C, or a request to end, during a run; carries the record to keep."""

    def __init__(self, record: RunRecord | None = None) -> None:
        self.record = record


def here(request: RunRequest, stop: Stop) -> Outcome:
    """Run all ranks on this machine.

    Raises:
        UserError: they couldn't connect to each other, for which torch's launcher would wait without end.

    """
    if problem := network.no_loopback():
        raise UserError(f"{problem}, by which the ranks of a run meet; {network.LOOPBACK_ADVICE}")
    return outcome.outcome(request.folder, watched(request, stop))


def run(request: RunRequest, run_ranks: RunRanks = here) -> RunRecord:
    """Execute one run in a process group of its own and commit its record, whatever happens to the ranks.

    `run_ranks` runs them, on this machine or over several nodes. Raises Interrupted if a signal asked for the end, when
    the record, `interrupted` if the run was not done, is committed; OSError if the folder can't be written to;
    UserError as of `here`.
    """
    folder = RunFolder(request.folder)
    folder.begin()
    fork_server.start_fork_server()  # a server that died before must not count as this run's
    started, began = utc_now(), time.monotonic()
    with stoppable() as stop, stop.deferred():
        ended = run_ranks(request, stop)
        record = folder.commit(outcome.record(request, ended, started, time.monotonic() - began))
    if stop.requested:  # even if this run was done: no further one may begin
        raise Interrupted(record)
    return record


def watched(
    request: RunRequest,
    stop: Stop,
    nodes: Nodes = ALONE,
    beats: Path | None = None,
    late: Callable[[], object] = lambda: None,
) -> outcome.ExitEvidence:
    """Run this node's ranks under a watchdog, which gets `beats` and `late`, and return the evidence of their end."""
    beats = beats or request.folder
    failure: ChildFailedError | None = None
    broken: RunError | None = None
    server, kills = processes.fork_server(), cgroups.oom_kills()
    # A fork server that dies meanwhile is started again by the launcher; its temporary files belong here too.
    with temporary.as_temporary(), Watchdog(request.folder, request.limits, stop, beats, late) as watch:
        try:
            failure = _launch(request, beats, nodes)
        except Exception as error:  # raised by the launcher itself: the sweep goes on, and the record says why
            broken = RunError(kind=type(error).__name__, message=str(error), traceback=traceback.format_exc())
    return outcome.ExitEvidence(failure, broken, watch.verdict, watch.peak_mb, cgroups.oom_kills() > kills, server)


def _silence() -> None:
    """Let torch's launcher print nothing, once it is imported: what ranks say is in their logs.

    Each of its modules may have a level of its own, and torch sets levels anew when it is imported.
    """
    for name in tuple(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _launch(request: RunRequest, beats: Path, nodes: Nodes) -> ChildFailedError | None:
    """Run the ranks to their end; return the error of failed ranks, if any failed."""
    launched = time.monotonic()
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from hpml_bench.launch import rendezvous
    from hpml_bench.launch.agent_signal import only_agent_signal

    _silence()
    settings = request.spec.settings
    os.environ["OMP_NUM_THREADS"] = str(settings.threads or 1)
    logs_folder = tempfile.TemporaryDirectory(dir=temporary.folder(), ignore_cleanup_errors=True)
    with logs_folder as logs, only_agent_signal() as signals:
        config = LaunchConfig(
            nproc_per_node=len(nodes.ranks(settings.world_size or 1)),
            max_restarts=0,
            start_method="forkserver",
            monitor_interval=0.05,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            **rendezvous.arguments(nodes),
            **signals,
        )
        try:
            elastic_launch(config, entry.start)(request.model_dump_json(), str(beats), launched)
        except ChildFailedError as error:
            return error
    return None
