"""A fresh process group per run: start, watch, end, and say how it ended."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hpml_bench import entry, environment, store
from hpml_bench.errors import UserError
from hpml_bench.records import Outcome, Prepared, RunError, RunRecord, RunSpec, Settings, Status, protocol_id
from hpml_bench.sources import resolve

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

PRELOAD = ["hpml_bench.worker"]


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C, or a request to end, during a run; carries the record to keep."""

    def __init__(self, record: RunRecord | None = None) -> None:
        self.record = record


def start_fork_server() -> None:
    """Start the process that ranks are forked from; it imports torch and the libraries once for all runs.

    The environment that processes must be born with is set first. Forking from it takes 0.3-0.5 s to the first step
    where a new interpreter takes 3 s.
    """
    environment.set_process_environment()
    multiprocessing.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()


def prepare(settings: Settings) -> Prepared:
    """Prepare model and data in a process of their own, so that this one stays light.

    Raises:
        UserError: a source can't be had, or is not what the settings say.

    """
    if settings.backbone.startswith("hub:"):
        resolve(settings.backbone)  # asked here, a hub that can't be reached is told within seconds
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "prepared.json"
        context = multiprocessing.get_context("forkserver")
        child = context.Process(target=entry.prepare, args=(settings.model_dump_json(), str(target)))
        child.start()
        child.join()
        result = store.read_json(target)
    if result is None:
        raise UserError(
            f"{settings.backbone}: the preparation of model and data ended with status {child.exitcode}; what it said "
            "stands above"
        )
    if "error" in result:
        raise UserError(result["error"])
    return Prepared.model_validate(result["prepared"])


def run(spec: RunSpec, prepared: Prepared, folder: Path, order: int | None = None) -> RunRecord:
    """Do one run in a process group of its own and commit its record; whatever happens there, this returns.

    Raises:
        Interrupted: a signal asked for the end; the record, `interrupted`, is committed.

    """
    store.begin(folder)
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    interrupted = False
    failure: ChildFailedError | None = None
    launcher: RunError | None = None
    try:
        failure = _launch(spec, prepared, folder)
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:  # the launcher itself: the sweep goes on, and the record says why
        launcher = RunError(kind=type(error).__name__, message=str(error), traceback=traceback.format_exc())
    if interrupted:
        outcome = _interrupted()
    elif launcher:
        outcome = Outcome(status="failed", error=launcher, environment=environment.describe())
    else:
        outcome = _outcome(folder, failure)
    record = finish(spec, prepared, outcome, started, time.monotonic() - began, order)
    store.commit(folder, record)
    if interrupted:
        raise Interrupted(record)
    return record


def finish(
    spec: RunSpec, prepared: Prepared, outcome: Outcome, started: str, seconds: float, order: int | None = None
) -> RunRecord:
    """Return the record of a run that ended."""
    if any(not check.passed for check in outcome.checks) and outcome.status == "ok":
        outcome = outcome.model_copy(update={"status": "invalid"})
    return RunRecord(
        **dict(outcome),
        run_id=spec.run_id,
        spec=spec,
        protocol_id=protocol_id(spec.settings, prepared.digests),
        digests=prepared.digests,
        label_names=prepared.label_names,
        notes=prepared.notes,
        order=order,
        started=started,
        seconds=seconds,
    )


def _launch(spec: RunSpec, prepared: Prepared, folder: Path) -> ChildFailedError | None:
    """Run the ranks to their end; return what failed, if anything did."""
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the ranks' own words are in their logs
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=spec.settings.world_size or 1,
        run_id=uuid.uuid4().hex,  # a second launch under the same name hangs
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="forkserver",
        monitor_interval=0.05,
        # Without SIGINT: the agent would pass it on to ranks that ignore it, and wait 30 s for them to end. Ctrl-C is
        # Python's KeyboardInterrupt instead, after which it ends them by SIGTERM.
        signals_to_handle="SIGTERM,SIGHUP,SIGQUIT",
    )
    os.environ["OMP_NUM_THREADS"] = str(spec.settings.threads or 1)
    with _own_signal_handlers():
        try:
            elastic_launch(config, entry.start)(spec.model_dump_json(), prepared.model_dump_json(), str(folder))
        except ChildFailedError as error:
            return error
        except SignalException:
            raise KeyboardInterrupt from None
    return None


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Put signal handlers back that the elastic agent replaces and leaves behind."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted() -> Outcome:
    error = RunError(kind="Interrupted", message="ended by the user before it was done")
    return Outcome(status="interrupted", error=error, environment=environment.describe())


def _outcome(folder: Path, failure: ChildFailedError | None) -> Outcome:
    """Return what the ranks wrote, or else how they died."""
    try:
        return Outcome.model_validate_json((folder / store.OUTCOME).read_text())
    except (OSError, ValidationError):
        pass
    status, error = _cause(folder, failure)
    return Outcome(status=status, error=error, environment=environment.describe())


def _cause(folder: Path, failure: ChildFailedError | None) -> tuple[Status, RunError]:
    """Return the first cause: the error of the rank that failed first (others fail because it is gone)."""
    files = sorted(folder.glob("error-rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in files:
        try:
            error = RunError.model_validate_json(path.read_text())
        except (OSError, ValidationError):
            continue
        return ("oom_cuda" if error.kind == "OutOfMemoryError" else "failed"), error
    if failure is None:
        return "failed", RunError(kind="NoOutcome", message="the ranks ended without an outcome; see their logs")
    rank, first = failure.get_first_failure()
    if first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        return "killed", RunError(kind=name, message=f"rank {rank} was ended by {name}", rank=rank)
    return "failed", RunError(kind="Exit", message=f"rank {rank} ended with status {first.exitcode}", rank=rank)
