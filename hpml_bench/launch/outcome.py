"""Outcome of a run, found from the files and exit codes of its ranks, and its record."""

from __future__ import annotations

import signal
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.records.files import OUTCOME, read_model
from hpml_bench.records.run import Outcome, RunError, RunRecord, Status, protocol_id
from hpml_bench.system import environment, errors, processes
from hpml_bench.system.errors import lost_peer
from hpml_bench.system.redaction import redacted_error
from hpml_bench.training.request import RunRequest

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


@dataclass(frozen=True)
class ExitEvidence:
    """Evidence of a run's end besides its files."""

    failure: ChildFailedError | None = None
    """The first rank that failed, as the launcher saw it."""
    broken: RunError | None = None
    """Error that the launcher itself raised."""
    verdict: tuple[Status, RunError] | None = None
    """Status and reason where the watchdog ended it."""
    peak_mb: dict[int, float] = field(default_factory=dict)
    """Rank -> highest memory observed."""
    oom_kill: bool = False
    """Whether the kernel killed a process for lack of memory meanwhile."""
    server: int | None = None
    """Process id of the fork server at the start of the run."""

    @property
    def well(self) -> bool:
        """Whether only the ranks' outcome shows how they ended."""
        return self.failure is None and self.broken is None and self.verdict is None


def outcome(folder: Path, evidence: ExitEvidence) -> Outcome:
    """Return the outcome that the ranks wrote, or why there is none: the watchdog ended them, or they failed."""
    written = read_model(folder / OUTCOME, Outcome) if evidence.verdict is None else None
    return written or ended_as(*(evidence.verdict or cause(folder, evidence)))


def ended_as(status: Status, error: RunError) -> Outcome:
    """Return the outcome of a run whose ranks wrote none."""
    return Outcome(status=status, error=error, environment=environment.of_run())


def record(request: RunRequest, outcome: Outcome, started: str, seconds: float) -> RunRecord:
    """Return the record of a run that ended: `invalid` where a self-check failed; its error by `redacted_error`."""
    if any(not check.passed for check in outcome.checks) and outcome.status == "ok":
        outcome = outcome.model_copy(update={"status": "invalid"})
    if outcome.error is not None:
        error = RunError.model_validate(redacted_error(outcome.error.model_dump()))
        outcome = outcome.model_copy(update={"error": error})
    spec, prepared, place = request.spec, request.prepared, request.place
    return RunRecord(
        **dict(outcome),
        run_id=spec.run_id,
        spec=spec,
        protocol_id=protocol_id(spec.settings, prepared.digests),
        digests=prepared.digests,
        label_names=prepared.label_names,
        notes=prepared.notes,
        order=place.in_sweep,
        place=place.in_seed,
        declared=place.declared,
        earlier_attempts=request.earlier_attempts,
        started=started,
        seconds=seconds,
    )


def cause(folder: Path, evidence: ExitEvidence, ranks: Container[int] | None = None) -> tuple[Status, RunError]:
    """Return the first cause; errors of other ranks that follow from it don't count.

    With several nodes only the errors of `ranks`, one node's, are compared: the clocks of nodes differ. A rank's own
    error comes before that of a rank that lost a peer, in whatever order they ended. A killed rank leaves no error: it
    is the one that the launcher saw end first, since ranks that lost a peer wait a moment.
    """
    if evidence.server is not None and processes.identify(evidence.server) is None:
        return "killed", RunError(kind="ForkServer", message="the fork server was ended, and the ranks with it")
    if evidence.broken is not None:
        return "failed", evidence.broken
    if evidence.failure is None:
        error = _first_error(folder, ranks)
        return (errors.status_of(error.kind, error.message), error) if error else ("failed", no_outcome())
    rank, first = evidence.failure.get_first_failure()
    own_error = read_model(folder / f"error-rank{rank}.json", RunError)
    if own_error is None and first.exitcode < 0:
        return _killed(rank, _name(-first.exitcode), evidence)
    error = own_error if own_error and not lost_peer(own_error.message) else _first_error(folder, ranks)
    if error is not None:
        return errors.status_of(error.kind, error.message), error
    return "failed", RunError(kind="Exit", message=f"rank {rank} ended with status {first.exitcode}", rank=rank)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def _killed(rank: int, name: str, evidence: ExitEvidence) -> tuple[Status, RunError]:
    peak = evidence.peak_mb.get(rank)
    reached = "" if peak is None else f"; its memory had reached {peak:,.0f} MB"
    if evidence.oom_kill and name == "SIGKILL":
        message = f"rank {rank} was ended by the kernel for lack of memory{reached}"
        return "oom_host", RunError(kind=name, message=message, rank=rank)
    message = f"rank {rank} was ended by {name}{reached}"
    return "killed", RunError(kind=name, message=message + errors.hint(message), rank=rank)


def _first_error(folder: Path, ranks: Container[int] | None) -> RunError | None:
    """Return the error of the rank that failed first by itself; only if there is none, of one that lost a peer."""
    files = sorted(folder.glob("error-rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    readable = [error for path in files if (error := read_model(path, RunError))]
    errors = [error for error in readable if ranks is None or error.rank in ranks]
    return min(errors, key=lambda error: lost_peer(error.message), default=None)


def no_outcome() -> RunError:
    """Return the error of ranks that ended well and wrote no outcome."""
    return RunError(kind="NoOutcome", message="the ranks ended without an outcome; see their logs")
