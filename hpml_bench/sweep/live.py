"""Jobs of a sweep that wait or run, as its engine lists them."""

from __future__ import annotations

import time
from collections.abc import Callable

from hpml_bench.plugins.engine import Engine, EngineJob, units_of
from hpml_bench.records.jobs import JobPlan
from hpml_bench.sweep.submitted import Submissions
from hpml_bench.system.errors import UserError

UNANSWERED_SECONDS = 600.0
"""Seconds for which an engine may fail to list its jobs."""


class LiveJobs:
    """The waiting and running jobs of a sweep; those that the engine will never begin are cancelled."""

    def __init__(self, engine: Engine, submissions: Submissions, say: Callable[[str], None]) -> None:
        self._engine, self._submissions, self._say = engine, submissions, say
        self.refused: list[str] = []
        """Reasons why the engine would never begin jobs that it has accepted."""

    def of(self, plan: JobPlan) -> tuple[EngineJob, ...]:
        """Return a plan's jobs; an engine that doesn't answer is asked again for minutes, then its UserError raised."""
        deadline = time.monotonic() + UNANSWERED_SECONDS
        while True:
            try:
                live = self._engine.live(plan)
                self._cancel([job for job in live if job.stuck])
                return tuple(job for job in live if not job.stuck)
            except UserError as error:
                if time.monotonic() > deadline:
                    raise
                self._say(f"{error}; asking again")
                time.sleep(5.0)

    def _cancel(self, stuck: list[EngineJob]) -> None:
        if not stuck:
            return
        self._say(f"job {stuck[0].name} ({len(stuck)} in all) is held: {stuck[0].state.lower()}; cancelled")
        self._engine.cancel(stuck)
        self._submissions.cancelled(units_of(stuck))
        self.refused += [
            f"{self._engine.title} would never begin such jobs: {reason}; change the profile's requests"
            for reason in dict.fromkeys(job.reason for job in stuck if job.refused)
        ]
