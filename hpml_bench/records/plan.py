"""Plan of runs: their order, which of them remain, and the limits under which they are done."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from hpml_bench.records.run import FAILED, FINAL, RunRecord, Status, protocol_id
from hpml_bench.suite.settings import Digests, RunSpec

STALL_SECONDS = 300.0
RETRIED: frozenset[Status] = frozenset({"failed", "killed", "timeout", "oom_host", "oom_cuda"})
"""The states after which another attempt may succeed; a run that diverged would diverge again."""


@dataclass(frozen=True)
class Limits:
    """Limits of a sweep. They are not part of the protocol: runs under other limits can be
    compared.

    Each field is an option of `run-all`, `run`, `tune` and `score` (`limited` in cli/options.py).
    Jobs get all of them with their plan; those of a whole call, which a job can't keep, are refused
    with jobs (cli/conflicts.py).
    """

    # seconds without progress on any rank after which a run is ended; 0 for no such limit
    stall: float = STALL_SECONDS
    run_timeout: float | None = None  # seconds after which a run is ended
    retries: int = 0  # further attempts at a run that ended in one of `RETRIED`
    max_hours: float | None = (
        None  # hours after which no run begins; model and data must be prepared by then
    )
    fail_fast: bool = False  # whether a sweep ends with the first run that did not end well
    checkpoint_minutes: float = 15.0
    """Minutes of training after which a run's state is saved, from which it goes on after a
    failure; 0 for never.
    """
    checkpoint_steps: int | None = None  # steps after which it is saved instead

    @property
    def checkpoints(self) -> bool:
        return self.checkpoint_minutes > 0 or self.checkpoint_steps is not None

    @property
    def max_seconds(self) -> float | None:
        return None if self.max_hours is None else self.max_hours * 3600

    def ended(self, seconds: float) -> bool:
        """Return whether a sweep that has taken this many seconds may begin no further run."""
        return self.max_seconds is not None and seconds >= self.max_seconds


UNLIMITED = Limits()


@dataclass(frozen=True)
class Plan:
    """Resolved runs in units, each of which one process or job does in this order."""

    units: tuple[tuple[RunSpec, ...], ...]
    digests: Digests | None = None
    """Digests of model and data; None before they are prepared: then records on any are
    accepted.
    """
    since: int | None = (
        None  # failures of this `run-all` call or later are final; None: failed runs are done again
    )
    _protocols: dict[Digests, str] = field(default_factory=dict, repr=False, compare=False)
    """Digests -> protocol id of the plan's settings on them."""

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        return tuple(spec for unit in self.units for spec in unit)

    def remaining(self, records: Iterable[RunRecord]) -> tuple[tuple[RunSpec, ...], ...]:
        settled = {record.spec.run_id for record in records if self.settles(record)}
        return tuple(
            tuple(spec for spec in unit if spec.run_id not in settled) for unit in self.units
        )

    def settles(self, record: RunRecord) -> bool:
        """Whether a run need not be done again: it has ended, under the same protocol."""
        digests = self.digests or record.digests
        if digests is not None and digests not in self._protocols:
            self._protocols[digests] = protocol_id(record.spec.settings, digests)
        if record.protocol_id not in {None, None if digests is None else self._protocols[digests]}:
            return False
        failed = self.since is not None and record.status in FAILED and record.call >= self.since
        return record.status in FINAL or failed
