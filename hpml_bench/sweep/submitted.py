"""Submitted units: an engine's list of jobs may be older than a submission, so a unit counts as absent later only."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from hpml_bench.records.files import read_json, write_atomically
from hpml_bench.records.jobs import Job, read_jobs
from hpml_bench.system.text import utc_now

FILE = "submitted.json"
"""Last submissions, in the results folder: unit -> name of its job, and when: seconds of time.time(), and UTC."""


class Submissions:
    """Units that have a job which the engine may not show yet, or no longer."""

    def __init__(self, folder: Path, lag: float) -> None:
        """Keep the results folder, and the seconds by which the engine's list may be old; 0: it is exact."""
        self._folder, self._lag = folder, lag
        self._seen: dict[int, float] = {}
        """Unit -> time.monotonic() at which this process last saw a job of it."""
        self._cancelled: set[int] = set()

    def note(self, units: Iterable[int], name: str) -> None:
        """Write down a submission by the name that the engine gave it; the caller holds the submission lock."""
        own = set(units)
        self._cancelled -= own
        if self._lag:
            entry = {"name": name, "at": time.time(), "began": utc_now()}
            write_atomically(self._folder / FILE, json.dumps(self._recent() | {str(unit): entry for unit in own}))

    def cancelled(self, units: Iterable[int]) -> None:
        """Note that this process has cancelled the jobs of these units: their absence is no old answer."""
        self._cancelled |= set(units)

    def clear(self) -> None:
        """Forget all submissions, after all jobs were ended; the caller holds the submission lock."""
        (self._folder / FILE).unlink(missing_ok=True)

    def absent(self, units: Collection[int], live: Collection[int]) -> set[int]:
        """Return the units without a job: none is live, and none was recently unless it has ended."""
        now = time.monotonic()
        self._seen |= dict.fromkeys(live, now)
        gone = set(units) - set(live)
        if not self._lag:
            return gone
        recent = self._recent()
        seen = {unit for unit in gone if now - self._seen.get(unit, -float("inf")) <= self._lag}
        doubtful = ({unit for unit in gone if str(unit) in recent} | seen) - self._cancelled
        return gone - {unit for unit in doubtful if not self._has_ended(unit, recent.get(str(unit)))}

    def names(self) -> tuple[str, ...]:
        """Return the names of jobs that were submitted a moment ago and have not ended, as far as is known."""
        units = {int(unit): entry for unit, entry in self._recent().items() if not self._has_ended(int(unit), entry)}
        return tuple(dict.fromkeys(str(entry["name"]) for unit, entry in units.items() if unit not in self._cancelled))

    def _has_ended(self, unit: int, submission: dict[str, Any] | None) -> bool:
        """Tell whether the last job of a unit since its submission has said that it ended."""
        since = "" if submission is None else str(submission["began"])
        jobs: list[Job] = [job for job in read_jobs(self._folder, unit) if job.began >= since]
        return bool(jobs) and jobs[-1].ended is not None

    def _recent(self) -> dict[str, dict[str, Any]]:
        known = read_json(self._folder / FILE) or {}
        return {unit: entry for unit, entry in known.items() if time.time() - float(entry["at"]) <= self._lag}
