"""A fresh process group per run: start, watch, end, and say how it ended."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpml_bench import entry, environment, store
from hpml_bench.cache import check_space
from hpml_bench.errors import UserError
from hpml_bench.records import Outcome, Prepared, RunError, RunRecord, RunSpec, Settings
from hpml_bench.redaction import redact_files, redacted_error
from hpml_bench.sources import reach
from hpml_bench.supervision import ending, memory, reaper, scratch
from hpml_bench.supervision.limits import Limits
from hpml_bench.supervision.stopping import Stop, held_back, stoppable
from hpml_bench.supervision.watch import AGENT_SIGNAL, Watch

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

PRELOAD = ["hpml_bench.supervision.server", "hpml_bench.worker"]
NO_LIMITS = Limits(stall=0)
LONGEST_TMPDIR = 60
"""A socket's path has 107 characters at most, of which ours and multiprocessing's names take 47."""
STOPPED_SECONDS = 10
"""For so long a preparation, or its server, that a signal has stopped may stand still."""
SERVER_LOST = 255
"""What multiprocessing gives for the exit status of a child whose fork server has ended."""

End = Literal["over", "late", "stopped"]
"""Why the preparation is no longer waited for."""


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C, or a request to end, during a run; carries the record to keep."""

    def __init__(self, record: RunRecord | None = None) -> None:
        self.record = record


def start_fork_server() -> None:
    """Start the process that ranks are forked from; it imports torch and the libraries once for all runs.

    The environment that processes must be born with is set first. Forking from it takes 0.3-0.5 s to the first step
    where a new interpreter takes 3 s.

    Raises:
        UserError: TMPDIR is too long.

    """
    environment.set_process_environment()
    if len(tempfile.gettempdir()) > LONGEST_TMPDIR:
        raise UserError(
            f"TMPDIR {tempfile.gettempdir()} is too long for a socket in it (at most {LONGEST_TMPDIR} characters); "
            "set TMPDIR=/tmp"
        )
    multiprocessing.set_forkserver_preload(PRELOAD)
    with scratch.as_temporary():
        resource_tracker.ensure_running()  # by itself, since it unblocks signals
        with held_back(signal.SIGINT):  # until the server ignores it
            forkserver.ensure_running()


def prepare(settings: Settings, max_seconds: float | None = None) -> Prepared:
    """Prepare model and data in a process of their own: this one stays light, and that one can be ended in a download.

    Raises:
        UserError: a source can't be had, is not what the settings say, or takes longer than `max_seconds`; the cache
            can't be written to; the preparation was ended or stopped.

    """
    deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
    check_space()
    reach(settings.backbone)  # asked here, a hub that can't be reached is told while the fork server still imports
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as name:
        target = Path(name) / "prepared.json"
        end, code, result = _in_child(settings, target, deadline)
    if result is None:
        how = f"ended with status {code}; what it said stands above"
        if end == "late":
            how = (
                f"was not done after {max_seconds:g} s, when no run may begin (--max-hours); files that came whole are "
                "kept, so call it again, with more hours"
            )
        elif end == "stopped":
            how = f"was stopped by a signal, itself or its fork server, and given up after {STOPPED_SECONDS} s; "
            how += "call it again"
        elif code == SERVER_LOST:
            how = "was ended with its fork server (which may be a lack of memory); call it again"
        elif code < 0:
            how = f"was ended by signal {-code} (9 may be a lack of memory)"
        raise UserError(f"{settings.backbone}: the preparation of model and data {how}")
    if "error" in result:
        raise UserError(result["error"])
    return Prepared.model_validate(result["prepared"])


def _in_child(settings: Settings, target: Path, deadline: float) -> tuple[End, int, dict[str, Any] | None]:
    """Prepare in a child of the fork server; return why the wait for it ended, its exit status, and what it wrote.

    Whatever happens, no process that it started is left.
    """
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=entry.prepare, args=(settings.model_dump_json(), str(target)))
    family: set[reaper.Process] = set()
    waited = False
    with reaper.subreaper():
        try:
            end = _start(child, deadline, family)
            if child.pid is not None:
                end = _join(child, deadline, family)
            result = store.read_json(target)  # before the sweep, which might end pip first, and the child would say so
            waited = True
        finally:
            family |= reaper.offspring()
            if not waited:  # a signal: the child may still be asked for, so that its server ends with it
                reaper.end_fork_server()
            reaper.sweep(family)
    if child.pid is None:
        return end, SERVER_LOST, None
    child.join(1.0)
    if child.is_alive():  # it isn't, but a stopped server doesn't say so
        reaper.end_fork_server()
        child.join()
    return end, child.exitcode or 0, result


def _start(child: BaseProcess, deadline: float, family: set[reaper.Process]) -> End:
    """Start the preparation; return why the wait for the server's answer ended.

    Multiprocessing waits for it without limit: where it doesn't come, the server is ended, which ends that wait.
    """
    start_fork_server()  # does nothing where it runs; multiprocessing would start one that Ctrl-C ends with a traceback
    started = threading.Event()
    ends: list[End] = []

    def watch() -> None:
        ends.append(_wait(started.wait, deadline, family))
        if ends != ["over"]:
            reaper.end_fork_server()

    watching = threading.Thread(target=watch, name="start", daemon=True)
    watching.start()
    try:
        with scratch.as_temporary():
            child.start()
    except (EOFError, ConnectionError):  # the server has ended
        pass
    finally:
        started.set()
        watching.join()
    family |= reaper.offspring()
    return ends[0]


def _join(child: BaseProcess, deadline: float = math.inf, family: set[reaper.Process] | None = None) -> End:
    """Wait for the preparation; return why the wait ended."""

    def ended(seconds: float) -> bool:
        child.join(seconds)
        return not child.is_alive()

    return _wait(ended, deadline, set() if family is None else family)


def _wait(over: Callable[[float], bool], deadline: float, family: set[reaper.Process]) -> End:
    """Wait until it is over, the deadline has passed, or someone has stopped the fork server or what it started.

    Args:
        over: waits for so many seconds; returns whether it is over.
        deadline: of time.monotonic().
        family: to which processes that there are meanwhile are added.

    """
    looks = 0
    while looks < STOPPED_SECONDS:
        left = deadline - time.monotonic()
        if over(max(0.0, min(1.0, left))):
            return "over"
        if left <= 0:
            return "late"
        now = reaper.offspring()
        family |= now
        looks = looks + 1 if any(map(reaper.stopped, [reaper.fork_server() or 0, *(p.pid for p in now)])) else 0
    return "stopped"


def run(
    spec: RunSpec,
    prepared: Prepared,
    folder: Path,
    order: int | None = None,
    limits: Limits = NO_LIMITS,
    earlier: tuple[str, ...] = (),
) -> RunRecord:
    """Do one run in a process group of its own and commit its record; whatever happens there, this returns.

    Args:
        spec: what to run.
        prepared: model and data.
        folder: the run's own; emptied first.
        order: its place in the sweep.
        limits: when to end it.
        earlier: how earlier attempts at it ended, a sentence each.

    Raises:
        Interrupted: a signal asked for the end; the record, `interrupted` if the run was not done, is committed.
        OSError: the folder can't be written to.

    """
    store.begin(folder)
    start_fork_server()  # does nothing where it runs; a dead one must not count as this run's
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with stoppable() as stop, stop.held():
        outcome = _watched(spec, prepared, folder, limits, stop)
        redact_files(*folder.glob("rank*.log"))
        record = ending.record(spec, prepared, outcome, started, time.monotonic() - began, order)
        record = record.model_copy(
            update={
                "error": redacted_error(record.error),
                "earlier_attempts": earlier,
                "files": store.file_digests(folder),
            }
        )
        store.commit(folder, record)
    if stop.asked:  # also of a run that was done just before: nothing more may begin
        raise Interrupted(record)
    return record


def _watched(spec: RunSpec, prepared: Prepared, folder: Path, limits: Limits, stop: Stop) -> Outcome:
    """Run the ranks under watch and return how it ended."""
    failure: ChildFailedError | None = None
    broken: RunError | None = None
    server, kills = reaper.fork_server(), memory.oom_kills()
    # A fork server that dies meanwhile is started again by the launcher, with what is temporary then.
    with scratch.as_temporary(), Watch(folder, limits, stop) as watch:
        try:
            failure = _launch(spec, prepared, folder)
        except Exception as error:  # the launcher itself: the sweep goes on, and the record says why
            broken = RunError(kind=type(error).__name__, message=str(error), traceback=traceback.format_exc())
    return ending.outcome(
        folder, ending.Traces(failure, broken, watch.verdict, watch.peak_mb, memory.oom_kills() > kills, server)
    )


def _launch(spec: RunSpec, prepared: Prepared, folder: Path) -> ChildFailedError | None:
    """Run the ranks to their end; return what failed, if anything did."""
    launched = time.monotonic()
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the ranks' own words are in their logs
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from hpml_bench import rendezvous

    os.environ["OMP_NUM_THREADS"] = str(spec.settings.threads or 1)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(AGENT_SIGNAL)
    with tempfile.TemporaryDirectory(dir=scratch.folder(), ignore_cleanup_errors=True) as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=spec.settings.world_size or 1,
            run_id=uuid.uuid4().hex,  # a second launch under the same name hangs
            rdzv_backend=rendezvous.register(),
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="forkserver",
            monitor_interval=0.05,
            # One has to be named. Those that ask for the end are ours: the agent would wait 30 s for ranks that hang.
            signals_to_handle=AGENT_SIGNAL.name,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, entry.start)(
                spec.model_dump_json(), prepared.model_dump_json(), str(folder), launched
            )
        except ChildFailedError as error:
            return error
        finally:
            if main:
                signal.signal(AGENT_SIGNAL, signal.SIG_IGN if before is signal.SIG_DFL else before)
    return None
