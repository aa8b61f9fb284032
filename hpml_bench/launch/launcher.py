"""Launcher: a new process group for each run; its outcome, from files and exit codes of the ranks, and its record."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from hpml_bench.launch import fork_server
from hpml_bench.launch.watchdog import AGENT_SIGNAL, Watchdog
from hpml_bench.records.files import OUTCOME
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.run import Outcome, RunError, RunRecord, Status, protocol_id
from hpml_bench.system import cgroups, environment, errors, network, processes, temporary
from hpml_bench.system.errors import UserError, lost_peer
from hpml_bench.system.files import read_model
from hpml_bench.system.redaction import redacted_error
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.system.text import utc_now
from hpml_bench.training.request import RunRequest

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

RunRanks = Callable[[RunRequest, Stop], Outcome]  # runs all ranks of a run until they have ended; returns the outcome


@dataclass(frozen=True)
class Nodes:
    """The nodes of a run as its launcher on one of them knows them; by default this machine alone."""

    count: int = 1
    number: int = 0  # number of this node, from 0; it has the ranks `number * ranks` to `(number + 1) * ranks - 1`
    host: str = network.LOOPBACK  # address of the store by which the nodes meet
    port: int = 0  # 0: the store is this node's own, on a port that the kernel picks
    run_id: str = ""  # prefix of the store's keys; empty where the store serves one launch alone

    def ranks(self, world_size: int) -> range:
        each = world_size // self.count
        return range(self.number * each, (self.number + 1) * each)


ALONE = Nodes()


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C, or a request to end, during a run; carries the record to keep."""

    def __init__(self, record: RunRecord | None = None) -> None:
        self.record = record


def here(request: RunRequest, stop: Stop) -> Outcome:
    """Run all ranks on this machine; UserError if they couldn't connect, for which torch's launcher would never end."""
    if problem := network.no_loopback():
        raise UserError(f"{problem}, by which the ranks of a run meet; {network.LOOPBACK_ADVICE}")
    return outcome_of(request.folder, watched(request, stop))


def run(request: RunRequest, run_ranks: RunRanks = here) -> RunRecord:
    """Execute one run in a process group of its own and commit its record, whatever happens to the ranks.

    Raises Interrupted if a signal asked for the end, when the record, `interrupted` if the run was not done, is
    committed; OSError if the folder can't be written to; UserError as of `here`.
    """
    folder = RunFolder(request.folder)
    folder.begin()
    fork_server.start_fork_server()  # a server that died before must not count as this run's
    started, began = utc_now(), time.monotonic()
    with stoppable() as stop, stop.deferred():
        ended = run_ranks(request, stop)
        record = folder.commit(record_of(request, ended, started, time.monotonic() - began))
    if stop.requested:  # even if this run was done: no further one may begin
        raise Interrupted(record)
    return record


def watched(
    request: RunRequest, stop: Stop, nodes: Nodes = ALONE, beats: Path | None = None,
    late: Callable[[], object] = lambda: None,
) -> ExitEvidence:  # fmt: skip
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
    return ExitEvidence(failure, broken, watch.verdict, watch.peak_mb, cgroups.oom_kills() > kills, server)


def _launch(request: RunRequest, beats: Path, nodes: Nodes) -> ChildFailedError | None:
    """Run the ranks to their end; return the error of failed ranks, if any failed."""
    launched = time.monotonic()
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from hpml_bench.launch import meeting

    meeting.register()
    # Its modules print nothing, once imported, each with a level of its own: what ranks say is in their logs.
    for name in tuple(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = request.spec.settings
    os.environ["OMP_NUM_THREADS"] = str(settings.threads or 1)
    logs_folder = tempfile.TemporaryDirectory(dir=temporary.folder(), ignore_cleanup_errors=True)
    with logs_folder as logs, _only_agent_signal() as signals:
        config = LaunchConfig(
            nproc_per_node=len(nodes.ranks(settings.world_size or 1)), max_restarts=0, start_method="forkserver",
            monitor_interval=0.05, logs_specs=DefaultLogsSpecs(log_dir=logs),
            min_nodes=nodes.count, max_nodes=nodes.count, rdzv_backend=meeting.BACKEND,
            rdzv_endpoint=f"{nodes.host}:{nodes.port}", rdzv_configs={"rank": nodes.number},
            run_id=nodes.run_id or uuid.uuid4().hex,  # a second launch under the same name hangs
            **signals,
        )  # fmt: skip
        try:
            elastic_launch(config, fork_server.start_rank)(request.model_dump_json(), str(beats), launched)
        except ChildFailedError as error:
            return error
    return None


@contextmanager
def _only_agent_signal() -> Iterator[dict[str, Any]]:
    """Let the agent handle AGENT_SIGNAL alone while the body runs; yields the arguments of LaunchConfig for that."""
    # It has to handle at least one. Ctrl-C, SIGTERM and SIGHUP are handled here: the agent would wait 30 s for ranks
    # that hang.
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.launcher.api import LaunchConfig

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(AGENT_SIGNAL)
    try:
        if "signals_to_handle" in inspect.signature(LaunchConfig).parameters:
            yield {"signals_to_handle": AGENT_SIGNAL.name}
        else:  # torch 2.9 sets handlers of four signals, always: by hand what the argument does from 2.10 on
            if main:
                signal.signal(AGENT_SIGNAL, api._terminate_process_handler)
            without_handlers = SimpleNamespace(**{**vars(signal), "signal": lambda *_: None})
            with mock.patch.object(api, "signal", without_handlers):
                yield {}
    finally:
        if main:
            signal.signal(AGENT_SIGNAL, signal.SIG_IGN if before is signal.SIG_DFL else before)


@dataclass(frozen=True)
class ExitEvidence:
    """Evidence of a run's end besides its files."""

    failure: ChildFailedError | None = None  # the first rank that failed, as the launcher saw it
    broken: RunError | None = None  # error that the launcher itself raised
    verdict: tuple[Status, RunError] | None = None  # status and reason where the watchdog ended it
    peak_mb: dict[int, float] = field(default_factory=dict)  # rank -> highest memory observed
    oom_kill: bool = False  # whether the kernel killed a process for lack of memory meanwhile
    server: int | None = None  # process id of the fork server at the start of the run

    @property
    def well(self) -> bool:
        """Whether only the ranks' outcome shows how they ended."""
        return self.failure is None and self.broken is None and self.verdict is None


def outcome_of(folder: Path, evidence: ExitEvidence) -> Outcome:
    """Return the outcome that the ranks wrote, or why there is none: the watchdog ended them, or they failed."""
    written = read_model(folder / OUTCOME, Outcome) if evidence.verdict is None else None
    return written or ended_as(*(evidence.verdict or cause(folder, evidence)))


def ended_as(status: Status, error: RunError) -> Outcome:
    return Outcome(status=status, error=error, environment=environment.of_run())


def record_of(request: RunRequest, outcome: Outcome, started: str, seconds: float) -> RunRecord:
    """Return the record of a run that ended: `invalid` where a self-check failed; its error by `redacted_error`."""
    if any(not check.passed for check in outcome.checks) and outcome.status == "ok":
        outcome = outcome.model_copy(update={"status": "invalid"})
    if outcome.error is not None:
        error = RunError.model_validate(redacted_error(outcome.error.model_dump()))
        outcome = outcome.model_copy(update={"error": error})
    spec, prepared, place = request.spec, request.prepared, request.place
    return RunRecord(
        **dict(outcome), run_id=spec.run_id, spec=spec, protocol_id=protocol_id(spec.settings, prepared.digests),
        digests=prepared.digests, label_names=prepared.label_names, notes=prepared.notes, order=place.in_sweep,
        place=place.in_seed, declared=place.declared, earlier_attempts=request.earlier_attempts, started=started,
        seconds=seconds,
    )  # fmt: skip


def cause(folder: Path, evidence: ExitEvidence, ranks: Container[int] | None = None) -> tuple[Status, RunError]:
    """Return the first cause; errors of other ranks that follow from it don't count.

    With several nodes only the errors of `ranks`, one node's, are compared: the clocks of nodes differ. A rank's own
    error comes before that of a rank that lost a peer, in whatever order they ended. A killed rank leaves no error: it
    is the one that the launcher saw end first, since ranks that lost a peer wait a moment.
    """
    if evidence.server is not None and processes.identify(evidence.server) is None:
        how = " by the kernel for lack of memory" if evidence.oom_kill else ""
        ended = RunError(kind="ForkServer", message=f"the fork server was ended{how}, and the ranks with it")
        return "oom_host" if evidence.oom_kill else "killed", ended
    if evidence.broken is not None:
        return "failed", evidence.broken
    if evidence.failure is None:
        error = _first_error(folder, ranks)
        return (errors.status_of(error.kind, error.message), error) if error else ("failed", no_outcome())
    rank, first = evidence.failure.get_first_failure()
    own_error = read_model(folder / f"error-rank{rank}.json", RunError)
    if own_error is None and first.exitcode < 0:
        names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
        name, peak = names.get(-first.exitcode, f"signal {-first.exitcode}"), evidence.peak_mb.get(rank)
        out_of_memory = evidence.oom_kill and name == "SIGKILL"
        message = f"rank {rank} was ended by {'the kernel for lack of memory' if out_of_memory else name}"
        message += "" if peak is None else f"; its memory had reached {peak:,.0f} MB"
        message += "" if out_of_memory else errors.hint(message)
        return "oom_host" if out_of_memory else "killed", RunError(kind=name, message=message, rank=rank)
    error = own_error if own_error and not lost_peer(own_error.message) else _first_error(folder, ranks)
    if error is not None:
        return errors.status_of(error.kind, error.message), error
    return "failed", RunError(kind="Exit", message=f"rank {rank} ended with status {first.exitcode}", rank=rank)


def _first_error(folder: Path, ranks: Container[int] | None) -> RunError | None:
    """Return the error of the rank that failed first by itself; only if there is none, of one that lost a peer."""
    files = sorted(folder.glob("error-rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    readable = [error for path in files if (error := read_model(path, RunError))]
    errors = [error for error in readable if ranks is None or error.rank in ranks]
    return min(errors, key=lambda error: lost_peer(error.message), default=None)


def no_outcome() -> RunError:
    return RunError(kind="NoOutcome", message="the ranks ended without an outcome; see their logs")
