"""Submitted units: an engine's list of jobs may be older than a submission, so a unit counts as absent later only."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from hpml_bench.records.files import read_json, write_atomically
from hpml_bench.records.jobs import read_jobs
from hpml_bench.system.text import utc_now

FILE = "submitted.json"
"""Units of the last submissions, in the results folder: unit -> time of submission (UTC, seconds of time.time())."""


class Submissions:
    """Units that have a job, or had one recently."""

    def __init__(self, folder: Path, lag: float) -> None:
        """Keep the results folder, and the seconds by which the engine's list may be old; 0: it is exact."""
        self._folder, self._lag = folder, lag
        self._seen: dict[int, float] = {}
        """Unit -> time.monotonic() at which this process last saw a job of it."""

    def note(self, units: Iterable[int]) -> None:
        """Note that jobs of these units were submitted."""
        if self._lag:
            submission = {"at": time.time(), "began": utc_now()}
            known = self._recent() | {str(unit): submission for unit in units}
            write_atomically(self._folder / FILE, json.dumps(known))

    def forget(self, units: Collection[int]) -> None:
        """Treat the jobs of these units as ended, such as after a cancellation."""
        for unit in units:
            self._seen.pop(unit, None)
        if self._lag:
            left = {unit: entry for unit, entry in self._recent().items() if int(unit) not in set(units)}
            write_atomically(self._folder / FILE, json.dumps(left))

    def absent(self, units: Collection[int], live: Collection[int]) -> set[int]:
        """Return the units without a job: none is live, and none was recently unless it has ended."""
        now = time.monotonic()
        self._seen |= dict.fromkeys(live, now)
        gone = set(units) - set(live)
        if not self._lag:
            return gone
        recent = self._recent()
        return {unit for unit in gone if not self._may_live(unit, recent.get(str(unit)), now)}

    def _may_live(self, unit: int, submission: dict[str, object] | None, now: float) -> bool:
        seen = self._seen.get(unit, -float("inf"))
        if submission is None and now - seen > self._lag:
            return False
        since = str(submission["began"]) if submission else ""
        jobs = [job for job in read_jobs(self._folder, unit) if job.began >= since]
        return not jobs or jobs[-1].ended is None

    def _recent(self) -> dict[str, dict[str, object]]:
        known = read_json(self._folder / FILE) or {}
        return {unit: entry for unit, entry in known.items() if time.time() - float(entry["at"]) <= self._lag}
