"""Timeline of a sweep's jobs: waiting, runs and idle time of each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from hpml_bench.records.jobs import Job, read_jobs
from hpml_bench.records.run import RunRecord
from hpml_bench.system.environment import Environment
from hpml_bench.system.text import sanitize

LONGEST = 100 * 365 * 86_400.0
"""Seconds beyond which a run's length is invalid."""


@dataclass(frozen=True)
class Where:
    """Job and hosts of a run, from its record."""

    engine: str
    job: str
    restart: int
    hosts: tuple[str, ...]

    @property
    def start(self) -> tuple[str, int]:
        return self.job, self.restart


def where(record: RunRecord) -> Where | None:
    said = Environment.read(record.environment).where
    if not said:
        return None
    hosts = said.get("hosts") or [said.get("host")]
    restart = said.get("restart")
    return Where(
        engine=_word(said.get("engine")),
        job=_word(said.get("job")),
        restart=restart if isinstance(restart, int) else 0,
        hosts=tuple(_word(host) for host in (hosts if isinstance(hosts, list | tuple) else [hosts]) if host),
    )


def _word(value: Any) -> str:
    return "–" if value is None else sanitize(value, 60)


@dataclass(frozen=True)
class JobSpan:
    """A run within a job, in seconds since 1970; compared or not, it took the job's time."""

    run_id: str
    method: str
    """Its method's name in the suite."""
    well: bool
    """Whether it ended as `ok`."""
    begin: float
    end: float


@dataclass(frozen=True)
class JobTimes:
    """A start of a job, in seconds since 1970."""

    job: Job
    queued: float
    """Time at which it began to wait: its submission, or the end of the start before a restart."""
    began: float
    ended: float
    """End; of a job that works, or was killed, the last known time."""
    runs: tuple[JobSpan, ...]

    @property
    def name(self) -> str:
        again = f".{self.job.restart}" if self.job.restart else ""
        return sanitize(f"{self.job.job}{again} on {self.job.host}", 26)

    @property
    def preparing(self) -> float:
        """Seconds of a job that only prepared model and data."""
        return self.ended - self.began if self.job.unit < 0 else 0.0

    @property
    def running(self) -> float:
        return sum(span.end - span.begin for span in self.runs)

    @property
    def idle(self) -> float:
        return max(0.0, self.ended - self.began - self.running - self.preparing)


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
        each = [(job.began - job.queued, job.preparing, job.running, job.idle) for job in self.jobs]
        found = dict(zip(("queued", "preparing", "in runs", "idle"), map(sum, zip(*each, strict=True)), strict=True))
        return {what: seconds for what, seconds in found.items() if seconds or what != "preparing"}


def sweep_times(folder: Path, records: Iterable[RunRecord]) -> SweepTimes | None:
    """Return the jobs of a results folder with their runs; None where no job did any, or their times can't be read."""
    by_start: dict[tuple[str, int], list[JobSpan]] = {}
    for record in records:
        place, begin = where(record), moment(record.started)
        if place is not None and begin is not None and 0 <= record.seconds < LONGEST:
            method, well = record.spec.method.name, record.status == "ok"
            span = JobSpan(record.run_id, method, well, begin, begin + record.seconds)
            by_start.setdefault(place.start, []).append(span)
    found: list[JobTimes] = []
    for job in read_jobs(folder):
        spans = sorted(by_start.get((job.job, job.restart), ()), key=lambda span: (span.begin, span.run_id))
        began = moment(job.began)
        if began is None:
            continue
        ended = max([began, *(span.end for span in spans)]) if job.ended is None else moment(job.ended)
        queued = began if job.queued is None else moment(job.queued)
        if ended is not None and queued is not None:
            end = max([began, ended, *(span.end for span in spans)])  # a run's start is recorded to the second
            found.append(JobTimes(job, min(queued, began), began, end, tuple(spans)))
    return SweepTimes(tuple(_requeued(found))) if found and by_start else None


def _requeued(jobs: list[JobTimes]) -> list[JobTimes]:
    """Return jobs whose restarts have waited since the end of the start before, not since the submission."""
    last: dict[tuple[str, int], float] = {}
    found = []
    for job in sorted(jobs, key=lambda job: (job.began, job.job.unit)):
        key = job.job.job, job.job.unit
        before = last.get(key, job.queued) if job.job.restart else job.queued
        found.append(replace(job, queued=min(job.began, max(job.queued, before))))
        last[key] = job.ended
    return found


def moment(text: str) -> float | None:
    """Return a time in ISO 8601, UTC where it names no zone, as seconds since 1970; None where it is none."""
    try:
        read = datetime.fromisoformat(text)
        seconds = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return seconds if math.isfinite(seconds) else None
