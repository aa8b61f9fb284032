"""Watcher of a sweep by jobs: which units have a job, which runs have ended, and which units make
no progress.

Its sources are the engine's list of jobs, the file of recent submissions, the records, and the
claims by which at most one living job works on a unit. A claim is a folder with its owner's record
in it, moved to its place by a rename, which succeeds for one job only. It is broken by a restart of
the same job, or where the engine knows that its owner has ended; never for its age.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpml_bench.plugins.engine import Engine, EngineJob, JobBatch, units_of
from hpml_bench.records import jobs as files
from hpml_bench.records.folder import TAKEN, RunFolder, Say
from hpml_bench.records.jobs import (
    Job,
    JobPlan,
    Kind,
    Submission,
    Submissions,
    claims,
    ended_here,
    holder,
    read_jobs,
)
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import FINAL, RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_model, write_atomically

UNANSWERED_SECONDS = (
    600.0  # seconds for which an engine may fail to list its jobs, or refuse further ones
)
FRUITLESS_LIMIT = (
    2  # further submissions of a unit without a new run or later checkpoint before it is given up
)
AGAIN_SECONDS = 60.0  # seconds between two further submissions while other jobs live
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
        self._folder, self._plan, self._engine, self._say, self._resolved = (
            folder,
            plan,
            engine,
            say,
            resolved,
        )
        self.refused: list[
            str
        ] = []  # reasons why the engine would never begin jobs that it has accepted
        self._runs: Plan | None = None
        self._specs: dict[str, RunSpec] = {}
        self._known: dict[str, tuple[int, RunRecord]] = {}
        """run_id -> inode of its folder, and the record that was read there, without what would
        fill the memory.
        """
        self._seen: dict[int, tuple[float, str]] = {}
        """Unit -> time.monotonic() at which this process last saw a job of it, and the job's
        submission.
        """
        self._cancelled: set[int] = set()
        self._gone: set[str] = (
            set()
        )  # names of submissions of which the engine listed no job when it was last asked
        self._tries: dict[int, tuple[tuple[int, int], int]] = {}
        """Unit -> its progress at its last further submission, and such submissions in a row
        without more progress.
        """
        self._resubmitted = self._refused_since = NEVER

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
            s.name for s in self._submissions() if s.name not in listed and not self._is_new(s)
        }
        return jobs

    def jobs(self) -> tuple[EngineJob, ...]:
        """Return the jobs that wait or run; asks for minutes, and cancels what the engine will
        never begin.
        """
        deadline = time.monotonic() + UNANSWERED_SECONDS
        while True:
            try:
                jobs = self.live()
                if stuck := [job for job in jobs if job.stuck]:
                    self._cancel(stuck)
                return tuple(job for job in jobs if not job.stuck)
            except UserError as error:
                if time.monotonic() > deadline:
                    raise
                self._say(f"{error}; asking again")
                time.sleep(5.0)

    def _cancel(self, stuck: list[EngineJob]) -> None:
        self._say(
            f"job {stuck[0].name} ({len(stuck)} in all) is held: {stuck[0].state.lower()}; "
            f"cancelled"
        )
        self._engine.cancel(stuck)
        self._cancelled |= units_of(stuck)
        self.refused += [
            (
                f"{self._engine.title} would never begin such jobs: {reason}; change the "
                f"profile's requests"
            )
            for reason in dict.fromkeys(job.reason for job in stuck if job.refused)
        ]

    def submitted(self, batch: JobBatch, name: str) -> None:
        """Write down a submission by the name that the engine gave it; the caller holds the
        submission lock.
        """
        self._cancelled -= set(batch.units)
        if name and self._engine.outlives:
            kept = [s for s in self._submissions() if s.name not in self._gone]
            made = Submission(
                name=name, kind=batch.kind, units=batch.units, first=batch.first, at=time.time()
            )
            write_atomically(
                self._folder / files.SUBMITTED, Submissions(made=(*kept, made)).model_dump_json()
            )

    def forget_submissions(self) -> None:
        """Forget all submissions, after all jobs were ended; the caller holds the submission
        lock.
        """
        (self._folder / files.SUBMITTED).unlink(missing_ok=True)

    def recent(self, kind: Kind | None = None) -> list[str]:
        """Return names of submissions of one kind, or all, within the engine's lag, not known to
        have ended.
        """
        recent = [s for s in self._submissions() if self._is_new(s) and kind in {None, s.kind}]
        jobs = [
            (unit, s.name)
            for s in recent
            for unit in s.units or (-1,)
            if unit not in self._cancelled
        ]
        ended = self._ended({unit for unit, _ in jobs})
        return list(dict.fromkeys(name for unit, name in jobs if (unit, name) not in ended))

    def without_job(self, units: Iterable[int], jobs: Sequence[EngineJob]) -> set[int]:
        """Return the units without a job: not in `jobs`, and none was there within the lag,
        unless it has ended.
        """
        now, lag = time.monotonic(), self._engine.lag
        self._seen |= {job.unit: (now, job.group) for job in jobs if job.unit is not None}
        last = {unit: name for unit, (at, name) in self._seen.items() if now - at < lag}
        last |= {unit: s.name for s in self._submissions() if self._is_new(s) for unit in s.units}
        absent = set(units) - units_of(jobs)
        doubtful = {unit: last[unit] for unit in (absent - self._cancelled) & last.keys()}
        return absent - (
            doubtful.keys() - {unit for unit, _ in self._ended(doubtful) & set(doubtful.items())}
        )

    def _ended(self, units: Collection[int]) -> set[tuple[int, str]]:
        """Return unit and submission's name of the jobs on these units whose last start has said
        that it ended.
        """
        # By names and restarts, not by times: clocks of nodes differ.
        jobs = sorted(read_jobs(self._folder, units), key=lambda job: job.restart) if units else ()
        last = {(job.unit, re.split("[_-]", job.job)[0]): job for job in jobs}
        return {key for key, job in last.items() if job.ended is not None}

    def _is_new(self, submission: Submission) -> bool:
        """Whether the engine's list may not show it yet."""
        return abs(time.time() - submission.at) <= self._engine.lag  # `at` is another host's time

    def _submissions(self) -> tuple[Submission, ...]:
        return (read_model(self._folder / files.SUBMITTED, Submissions) or Submissions()).made

    # Runs

    def refresh(self) -> Plan | None:
        """Read records that are new since the last call; return the resolved plan, None before a
        job resolved it.
        """
        # The folder is listed once; where it can't be read, all stays as it was. Final records are
        # replaced with their folder (new inode), others in place, so that these are read again.
        if (
            self._runs is None
            and self._resolved
            and (settings := files.read_resolved(self._folder, self._plan))
        ):
            self._runs = self._plan.resolved(settings)
            self._specs = {spec.run_id: spec for spec in self._runs.runs}
        try:
            with os.scandir(self._folder) as entries:
                there = {
                    entry.name: entry.inode() for entry in entries if entry.name in self._specs
                }
        except OSError:
            return self._runs
        final = {run: known for run, known in self._known.items() if known[1].status in FINAL}
        known = {
            run: final[run]
            for run, inode in there.items()
            if run in final and final[run][0] == inode
        }
        for run in there.keys() - known.keys():
            if record := RunFolder(self._folder / run).record():
                where = {"where": record.environment.get("where")}
                own = {"spec": self._specs[run], "run_id": run, "environment": where}
                known[run] = there[run], record.model_copy(update=LARGE | own)
        self._known = known
        return self._runs

    def records(self) -> tuple[RunRecord, ...]:
        """Return the records of runs so far, in the plan's order; without metrics."""
        self.refresh()
        return tuple(self._known[run][1] for run in self._specs if run in self._known)

    def left(self, again: bool = False) -> dict[int, int]:
        """Return unit -> number of its runs left; `again`: runs that failed in this call are
        left too.
        """
        records = self.records()
        if self._runs is None:
            return {number: len(unit.tasks) for number, unit in enumerate(self._plan.units)}
        left = replace(self._runs, since=None if again else self._plan.call).remaining(records)
        return {number: len(unit) for number, unit in enumerate(left) if unit}

    # Progress

    def due(self, left: Mapping[int, int], others: bool) -> tuple[int, ...]:
        """Return the units to submit again, of `left`: unit without a job -> its runs left;
        `others`: others live.
        """
        # While others live, some time passes between two answers that aren't empty.
        if others and time.monotonic() - self._resubmitted < AGAIN_SECONDS:
            return ()
        self._resubmitted = time.monotonic()
        return tuple(unit for unit, runs in left.items() if not self._is_fruitless(unit, runs))

    def resubmitted(self, units: Iterable[int], left: Mapping[int, int]) -> None:
        """Note that the engine has accepted further jobs of these units."""
        self._refused_since = NEVER
        for unit in units:
            before, fruitless = self._tries.get(unit, ((0, 0), 0))
            now = left[unit], self._saved(unit)
            self._tries[unit] = now, fruitless + 1 if before == now else 1

    def exhausted(self, left: Mapping[int, int]) -> bool:
        return all(self._is_fruitless(unit, runs) for unit, runs in left.items())

    def _is_fruitless(self, unit: int, left: int) -> bool:
        before, fruitless = self._tries.get(unit, ((0, 0), 0))
        return fruitless >= FRUITLESS_LIMIT and before == (left, self._saved(unit))

    def _saved(self, unit: int) -> int:
        """Return the steps of a unit's runs whose state is saved, in sum."""
        runs, attempts = (
            () if self._runs is None else self._runs.units[unit],
            self._folder / files.ATTEMPTS,
        )
        # a checkpoint moves with its run: no other has it
        return sum(
            RunFolder(path).saved for run in runs for path in attempts.glob(f"{run.run_id}.*/")
        )

    def refuses_for_long(self, others: bool) -> bool:
        """Note that the engine refuses a further job; return whether it has for minutes in which
        no other job lived.
        """
        now = time.monotonic()
        if others or self._refused_since == NEVER:
            self._refused_since = NEVER if others else now
        return not others and now - self._refused_since > UNANSWERED_SECONDS


class Claim:
    """The claim of a job on a unit."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.path, self.job = folder / files.CLAIMS / str(job.unit), job

    @property
    def held(self) -> bool:
        """Whether this start of the job still holds the unit: the job may have been restarted
        elsewhere.
        """
        return holder(self.path) == self.job

    def take(self) -> bool:
        """Take the unit unless a job holds it; return whether it was taken."""
        own = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}")
        own.mkdir(parents=True)
        (own / files.OWNER).write_text(self.job.model_dump_json(), encoding="utf-8")
        try:
            os.rename(own, self.path)  # noqa: PTH104 - fails where a claim lies there
        except OSError as error:
            shutil.rmtree(own, ignore_errors=True)
            if error.errno not in TAKEN:
                raise
            return False
        return True

    def release(self) -> None:
        with suppress(UserError):  # what can't be read is left
            if self.held:
                discard(self.path, self.job)


def discard(path: Path, owner: Job | None) -> None:
    """Remove a claim that was seen with this owner; None if its owner's record was cut."""
    # Another job may have removed it and taken the unit since: then that job's claim is put back.
    away = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        os.rename(path, away)  # noqa: PTH104 - of two that remove it, one fails here
    except FileNotFoundError:
        return
    current = holder(away)
    if current is not None and (owner is None or current != owner):
        with suppress(
            OSError
        ):  # a third has taken the unit meanwhile: the second sees that its claim is gone
            os.rename(away, path)  # noqa: PTH104 - fails where a claim lies there
            return
    shutil.rmtree(away, ignore_errors=True)


@contextmanager
def claimed(folder: Path, job: Job, engine: Engine) -> Iterator[Claim]:
    """Hold a unit while the body runs; raises UserError if another job holds it and is not known
    to have ended.
    """
    claim = Claim(folder, job)
    while not claim.take():
        owner = holder(claim.path)
        earlier = owner is not None and owner.job == job.job and owner.restart < job.restart
        if owner is not None and not (earlier or ended_here(owner) or engine.dead(owner)):
            raise UserError(
                f"unit {job.unit} is held by job {owner.job} on {owner.host}; wait for it, or end "
                f"it and remove {claim.path}"
            )
        discard(claim.path, owner)
    try:
        yield claim
    finally:
        claim.release()


def holders(folder: Path, engine: Engine, release: bool = False) -> tuple[Job, ...]:
    """Return the jobs that hold units and aren't known to have ended; `release`: remove the
    claims of the others.
    """
    owners = claims(folder)
    dead = engine.dead_among(owners) | {owner.name for owner in owners if ended_here(owner)}
    for owner in owners:
        if release and owner.name in dead:
            discard(folder / files.CLAIMS / str(owner.unit), owner)
    return tuple(owner for owner in owners if owner.name not in dead)
