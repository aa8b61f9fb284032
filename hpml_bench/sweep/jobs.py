"""Sweep by jobs, on the side of the process that submits: plan, preparation, submission of units
with runs left, waiting, stopping.

In come a request and a profile; out go a plan in the results folder, jobs of the engine, and
whether all runs have a record. The runs themselves are the work of the jobs (sweep/job.py). Plans
and submissions are written under a lock of the folder, since two processes that submit at the same
time would not see each other's jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from hpml_bench.launch import preparation
from hpml_bench.plugins.engine import Engine, EngineJob, JobBatch, make_engine, units_of
from hpml_bench.records import jobs as plans
from hpml_bench.records.files import PLAN
from hpml_bench.records.folder import ResultsFolder, Say, locked
from hpml_bench.records.jobs import Job, JobPlan
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.profile import Profile
from hpml_bench.sweep.claims import holders
from hpml_bench.sweep.request import SweepRequest, plan_jobs, recorded_specs
from hpml_bench.sweep.watch import UNANSWERED_SECONDS, Watcher
from hpml_bench.system import processes
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import absolute_keeping_links, end_of, is_plain_file, remove
from hpml_bench.system.redaction import redacted, without_assigned
from hpml_bench.system.text import count_of

POLL_SECONDS = 60.0
"""Most seconds between two looks at the jobs."""
FIRST_POLL_SECONDS = 2.0
"""Seconds after the first look; the time between looks grows from there by a fifth of the time
that has passed.
"""
SUBMITTED_SECONDS = 2 * UNANSWERED_SECONDS
"""Seconds to wait for another process that submits to the same folder: neither would see the
other's jobs.
"""
OPENED_SECONDS = 10.0
"""Seconds to wait for such a process without a message."""
STOP_SECONDS = 60.0
"""Seconds to wait, after all jobs were cancelled, until the engine lists none."""
PREPARATION = -1
"""In place of a unit's number in what a job writes of itself: it prepares model and data."""


@dataclass
class JobSweep:
    """A sweep by jobs: one plan in one folder on one engine."""

    folder: Path
    plan: JobPlan
    engine: Engine
    say: Say  # prints a line; a command replaces it while it shows progress bars
    anew: bool = False
    """Whether settings, runs and a preparation in the folder don't count: in a preview of a
    sweep that begins anew.
    """

    def __post_init__(self) -> None:
        def say(text: str) -> None:
            self.say(text)  # which may be replaced

        self.watch = Watcher(self.folder, self.plan, self.engine, say, not self.anew)

    # Opening

    @classmethod
    def open(cls, request: SweepRequest, profile: Profile, folder: Path, say: Say) -> JobSweep:
        """Return a folder's sweep, continued or new, and write its plan.

        With `request.fresh` the recorded runs of the request are removed, and the list of
        submissions. Where that is the whole suite, logs and measured settings are removed too.
        Raises UserError without the engine, or if another plan's jobs work in the folder.
        """
        engine = make_engine(profile)
        engine.check()
        # jobs that end with this process can't be those of another one that holds the lock
        lock_seconds = OPENED_SECONDS if engine.outlives else 0
        with ResultsFolder.open(folder, seconds=lock_seconds) as results:
            before = plans.own_plan(folder)
            plan = plan_jobs(request, profile, folder, before)
            if before is not None and (request.fresh or not before.may_overlap(plan)):
                same_engine = before.profile.engine == profile.engine
                before_engine = engine if same_engine else make_engine(before.profile)
                refuse_if_jobs_live(folder, before, say, before_engine)
            if request.fresh:
                _clear(request, results, plan)
            sweep = cls(folder, plan, engine, say)
            if request.fresh:
                sweep.watch.forget_submissions()
            if not _has_usable_settings(folder, before, plan, say):
                remove(folder / plans.RESOLVED)
            results.write_suite(request.suite.model_dump_json(indent=1))
            plans.write_plan(folder, plan)
        return sweep

    @classmethod
    def preview(cls, request: SweepRequest, profile: Profile, folder: Path, say: Say) -> JobSweep:
        """Return the same sweep without writing anything, for `--dry-run`."""
        engine = make_engine(profile)
        engine.check()
        before = plans.own_plan(folder)
        plan = plan_jobs(request, profile, folder, before)
        anew = before is None or request.fresh or not before.same_open_settings(plan)
        return cls(folder, plan, engine, say, anew)

    def prepared(self) -> JobSweep:
        """Prepare model and data here if the profile says so and jobs need them; return the
        sweep to submit.

        The jobs then need no network.
        """
        if self.plan.profile.prepare != "here" or not self._needs_preparation():
            return self
        settings = self.plan.suite.settings
        self.say(f"preparing model and data of {settings.backbone.partition('#')[0]} ...")
        # what depends on a machine is the jobs' to decide, and no part of the preparation
        on_this_machine = {"device": "cpu", "world_size": 1, "threads": 1, "micro_batch": None}
        prepared = preparation.prepare(settings.model_copy(update=on_this_machine))
        processes.end_fork_server()  # its memory is free while this process waits
        for warning in prepared.warnings:
            self.say(warning)
        digests = {"digests": prepared.digests}
        with self._submitting():
            plans.write_plan(self.folder, self._planned().model_copy(update=digests))
        return replace(self, plan=self.plan.model_copy(update=digests))

    def _needs_preparation(self) -> bool:
        """Return whether model and data were never prepared, or runs are left and no job lives."""
        if self.plan.digests is None:
            return True
        return bool(self.watch.left(again=True)) and not self.watch.jobs()

    # Submission

    def script(self, detach: bool = False) -> str:
        """Return the script to submit, names of jobs in capitals, without secrets; empty if no
        run is left.
        """
        live = [job for job in self.watch.live() if not job.stuck]
        units = sorted(self.watch.left(again=True).keys() - units_of(live))
        texts: list[str] = []
        names = [job.group for job in live]

        def write(batch: JobBatch) -> str:
            texts.append(self.engine.script(batch))
            names.append(batch.kind.upper())
            return names[-1]

        self._submit_in_order(units, None, write)
        report_is_live = any(job.kind == "report" for job in live)
        if detach and names and not report_is_live:
            texts.append(self.engine.script(self._report(names)))
        return str(redacted(without_assigned("\n".join(texts))))

    def submit(self, again: bool, only: Collection[int] | None = None) -> tuple[int, ...]:
        """Submit the units, of `only` if given, that have runs left and no job; return the accepted
        ones.

        `again`: failed runs count as left. UserError if the engine refuses, or another sweep was
        begun in the folder.
        """
        with self._submitting():
            if self._planned().stopped:
                self.say("the sweep was stopped")
                return ()
            live = self.watch.jobs()
            self.watch.refused.clear()  # of jobs of an earlier profile
            holders(self.folder, self.engine, release=True)
            runs = self.watch.refresh()
            if again and runs is not None and self.plan.digests is not None:
                ResultsFolder(self.folder).set_aside_unusable(runs, self.say)
            if live and again:
                self.say(f"{len(live)} jobs of this sweep wait or run")
            units = self.watch.without_job(self.watch.left(again), live)
            if only is not None:
                units &= set(only)
            return self._submit_in_order(sorted(units), self._preparing(live), self._submit)

    def _preparing(self, live: Iterable[EngineJob]) -> str | None:
        """Return the name of a preparation that is under way, by the engine's list or, where that
        may be old, by its submission.
        """
        listed = [job.group for job in live if job.kind == "prepare"]
        names = [*listed, *self.watch.recent("prepare")]
        return names[0] if names else None

    def _submit_in_order(
        self, units: Sequence[int], preparing: str | None, take: Callable[[JobBatch], str]
    ) -> tuple[int, ...]:
        """Pass units' jobs in batches to `take`, which submits one and returns its name.

        A preparation comes first, unless one is done, or under way as the job `preparing`: units
        begin only after its success. Each batch of units begins after the one before it has ended.
        Return the units of the batches that were taken: those after a refused one are left for
        later, with a message. A UserError is raised if no units were taken before it.
        """
        if not units:
            return ()
        work = ("work", str(self.folder / PLAN))
        all_units = JobBatch(self.plan, self.folder, tuple(units), (*work, "--unit", "{unit}"))
        batches = list(self.engine.parts(all_units))
        by_job = self.plan.profile.prepare == "job"
        if by_job and not self._is_prepared() and preparing is None:
            prepare = JobBatch(self.plan, self.folder, (), (*work, "--prepare"), kind="prepare")
            batches.insert(0, prepare)
        taken: tuple[int, ...] = ()
        batch_before: tuple[str, ...] = ()
        for batch in batches:
            try:
                name = take(replace(batch, prepared=preparing, ended=batch_before))
            except UserError as error:
                if not taken:
                    raise
                left = len(units) - len(taken)
                self.say(
                    f"{error}; the other {left} jobs are submitted when those before have ended"
                )
                break
            if batch.kind == "prepare":
                preparing = name
            else:
                taken += batch.units
                batch_before = (name,)
        return taken

    def _is_prepared(self) -> bool:
        """Return whether a job has prepared model and data."""
        if self.anew:
            return False
        jobs = plans.read_jobs(self.folder)
        return any(job.unit == PREPARATION and job.how == "done" for job in jobs)

    def _submit(self, batch: JobBatch) -> str:
        name = self.engine.submit(batch)
        self.watch.submitted(batch, name)
        if self.engine.starts and batch.kind == "units":
            runs = sum(len(self.plan.units[unit].tasks) for unit in batch.units)
            shown = f" as {name}" if name else ""
            self.say(
                f"{count_of(len(batch.units), 'job')} for {count_of(runs, 'run')} given to "
                f"{self.engine.title}{shown}, {self.engine.profile.parallel} at a time"
            )
        return name

    def _report(self, names: Iterable[str]) -> JobBatch:
        """Return the job that writes the report after those of these names have ended."""
        ended = tuple(dict.fromkeys(names))
        return JobBatch(
            self.plan, self.folder, (), ("report", str(self.folder)), kind="report", ended=ended
        )

    def submit_report(self) -> bool:
        """Submit a job that writes the report when all others have ended; return whether any is
        left to wait for.
        """
        with self._submitting():
            live = () if self._planned().stopped else self.watch.jobs()
            names = [job.group for job in live if job.group]
            names += self.watch.recent()
            reports = [job for job in live if job.kind == "report"]
            if not names or reports or self.watch.recent("report"):
                return bool(names)
            try:
                self._submit(self._report(names))
            except UserError as error:
                self.say(
                    f"{error}; no job writes the report: when the others have ended, the same "
                    f"command does"
                )
        return bool(names)

    # Waiting

    def wait(self, found: Callable[[RunRecord], None], poll: float = POLL_SECONDS) -> bool:
        """Wait until no job is left, resubmit units whose jobs ended too early; return whether all
        runs have a record.

        A unit whose jobs bring no new run is given up after some submissions in a row. `found` is
        called with each recorded run once; `poll` is the most seconds between two looks. Raises
        UserError if the engine hasn't answered, or has refused jobs, for a long time, or another
        sweep was begun in the folder meanwhile.
        """
        shown: set[tuple[str, str]] = set()
        reasons: set[str] = set()
        began = time.monotonic()
        while True:
            # before the records: a job that ends in between has written its own
            live = self.watch.jobs()
            for record in self.watch.records():
                key = (record.run_id, record.started)
                if key not in shown:
                    shown.add(key)
                    found(record)
            reasons |= self._say_why_jobs_wait(live, reasons)
            left = self.watch.left()
            without_job = self.watch.without_job(left, live)
            idle = {unit: left[unit] for unit in sorted(without_job)}
            stopped = bool(left) and plans.read_plan(self.folder).stopped
            if stopped and not live:
                self.say("the sweep was stopped")
                return False
            # a unit in doubt, whose job the engine may not list yet, is in `left` and not in `idle`
            no_job_in_doubt = len(idle) == len(left)
            if not live and no_job_in_doubt and self._nothing_to_submit(left):
                return not left
            if idle and not stopped and not self.watch.refused:
                self._submit_again(idle, bool(live))
            self.engine.wait(min(poll, FIRST_POLL_SECONDS + (time.monotonic() - began) / 5))

    def _nothing_to_submit(self, left: Mapping[int, int]) -> bool:
        """Return whether no further job can bring anything: the engine would never begin it, or
        every unit (`left`: unit -> its runs left) was given up.
        """
        return bool(self.watch.refused) or self.watch.exhausted(left)

    def _say_why_jobs_wait(self, live: Collection[EngineJob], said: set[str]) -> set[str]:
        """Say once, while no job runs, for which reasons jobs wait; return those not `said` yet."""
        if any(job.running for job in live):
            return set()
        new = {job.reason for job in live if job.reason} - said
        if new:
            self.say(f"no job runs, {len(live)} wait: {', '.join(sorted(new))}")
        return new

    def _submit_again(self, left: Mapping[int, int], others: bool) -> None:
        """Submit units (`left`: unit -> its runs left) that have no job; refused ones again
        later, for a time.
        """
        due = self.watch.due(left, others)
        if not due:
            return
        self._planned()  # raises if another sweep was begun here
        self.say(f"{count_of(len(due), 'unit')} with runs left and no job: submitted")
        try:
            self.watch.resubmitted(self.submit(again=False, only=due), left)
        except UserError as error:
            if self.watch.refuses_for_long(others):
                raise
            self.say(f"{error}; trying again")

    def reasons(self) -> list[str]:
        """Return the distinct reasons why runs are missing: jobs were refused, have failed, or
        have left no log.
        """
        last_of_unit = {job.unit: job for job in plans.read_jobs(self.folder)}
        reasons = list(self.watch.refused)
        for unit in (PREPARATION, *self.watch.left()):
            job = last_of_unit.get(unit)
            if job is not None and job.why is not None:
                reasons.append(f"a job ended: {job.why}")
        reason = self._reason_by_logs(last_of_unit)
        if reason is not None:
            reasons.append(reason)
        return list(dict.fromkeys(reasons))

    def _reason_by_logs(self, last_of_unit: Mapping[int, Job]) -> str | None:
        """Return what the jobs' logs say where no job has begun its work; None if nothing."""
        folder = self.folder / plans.LOGS
        plain_logs = filter(is_plain_file, folder.glob("*"))
        logs = sorted(plain_logs, key=lambda log: log.stat().st_mtime_ns)
        if not logs:
            if self.watch.refused or plans.read_plan(self.folder).stopped:
                return None  # no job was begun, and that is known
            return (
                f"no job has left a log in {folder}: see that the nodes have this folder, under "
                f"this path"
            )
        if last_of_unit:
            return None
        # such as a line of `setup` that fails
        last_line = end_of(logs[-1]).strip().rpartition("\n")[2]
        return f"no job began its work; the last line of {logs[-1].name} is: {redacted(last_line)}"

    # Locks and stopping

    def held(self) -> AbstractContextManager[None]:
        """Lock the folder while the body runs, if jobs end with this process; UserError if
        another one holds it.
        """
        return nullcontext() if self.engine.outlives else locked(self.folder)

    @contextmanager
    def _submitting(self) -> Iterator[None]:
        """Hold the lock of submitting, stopping and planning here; no-op where jobs end with
        this process.
        """
        with ExitStack() as lock:
            if self.engine.outlives:
                try:
                    lock.enter_context(locked(self.folder, OPENED_SECONDS))
                except UserError as error:
                    self.say(f"{error}; waiting for it")
                    lock.enter_context(locked(self.folder, SUBMITTED_SECONDS))
            yield

    def _planned(self) -> JobPlan:
        """Return the folder's plan; UserError if it is no longer that of this sweep."""
        planned = plans.read_plan(self.folder)
        if not planned.may_overlap(self.plan):
            raise UserError(
                f"{self.folder}: another sweep, or this one with another profile, was begun here "
                "meanwhile; give another --out"
            )
        return planned

    def stop(self) -> int:
        """End all jobs, and remove their claims; return their number. A process that waits for
        them resubmits none.

        Raises UserError where the engine doesn't answer. The submissions are kept in that case, and
        where jobs are still ending after `STOP_SECONDS`, so that another call finds those jobs.
        """
        with self._submitting():
            # first: a process that waits reads it before it submits anything again
            stopped = plans.read_plan(self.folder).model_copy(update={"stopped": True})
            plans.write_plan(self.folder, stopped)
            try:
                count = self.engine.stop(self.watch.plan, self.watch.recent())
                deadline = time.monotonic() + STOP_SECONDS
                live = self.watch.live()
                while live and time.monotonic() < deadline:
                    time.sleep(0.5)
                    live = self.watch.live()
            except UserError as error:
                raise UserError(
                    f"{error}; jobs of the sweep may still wait or run: once {self.engine.title} "
                    f"answers, end them with hpml-bench stop {self.folder}"
                ) from None
            if not live:
                self.watch.forget_submissions()
        holders(self.folder, self.engine, release=True)
        return count


def _clear(request: SweepRequest, results: ResultsFolder, plan: JobPlan) -> None:
    """Remove the results of a request that begins anew, and what was measured for them."""
    if not request.whole:
        results.clear(recorded_specs(results.path, plan))
        return
    results.clear()
    results.forget_measured()
    remove(results.path / plans.LOGS)


def _has_usable_settings(folder: Path, before: JobPlan | None, plan: JobPlan, say: Say) -> bool:
    """Return whether the settings that a job of the plan `before` resolved hold for this plan."""
    if before is None or not before.same_open_settings(plan):
        return False
    try:
        return plans.read_resolved(folder, plan) is not None
    except UserError as error:
        say(f"{error} (it is removed now)")
        return False


def find(path: Path, say: Say) -> JobSweep:
    """Return the sweep of a results folder with a plan, or of the only one in `path`; UserError
    if there is not one.

    A link in `path` is named and left out; `path` itself may be one.
    """
    if not path.is_dir():
        raise UserError(
            f"{path}: there is no such folder; name the results folder of a sweep, or a folder of "
            f"some"
        )
    folders = []
    for folder in plans.folders_with(path, PLAN):
        # whoever wrote a folder could put a link to any sweep into it, whose jobs `stop` would end
        if folder != path and folder.is_symlink():
            say(f"{folder}: is a link, and left out; name it to have the sweep that it leads to")
        else:
            folders.append(folder)
    if not folders:
        raise UserError(
            f"{path}: there is no sweep by jobs here, as run-all --on makes it; one on this "
            "machine is shown by status once a run is recorded, and is ended by Ctrl-C"
        )
    if len(folders) != 1:
        names = ", ".join(map(str, folders)) or "none"
        raise UserError(
            f"{path}: name the results folder of one sweep by jobs, as run-all --on makes it "
            f"(here: {names})"
        )
    plan = plans.own_plan(folders[0])
    if plan is None:  # its jobs, if any live, are those of another sweep
        raise UserError(
            f"{folders[0]}: its plan was made for another folder; run-all --on PROFILE makes one "
            f"here"
        )
    return JobSweep(absolute_keeping_links(folders[0]), plan, make_engine(plan.profile), say)


def refuse_if_jobs_live(
    folder: Path, plan: JobPlan, say: Say, engine: Engine | None = None
) -> None:
    """Refuse a folder in which jobs of a plan wait or work; the error names them, and how to end
    them.

    Without its `engine` a machine that has none of the engine's commands is asked for nothing.
    An engine that doesn't answer is a refusal too: it isn't known that no job lives.
    """
    if engine is None:
        try:
            engine = make_engine(plan.profile)
        except UserError:  # its plug-in isn't installed here
            return
        if engine.lacks() is not None:
            return
    owners = holders(folder, engine, release=True)
    watch = Watcher(folder, plan, engine, say)
    try:
        live = watch.live()
    except UserError as error:
        raise UserError(
            f"{folder}: it isn't known whether jobs of an earlier plan work in it ({error}); try "
            f"again once {engine.title} answers, or give another --out"
        ) from None
    names = {owner.job for owner in owners}
    names |= {job.name for job in live}
    names |= set(watch.recent())
    if not names:
        return
    living = sorted(names)
    claimed = ""
    if owners:
        claim = folder / plans.CLAIMS / str(owners[0].unit)
        claimed = f" (of one that was killed, remove {claim})"
    raise UserError(
        f"{folder}: jobs of another plan, or of another profile, work in it "
        f"({', '.join(living[:3])}); end them "
        f"with hpml-bench stop {folder}{claimed}, or give another --out"
    )
