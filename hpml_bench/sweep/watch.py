"""Watcher of a sweep by jobs: which units have a job, which runs have ended, and which units make
no progress.

In come the engine's list of jobs, the file of recent submissions, the jobs' own notes and the
records of runs. Out go the jobs that live, the units without one, the runs that are left, and the
units that are due for another submission or given up.

The engine's list is the only witness that a job lives, and it may be old: for as long as the
engine's `lag` an absent job may be there all the same. A unit is then in doubt, and gets no second
job, unless the job itself has written down that it ended.
"""

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpml_bench.plugins.engine import Engine, EngineJob, JobBatch, units_of
from hpml_bench.records import jobs as files
from hpml_bench.records.folder import RunFolder, Say
from hpml_bench.records.jobs import Job, JobPlan, Kind, Submission, Submissions, read_jobs
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import FINAL, RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_model, remove, write_atomically

UNANSWERED_SECONDS = 600.0
"""Seconds for which an engine may fail to list its jobs, or refuse further ones."""
ASK_AGAIN_SECONDS = 5.0
"""Seconds between two requests for its list while it doesn't answer."""
FRUITLESS_LIMIT = 2
"""Further submissions of a unit without a new run or later checkpoint before it is given up."""
AGAIN_SECONDS = 60.0
"""Seconds between two further submissions while other jobs live."""
NEVER = -float("inf")
LARGE: dict[str, Any] = {
    "definitions": (),
    "metrics": {},
    "per_rank": {},
    "checks": (),
    "notes": {},
    "label_names": (),
    "files": {},
    "kept": {},
    "segments": (),
    "declared": None,
}
"""Fields of a record that are no use to a watcher of thousands of runs, and values in their
place.
"""


@dataclass(frozen=True)
class _Sighting:
    """The last time at which this process saw a job of a unit in the engine's list."""

    at: float  # time.monotonic()
    submission: str  # name of the job's submission


@dataclass(frozen=True)
class _Progress:
    """How far the runs of a unit have come."""

    left: int  # runs that are left
    saved: int  # sum of the steps at which they last saved their state


@dataclass(frozen=True)
class _Tries:
    """The last further submissions of a unit, all of them at the same progress."""

    progress: _Progress
    number: int


class Watcher:
    """Jobs, runs and progress of a sweep's units, for the process that submits jobs, waits for
    them or shows them.
    """

    def __init__(
        self, folder: Path, plan: JobPlan, engine: Engine, say: Say, resolved: bool = True
    ) -> None:
        """Keep the arguments; `resolved`: whether the settings that jobs resolved in the folder
        are this plan's.
        """
        self._folder = folder
        self._plan = plan
        self._engine = engine
        self._say = say
        self._resolved = resolved
        self.refused: list[str] = []
        """Reasons why the engine would never begin jobs that it has accepted."""
        self._runs: Plan | None = None
        """The plan with resolved settings; None until a job has resolved them."""
        self._specs: dict[str, RunSpec] = {}
        self._known: dict[str, tuple[int, RunRecord]] = {}
        """run_id -> inode of its folder, and the record that was read there, without what would
        fill the memory.
        """
        self._sightings: dict[int, _Sighting] = {}
        """By unit."""
        self._cancelled: set[int] = set()
        """Units whose job this process has cancelled since it was submitted."""
        self._gone: set[str] = set()
        """Names of submissions of which the engine listed no job when it was last asked."""
        self._tries: dict[int, _Tries] = {}
        """By unit."""
        self._resubmitted = NEVER
        self._refused_since = NEVER

    # Jobs

    @property
    def plan(self) -> JobPlan:
        """The plan, with the submissions whose jobs may live."""
        return self._plan.model_copy(update={"submitted": self._submissions()})

    def live(self) -> tuple[EngineJob, ...]:
        """Return what the engine lists of the plan's jobs; raises UserError if it doesn't
        answer.
        """
        jobs = self._engine.live(self.plan)
        listed = {job.group for job in jobs}
        self._gone = {
            submission.name
            for submission in self._submissions()
            if submission.name not in listed and not self._is_new(submission)
        }
        return jobs

    def jobs(self) -> tuple[EngineJob, ...]:
        """Return the jobs that wait or run, and cancel those that the engine will never begin.

        An engine that doesn't answer is asked again, for `UNANSWERED_SECONDS`; then its UserError
        is raised.
        """
        deadline = time.monotonic() + UNANSWERED_SECONDS
        while True:
            try:
                jobs = self.live()
                stuck = [job for job in jobs if job.stuck]
                if stuck:
                    self._cancel(stuck)
                return tuple(job for job in jobs if not job.stuck)
            except UserError as error:
                if time.monotonic() > deadline:
                    raise
                self._say(f"{error}; asking again")
                time.sleep(ASK_AGAIN_SECONDS)

    def _cancel(self, stuck: list[EngineJob]) -> None:
        """Cancel jobs that would never begin; keep the reasons of those that the profile causes."""
        self._say(
            f"job {stuck[0].name} ({len(stuck)} in all) is held: {stuck[0].state.lower()}; "
            f"cancelled"
        )
        self._engine.cancel(stuck)
        self._cancelled |= units_of(stuck)
        # once each: a thousand tasks of an array are refused for the same reason
        reasons = dict.fromkeys(job.reason for job in stuck if job.refused)
        for reason in reasons:
            self.refused.append(
                f"{self._engine.title} would never begin such jobs: {reason}; change the "
                f"profile's requests"
            )

    def submitted(self, batch: JobBatch, name: str) -> None:
        """Write down a submission by the name that the engine gave it; the caller holds the
        submission lock.
        """
        self._cancelled -= set(batch.units)
        # jobs that end with this process need no file: no other process will ever look for them
        if not name or not self._engine.outlives:
            return
        kept = [earlier for earlier in self._submissions() if earlier.name not in self._gone]
        submission = Submission(
            name=name, kind=batch.kind, units=batch.units, first=batch.first, at=time.time()
        )
        submissions = Submissions(made=(*kept, submission))
        write_atomically(self._folder / files.SUBMITTED, submissions.model_dump_json())

    def forget_submissions(self) -> None:
        """Forget all submissions, after all jobs were ended; the caller holds the submission
        lock.
        """
        remove(self._folder / files.SUBMITTED)

    def recent(self, kind: Kind | None = None) -> list[str]:
        """Return names of submissions of one kind, or all, within the engine's lag, not known to
        have ended.

        A submission is left out once each of its units' jobs has ended or was cancelled.
        """
        submissions = [
            submission
            for submission in self._submissions()
            if self._is_new(submission) and kind in {None, submission.kind}
        ]
        units = {unit for submission in submissions for unit in _units_or_preparation(submission)}
        notes = self._notes(units - self._cancelled)
        names = []
        for submission in submissions:
            for unit in _units_or_preparation(submission):
                if unit in self._cancelled or self._has_ended(submission.name, unit, notes):
                    continue
                names.append(submission.name)
        return list(dict.fromkeys(names))

    def without_job(self, units: Iterable[int], jobs: Sequence[EngineJob]) -> set[int]:
        """Return the units without a job, of these.

        A unit is in doubt, and left out, if it isn't in `jobs` but this process saw a job of it
        within the engine's lag, or it was submitted within the lag. Doubt ends if this process has
        cancelled the job, or the last submission's job has written that it ended.
        """
        now = time.monotonic()
        for job in jobs:
            if job.unit is not None:
                self._sightings[job.unit] = _Sighting(now, job.group)
        last_submission = {
            unit: sighting.submission
            for unit, sighting in self._sightings.items()
            if now - sighting.at < self._engine.lag
        }
        # a later submission of a unit replaces the one whose job was seen
        for submission in self._submissions():
            if self._is_new(submission):
                last_submission |= dict.fromkeys(submission.units, submission.name)
        absent = set(units) - units_of(jobs)
        in_doubt = (absent - self._cancelled) & last_submission.keys()
        notes = self._notes(in_doubt)
        may_live = {
            unit for unit in in_doubt if not self._has_ended(last_submission[unit], unit, notes)
        }
        return absent - may_live

    def _notes(self, units: Collection[int]) -> tuple[Job, ...]:
        """Return what the jobs of these units have written of themselves."""
        return read_jobs(self._folder, units) if units else ()

    def _has_ended(self, submission: str, unit: int, notes: Iterable[Job]) -> bool:
        """Return whether the last start of a submission's job on a unit has written that it
        ended.
        """
        # Starts are ordered by the engine's count of restarts, since clocks of nodes differ.
        starts = [
            job for job in notes if job.unit == unit and self._engine.same_job(submission, job)
        ]
        if not starts:
            return False
        last_restart = max(job.restart for job in starts)
        last_start = [job for job in starts if job.restart == last_restart][-1]
        return last_start.ended is not None

    def _is_new(self, submission: Submission) -> bool:
        """Whether the engine's list may not show it yet."""
        # `at` is another host's time, which may lie ahead of this one's
        return abs(time.time() - submission.at) <= self._engine.lag

    def _submissions(self) -> tuple[Submission, ...]:
        submissions = read_model(self._folder / files.SUBMITTED, Submissions)
        return submissions.made if submissions is not None else ()

    # Runs

    def refresh(self) -> Plan | None:
        """Read records that are new since the last call; return the resolved plan, None before a
        job resolved it.

        A record that is final isn't read again while its folder is the same: such records are only
        ever replaced with their folder. Others are written in place, and so are read each time. A
        folder whose record can't be read counts as a run without a record.
        """
        self._resolve()
        # The folder is listed once; where it can't be read, all stays as it was.
        try:
            with os.scandir(self._folder) as entries:
                inodes = {
                    entry.name: entry.inode() for entry in entries if entry.name in self._specs
                }
        except OSError:
            return self._runs
        current: dict[str, tuple[int, RunRecord]] = {}
        for run_id, inode in inodes.items():
            before = self._known.get(run_id)
            if before is not None and before[0] == inode and before[1].status in FINAL:
                current[run_id] = before
                continue
            record = RunFolder(self._folder / run_id).record()
            if record is not None:
                current[run_id] = inode, self._without_large_fields(record, run_id)
        self._known = current
        return self._runs

    def _resolve(self) -> None:
        """Take the settings that the plan's first job resolved, once they are there."""
        if self._runs is not None or not self._resolved:
            return
        settings = files.read_resolved(self._folder, self._plan)
        if settings:
            self._runs = self._plan.resolved(settings)
            self._specs = {spec.run_id: spec for spec in self._runs.runs}

    def _without_large_fields(self, record: RunRecord, run_id: str) -> RunRecord:
        """Return a record that shares the plan's spec, and keeps of its environment the place
        alone.
        """
        kept = {
            "spec": self._specs[run_id],
            "run_id": run_id,
            "environment": {"where": record.environment.get("where")},
        }
        return record.model_copy(update=LARGE | kept)

    def records(self) -> tuple[RunRecord, ...]:
        """Return the records of runs so far, in the plan's order; without metrics."""
        self.refresh()
        return tuple(self._known[run_id][1] for run_id in self._specs if run_id in self._known)

    def left(self, again: bool = False) -> dict[int, int]:
        """Return unit -> number of its runs left; `again`: runs that failed in this call are
        left too.
        """
        records = self.records()
        if self._runs is None:
            return {number: len(unit.tasks) for number, unit in enumerate(self._plan.units)}
        plan = replace(self._runs, since=None if again else self._plan.call)
        remaining = enumerate(plan.remaining(records))
        return {number: len(runs) for number, runs in remaining if runs}

    # Progress

    def due(self, left: Mapping[int, int], others: bool) -> tuple[int, ...]:
        """Return the units to submit again.

        `left` has the units without a job, each with its number of runs left. While `others` live,
        units are named once in `AGAIN_SECONDS` at most, so that a job that fails at once isn't
        submitted anew every few seconds.
        """
        now = time.monotonic()
        if others and now - self._resubmitted < AGAIN_SECONDS:
            return ()
        self._resubmitted = now
        return tuple(unit for unit, runs in left.items() if not self._is_given_up(unit, runs))

    def resubmitted(self, units: Iterable[int], left: Mapping[int, int]) -> None:
        """Note that the engine has accepted further jobs of these units."""
        self._refused_since = NEVER
        for unit in units:
            progress = _Progress(left[unit], self._saved_steps(unit))
            tries = self._tries.get(unit)
            if tries is None or tries.progress != progress:
                tries = _Tries(progress, 0)
            self._tries[unit] = replace(tries, number=tries.number + 1)

    def exhausted(self, left: Mapping[int, int]) -> bool:
        """Return whether all units with runs left were submitted again in vain too often."""
        return all(self._is_given_up(unit, runs) for unit, runs in left.items())

    def _is_given_up(self, unit: int, left: int) -> bool:
        tries = self._tries.get(unit)
        if tries is None or tries.number < FRUITLESS_LIMIT:
            return False
        # a job that has come further since then has earned another one
        return tries.progress == _Progress(left, self._saved_steps(unit))

    def _saved_steps(self, unit: int) -> int:
        """Return the steps of a unit's runs whose state is saved, in sum."""
        if self._runs is None:
            return 0
        attempts = self._folder / files.ATTEMPTS
        steps = 0
        for run in self._runs.units[unit]:
            # a checkpoint moves with its run: of several attempts only one has it
            for attempt in attempts.glob(f"{run.run_id}.*/"):
                steps += RunFolder(attempt).saved
        return steps

    def refuses_for_long(self, others: bool) -> bool:
        """Note that the engine refuses a further job; return whether it has for minutes in which
        no other job lived.
        """
        now = time.monotonic()
        if others:
            # it may refuse more than so many jobs: then those that live have to end first
            self._refused_since = NEVER
            return False
        if self._refused_since == NEVER:
            self._refused_since = now
        return now - self._refused_since > UNANSWERED_SECONDS


def _units_or_preparation(submission: Submission) -> tuple[int, ...]:
    """Return the units of a submission; -1 for one that prepares or reports, as in jobs' notes."""
    return submission.units or (-1,)
