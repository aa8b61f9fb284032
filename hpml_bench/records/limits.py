"""Limits that users set on runs and sweeps: of attempts and time, never of what a run computes."""

from __future__ import annotations

from dataclasses import dataclass

from hpml_bench.records.run import Status

STALL_SECONDS = 300.0
RETRIED: frozenset[Status] = frozenset({"failed", "killed", "timeout", "oom_host", "oom_cuda"})
"""The states after which another attempt may succeed; a run that diverged would diverge again."""


@dataclass(frozen=True)
class Limits:
    """Limits of a sweep. They are not part of the protocol: runs under other limits can be compared."""

    stall: float = STALL_SECONDS
    """Seconds without progress on any rank after which a run is ended; 0 for no such limit."""
    run_timeout: float | None = None
    """Seconds after which a run is ended."""
    retries: int = 0
    """Further attempts at a run that ended in one of `RETRIED`."""
    max_hours: float | None = None
    """Hours of a sweep after which no run begins; model and data must be prepared by then."""
    fail_fast: bool = False
    """Whether a sweep ends with the first run that did not end well."""

    @property
    def max_seconds(self) -> float | None:
        """`max_hours` in seconds."""
        return None if self.max_hours is None else self.max_hours * 3600

    def ended(self, seconds: float) -> bool:
        """Return whether a sweep that has taken this many seconds may begin no further run."""
        return self.max_seconds is not None and seconds >= self.max_seconds


UNLIMITED = Limits()
