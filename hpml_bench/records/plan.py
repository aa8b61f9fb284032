"""Plan of runs: their order, and which of them remain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hpml_bench.records.run import DONE, Digests, RunRecord
from hpml_bench.suite.settings import RunSpec


@dataclass(frozen=True)
class Plan:
    """Resolved runs in units, each of which one process or job does in this order."""

    units: tuple[tuple[RunSpec, ...], ...]
    digests: Digests | None = None
    """Digests of model and data; None before they are prepared: then records on any are accepted."""
    since: int | None = None
    """Call of `run-all` from which on a failed run counts as settled; None: a failed run is done again."""

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """The runs of all units, in order."""
        return tuple(spec for unit in self.units for spec in unit)

    def remaining(self, records: Iterable[RunRecord]) -> tuple[tuple[RunSpec, ...], ...]:
        """Return each unit's runs that no record settles."""
        settled = {record.spec.run_id for record in records if self.settles(record)}
        return tuple(tuple(spec for spec in unit if spec.run_id not in settled) for unit in self.units)

    def settles(self, record: RunRecord) -> bool:
        """Whether a run with this record need not be done again: it has ended, on the same model and data.

        Settings needn't be compared: run ids are made of them.
        """
        if record.digests is not None and self.digests not in {None, record.digests}:
            return False
        failed = self.since is not None and record.status != "interrupted" and record.call >= self.since
        return record.status in DONE or failed
