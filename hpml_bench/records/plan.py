"""Plan of runs: their order, and which of them remain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from hpml_bench.records.run import DONE, FAILED, Digests, RunRecord, Status, protocol_id
from hpml_bench.suite.settings import RunSpec


@dataclass(frozen=True)
class RunState:
    """The fields of a run's record that decide whether it has to be done again."""

    spec: RunSpec
    status: Status
    started: str
    """UTC, ISO 8601: two records of a run differ in it."""
    digests: Digests | None
    protocol_id: str | None
    call: int
    """Number of the call of `run-all` whose job made the run; 0 where no job did."""

    @classmethod
    def of(cls, record: RunRecord, spec: RunSpec | None = None) -> Self:
        """Return the state of a record; an equal `spec` that is in memory already saves that of the record."""
        return cls(spec or record.spec, record.status, record.started, record.digests, record.protocol_id, record.call)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.spec.run_id


@dataclass(frozen=True)
class Plan:
    """Resolved runs in units, each of which one process or job does in this order."""

    units: tuple[tuple[RunSpec, ...], ...]
    digests: Digests | None = None
    """Digests of model and data; None before they are prepared: then records on any are accepted."""
    since: int | None = None
    """Call of `run-all` from which on a failed run counts as settled; None: a failed run is done again."""
    _protocols: dict[Digests, str] = field(default_factory=dict, repr=False, compare=False)
    """Digests -> protocol id of the plan's settings on them."""

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """The runs of all units, in order."""
        return tuple(spec for unit in self.units for spec in unit)

    def remaining(self, states: Iterable[RunState]) -> tuple[tuple[RunSpec, ...], ...]:
        """Return the runs of each unit that no state settles."""
        settled = {state.run_id for state in states if self.settles(state)}
        return tuple(tuple(spec for spec in unit if spec.run_id not in settled) for unit in self.units)

    def settles(self, state: RunState) -> bool:
        """Whether a run need not be done again: it has ended, under the same protocol."""
        if state.protocol_id not in {None, self._protocol(state)}:
            return False
        failed = self.since is not None and state.status in FAILED and state.call >= self.since
        return state.status in DONE or failed

    def _protocol(self, state: RunState) -> str | None:
        """Return the protocol id that a run of the plan has; None where its model and data are not known."""
        digests = self.digests or state.digests
        if digests is None:
            return None
        if digests not in self._protocols:
            self._protocols[digests] = protocol_id(state.spec.settings, digests)
        return self._protocols[digests]
