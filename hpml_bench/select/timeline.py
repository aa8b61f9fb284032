"""Timeline of a sweep's jobs: waiting, runs and idle time of each."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hpml_bench.records.jobs import Job, read_jobs
from hpml_bench.records.run import RunRecord
from hpml_bench.system.environment import Environment
from hpml_bench.system.text import sanitize

LONGEST = 100 * 365 * 86_400.0  # seconds beyond which a run's length is invalid
Span = tuple[float, RunRecord]
"""Begin, in seconds since 1970, of a run within a job; compared or not, it took the job's time."""


class Where(NamedTuple):
    """Engine, start of a job (name, restart) and hosts of a run, from its record."""

    engine: str
    start: tuple[str, int]
    hosts: tuple[str, ...]


def where(record: RunRecord) -> Where | None:
    said = Environment.read(record.environment).where
    hosts, restart = said.get("hosts") or [said.get("host")], said.get("restart")
    named = tuple(
        _word(host) for host in (hosts if isinstance(hosts, list | tuple) else [hosts]) if host
    )
    start = _word(said.get("job")), restart if isinstance(restart, int) else 0
    return Where(_word(said.get("engine")), start, named) if said else None


def _word(value: Any) -> str:
    return "–" if value is None else sanitize(value, 60)


@dataclass(frozen=True)
class JobTimes:
    """A start of a job, in seconds since 1970."""

    job: Job
    # time at which it began to wait: its submission, or the end of the start before a restart
    queued: float
    began: float
    ended: float  # end; of a job that works, or was killed, the last known time
    runs: tuple[Span, ...]

    @property
    def name(self) -> str:
        again = f".{self.job.restart}" if self.job.restart else ""
        return sanitize(f"{self.job.job}{again} on {self.job.host}", 26)

    @property
    def states(self) -> dict[str, float]:
        """Seconds in each state; a job that only prepares model and data is not idle meanwhile."""
        running, lasted = sum(run.seconds for _, run in self.runs), self.ended - self.began
        preparing = lasted if self.job.unit < 0 else 0.0
        return {
            "queued": self.began - self.queued,
            "preparing": preparing,
            "in runs": running,
            "idle": max(0.0, lasted - running - preparing),
        }


@dataclass(frozen=True)
class SweepTimes:
    """The jobs of a sweep, by the time they began."""

    jobs: tuple[JobTimes, ...]

    @cached_property
    def first(self) -> float:
        return min(job.queued for job in self.jobs)

    @property
    def makespan(self) -> float:
        return max(job.ended for job in self.jobs) - self.first

    @property
    def sums(self) -> dict[str, float]:
        """Seconds of all jobs in each state."""
        found = {
            state: sum(job.states[state] for job in self.jobs) for state in self.jobs[0].states
        }
        return {
            state: seconds for state, seconds in found.items() if seconds or state != "preparing"
        }


def sweep_times(folder: Path, records: Iterable[RunRecord]) -> SweepTimes | None:
    """Return the jobs of a results folder with their runs; None where no job did any, or their
    times can't be read.
    """
    by_start: dict[tuple[str, int], list[Span]] = {}
    for record in records:
        place, begin = where(record), moment(record.started)
        if place is not None and begin is not None and 0 <= record.seconds < LONGEST:
            by_start.setdefault(place.start, []).append((begin, record))
    starts = [(began, job) for job in read_jobs(folder) if (began := moment(job.began)) is not None]
    found: list[JobTimes] = []
    last: dict[tuple[str, int], float] = {}
    for began, job in sorted(starts, key=lambda start: (start[0], start[1].unit)):
        spans = sorted(
            by_start.get((job.job, job.restart), ()), key=lambda span: (span[0], span[1].run_id)
        )
        done = max(
            [began, *(begin + run.seconds for begin, run in spans)]
        )  # a start is recorded to the second
        ended = done if job.ended is None else moment(job.ended)
        queued = moment(job.queued if job.queued is not None else job.began)
        if ended is not None and queued is not None:
            # a restart has waited since the end of the start before, not since the submission
            waited = max(queued, last.get((job.job, job.unit), queued)) if job.restart else queued
            last[job.job, job.unit] = max(done, ended)
            found.append(JobTimes(job, min(began, waited), began, max(done, ended), tuple(spans)))
    return SweepTimes(tuple(found)) if found and by_start else None


def moment(text: str) -> float | None:
    """Return a time in ISO 8601, UTC where it names no zone, as seconds since 1970; None where
    it is none.
    """
    try:
        read = datetime.fromisoformat(text)
        seconds = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return seconds if math.isfinite(seconds) else None
