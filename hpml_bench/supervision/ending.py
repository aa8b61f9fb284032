"""How a run ended, told from what its ranks left behind, and the record of it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hpml_bench import environment, store
from hpml_bench.records import Outcome, Prepared, RunError, RunRecord, RunSpec, Status, protocol_id
from hpml_bench.supervision import memory, reaper

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

LOST_PEER = re.compile(r"closed by (remote )?peer|reset by peer|broken pipe|remote process exited", re.IGNORECASE)
"""What gloo and NCCL say on the ranks that are left when one is gone."""


@dataclass(frozen=True)
class Traces:
    """What is known of a run's end besides its files."""

    failure: ChildFailedError | None = None
    """The first rank that failed, as the launcher saw it."""
    broken: RunError | None = None
    """What the launcher itself raised."""
    verdict: tuple[Status, RunError] | None = None
    """Why we ended it, if we did."""
    peak_mb: dict[int, float] = field(default_factory=dict)
    """The most memory seen of each rank."""
    oom_kill: bool = False
    """Whether the kernel ended a process for want of memory meanwhile."""
    server: int | None = None
    """The fork server that the run began with."""


def outcome(folder: Path, traces: Traces) -> Outcome:
    """Return what the ranks wrote, unless we ended them; or else how they died."""
    if traces.verdict is None:
        try:
            return Outcome.model_validate_json((folder / store.OUTCOME).read_text())
        except (OSError, ValidationError):
            pass
    status, error = traces.verdict or _cause(folder, traces)
    return Outcome(status=status, error=error, environment=environment.describe())


def record(
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


def _cause(folder: Path, traces: Traces) -> tuple[Status, RunError]:
    """Return the first cause; what other ranks met afterwards, because one is gone, is none.

    A rank's own error comes before that of a lost peer, in whatever order the ranks ended. A killed rank leaves no
    error: it is known as the one that the launcher saw end first, since ranks that lost a peer wait a moment.
    """
    if traces.server is not None and reaper.identify(traces.server) is None:
        return "killed", RunError(kind="ForkServer", message="the process that ranks are forked from was ended")
    if traces.broken is not None:
        return "failed", traces.broken
    if traces.failure is None:
        error = _first_error(folder)
        return (memory.status_of(error), error) if error else ("failed", _no_outcome())
    rank, first = traces.failure.get_first_failure()
    own = _read_error(folder / f"error-rank{rank}.json")
    if own is None and first.exitcode < 0:
        return _killed(rank, _name(-first.exitcode), traces)
    error = own if own and not lost_peer(own) else _first_error(folder)
    if error is not None:
        return memory.status_of(error), error
    return "failed", RunError(kind="Exit", message=f"rank {rank} ended with status {first.exitcode}", rank=rank)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have none
        return f"signal {number}"


def _killed(rank: int, name: str, traces: Traces) -> tuple[Status, RunError]:
    peak = traces.peak_mb.get(rank)
    reached = "" if peak is None else f"; its memory had reached {peak:,.0f} MB"
    if traces.oom_kill and name == "SIGKILL":
        message = f"rank {rank} was ended by the kernel, which had run out of memory{reached}"
        return "oom_host", RunError(kind=name, message=message, rank=rank)
    return "killed", RunError(kind=name, message=f"rank {rank} was ended by {name}{reached}", rank=rank)


def lost_peer(error: RunError) -> bool:
    """Whether a rank failed only because another one was gone."""
    return LOST_PEER.search(error.message) is not None


def _first_error(folder: Path) -> RunError | None:
    """Return the error of the rank that failed first by itself; only if there is none, of one that lost a peer."""
    files = sorted(folder.glob("error-rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    return min((error for path in files if (error := _read_error(path))), key=lost_peer, default=None)


def _read_error(path: Path) -> RunError | None:
    try:
        return RunError.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None


def _no_outcome() -> RunError:
    return RunError(kind="NoOutcome", message="the ranks ended without an outcome; see their logs")
