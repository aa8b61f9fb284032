"""Submitted units: an engine's answer may be older than a submission, so an absence is believed after a while only."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from hpml_bench.records.files import read_json, write_atomically
from hpml_bench.records.jobs import read_jobs
from hpml_bench.system.text import utc_now

FILE = "submitted.json"
"""Units of the last submissions, in the results folder: unit -> when it was submitted (UTC, seconds of time.time())."""


class Submissions:
    """Units that have a job, or had one a moment ago."""

    def __init__(self, folder: Path, lag: float) -> None:
        """Keep the results folder, and the seconds by which the engine's answers may be old; 0: they are exact."""
        self._folder, self._lag = folder, lag
        self._seen: dict[int, float] = {}
        """Unit -> time.monotonic() at which a job of it was seen last by this process."""

    def note(self, units: Iterable[int]) -> None:
        """Write down that jobs of these units were submitted."""
        if self._lag:
            told = {"at": time.time(), "began": utc_now()}
            known = self._recent() | {str(unit): told for unit in units}
            write_atomically(self._folder / FILE, json.dumps(known))

    def forget(self, units: Collection[int]) -> None:
        """Take the jobs of these units for ended, as after they were cancelled."""
        for unit in units:
            self._seen.pop(unit, None)
        if self._lag:
            left = {unit: told for unit, told in self._recent().items() if int(unit) not in set(units)}
            write_atomically(self._folder / FILE, json.dumps(left))

    def absent(self, units: Collection[int], live: Collection[int]) -> set[int]:
        """Return those of the units that have no job: none is live, and none was a moment ago unless it has ended."""
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
        return {unit: told for unit, told in known.items() if time.time() - float(told["at"]) <= self._lag}
