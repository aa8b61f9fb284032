"""Sweep by jobs, on the submitter's side: plan, preparation, submission of units with runs left,
waiting, stopping.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from hpml_bench.launch import preparation
from hpml_bench.plugins.engine import Engine, JobBatch, make_engine, units_of
from hpml_bench.records import jobs as plans
from hpml_bench.records.files import PLAN
from hpml_bench.records.folder import ResultsFolder, Say, locked
from hpml_bench.records.jobs import JobPlan
from hpml_bench.records.run import RunRecord
from hpml_bench.report.numbers import count_of
from hpml_bench.suite.profile import Profile
from hpml_bench.sweep.claims import holders
from hpml_bench.sweep.plan import SweepRequest, plan_jobs, recorded_specs
from hpml_bench.sweep.watch import UNANSWERED_SECONDS, Watcher
from hpml_bench.system import processes
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import absolute_keeping_links, remove
from hpml_bench.system.redaction import redacted, without_assigned

POLL_SECONDS = 60.0
FIRST_POLL_SECONDS = 2.0
SUBMITTED_SECONDS = 2 * UNANSWERED_SECONDS
"""Seconds to wait for another process that submits to the same folder: neither would see the
other's jobs.
"""
OPENED_SECONDS = 10.0  # seconds to wait for such a process without a message


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

    @classmethod
    def open(cls, request: SweepRequest, profile: Profile, folder: Path, say: Say) -> JobSweep:
        """Return a folder's sweep, continued or new; UserError without the engine, or if another
        plan's jobs work.
        """
        engine = make_engine(profile)
        engine.check()
        with ResultsFolder.open(
            folder, seconds=OPENED_SECONDS if engine.outlives else 0
        ) as results:
            before = plans.own_plan(folder)
            plan = plan_jobs(request, profile, folder, before)
            if before is not None and (request.fresh or not before.may_overlap(plan)):
                own = before.profile.engine == profile.engine
                refuse_if_jobs_live(
                    folder, before, say, engine if own else make_engine(before.profile)
                )
            if request.fresh and not request.whole:
                results.clear(recorded_specs(folder, plan))
            elif request.fresh:
                results.clear()
                results.forget_measured()
                remove(folder / plans.LOGS)
            sweep = cls(folder, plan, engine, say)
            if request.fresh:
                sweep.watch.forget_submissions()
            usable = before is not None and before.same_open_settings(plan)
            try:
                usable = usable and plans.read_resolved(folder, plan) is not None
            except UserError as error:
                say(f"{error} (it is removed now)")
                usable = False
            if not usable:
                (folder / plans.RESOLVED).unlink(missing_ok=True)
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
        """
        # The jobs then need no network.
        needed = self.plan.digests is None or (
            self.watch.left(again=True) and not self.watch.jobs()
        )
        if self.plan.profile.prepare != "here" or not needed:
            return self
        settings = self.plan.suite.settings
        self.say(f"preparing model and data of {settings.backbone.partition('#')[0]} ...")
        here = {"device": "cpu", "world_size": 1, "threads": 1, "micro_batch": None}
        found = preparation.prepare(settings.model_copy(update=here))
        processes.end_fork_server()  # its memory is free while this process waits
        for warning in found.warnings:
            self.say(warning)
        with self._submitting():
            plans.write_plan(
                self.folder, self._planned().model_copy(update={"digests": found.digests})
            )
        return replace(self, plan=self.plan.model_copy(update={"digests": found.digests}))

    def script(self, detach: bool = False) -> str:
        """Return the script to submit, names of jobs in capitals, without secrets; empty if no
        run is left.
        """
        live = [job for job in self.watch.live() if not job.stuck]
        units = sorted(self.watch.left(again=True).keys() - units_of(live))
        texts, names = [], [job.group for job in live]

        def written(batch: JobBatch) -> str:
            texts.append(self.engine.script(batch))
            names.append(batch.kind.upper())
            return names[-1]

        self._give(units, None, written)
        if detach and names and not any(job.kind == "report" for job in live):
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
            units &= units if only is None else set(only)
            prepare = [
                *(job.group for job in live if job.kind == "prepare"),
                *self.watch.recent("prepare"),
            ]
            preparing = next(iter(prepare), None)
            return self._give(sorted(units), preparing, self._submit)

    def _give(
        self, units: Sequence[int], preparing: str | None, take: Callable[[JobBatch], str]
    ) -> tuple[int, ...]:
        """Pass units' jobs in batches to `take`, which returns their names, each after the one
        before.

        A preparation comes first, unless one is done, or begun as the job `preparing`. Return the
        units accepted; a UserError for the first batch of units, or before, is raised.
        """
        if not units:
            return ()
        work = ("work", str(self.folder / PLAN))
        batches = [
            *self.engine.parts(
                JobBatch(self.plan, self.folder, tuple(units), (*work, "--unit", "{unit}"))
            )
        ]
        done = not self.anew and any(
            job.unit == -1 and job.how == "done" for job in plans.read_jobs(self.folder)
        )
        if self.plan.profile.prepare == "job" and not done and preparing is None:
            batches.insert(
                0, JobBatch(self.plan, self.folder, (), (*work, "--prepare"), kind="prepare")
            )
        taken, ended = tuple[int, ...](), tuple[str, ...]()
        for batch in batches:
            try:
                name = take(replace(batch, prepared=preparing, ended=ended))
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
                taken, ended = taken + batch.units, (name,)
        return taken

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
            names = [*(job.group for job in live if job.group), *self.watch.recent()]
            if (
                names
                and not any(job.kind == "report" for job in live)
                and not self.watch.recent("report")
            ):
                try:
                    self._submit(self._report(names))
                except UserError as error:
                    self.say(
                        f"{error}; no job writes the report: when the others have ended, the same "
                        f"command does"
                    )
        return bool(names)

    def wait(self, found: Callable[[RunRecord], None], poll: float = POLL_SECONDS) -> bool:
        """Wait until no job is left, resubmit units whose jobs ended too early; return whether all
        runs have a record.

        A unit whose jobs bring no new run is given up after some submissions in a row. `found` is
        called with each recorded run once; `poll` is the most seconds between two looks. Raises
        UserError if the engine hasn't answered, or has refused jobs, for a long time, or another
        sweep was begun in the folder meanwhile.
        """
        shown, reasons, began = set[tuple[str, str]](), set[str](), time.monotonic()
        while True:
            live = (
                self.watch.jobs()
            )  # before the records: a job that ends in between has written its own
            for record in self.watch.records():
                if (key := (record.run_id, record.started)) not in shown:
                    shown.add(key)
                    found(record)
            # why jobs wait, while none runs
            new = (
                set()
                if any(job.running for job in live)
                else {job.reason for job in live if job.reason} - reasons
            )
            if new:
                self.say(f"no job runs, {len(live)} wait: {', '.join(sorted(new))}")
            reasons |= new
            left = self.watch.left()
            idle = {unit: left[unit] for unit in sorted(self.watch.without_job(left, live))}
            stopped = bool(left) and plans.read_plan(self.folder).stopped
            if stopped and not live:
                self.say("the sweep was stopped")
                return False
            if (
                not live
                and len(idle) == len(left)
                and (self.watch.refused or self.watch.exhausted(left))
            ):
                return not left
            if idle and not stopped and not self.watch.refused:
                self._submit_again(idle, bool(live))
            self.engine.wait(min(poll, FIRST_POLL_SECONDS + (time.monotonic() - began) / 5))

    def _submit_again(self, left: Mapping[int, int], others: bool) -> None:
        """Submit units (`left`: unit -> its runs left) that have no job; refused ones again
        later, for a time.
        """
        due = self.watch.due(left, others)
        if not due:
            return
        self._planned()
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
        last = {job.unit: job for job in plans.read_jobs(self.folder)}
        ended = (last.get(unit) for unit in (-1, *self.watch.left()))
        reasons = [
            f"a job ended: {job.why}" for job in ended if job is not None and job.why is not None
        ]
        logs = sorted((self.folder / plans.LOGS).glob("*"), key=lambda log: log.stat().st_mtime_ns)
        if not self.watch.refused and not plans.read_plan(self.folder).stopped and not logs:
            where = self.folder / plans.LOGS
            reasons.append(
                f"no job has left a log in {where}: see that the nodes have this folder, under "
                f"this path"
            )
        elif logs and not last:  # such as a line of `setup` that fails
            words = logs[-1].read_text(errors="replace").strip().rpartition("\n")[2]
            reasons.append(
                f"no job began its work; the last line of {logs[-1].name} is: {redacted(words)}"
            )
        return list(dict.fromkeys([*self.watch.refused, *reasons]))

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
        with ExitStack() as held:
            if self.engine.outlives:
                try:
                    held.enter_context(locked(self.folder, OPENED_SECONDS))
                except UserError as error:
                    self.say(f"{error}; waiting for it")
                    held.enter_context(locked(self.folder, SUBMITTED_SECONDS))
            yield

    def _planned(self) -> JobPlan:
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
        """
        with self._submitting():
            plans.write_plan(
                self.folder, plans.read_plan(self.folder).model_copy(update={"stopped": True})
            )
            count = self.engine.stop(self.watch.plan, self.watch.recent())
            deadline = time.monotonic() + 60
            while self.watch.live() and time.monotonic() < deadline:
                time.sleep(0.5)
            self.watch.forget_submissions()
        holders(self.folder, self.engine, release=True)
        return count


def find(path: Path, say: Say) -> JobSweep:
    """Return the sweep of a results folder with a plan, or of the only one in `path`; UserError
    if there is not one.
    """
    if not path.is_dir():
        raise UserError(
            f"{path}: there is no such folder; name the results folder of a sweep, or a folder of "
            f"some"
        )
    folders = plans.folders_with(path, PLAN)
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
    """
    try:
        owned = engine or make_engine(plan.profile)
        owners, watch = holders(folder, owned, release=True), Watcher(folder, plan, owned, say)
        living = sorted(
            {owner.job for owner in owners} | {job.name for job in watch.live()} | {*watch.recent()}
        )
    except (UserError, OSError):
        if engine is not None:
            raise
        return
    if living:
        claimed = (
            f" (of one that was killed, remove {folder / plans.CLAIMS / str(owners[0].unit)})"
            if owners
            else ""
        )
        raise UserError(
            f"{folder}: jobs of another plan, or of another profile, work in it "
            f"({', '.join(living[:3])}); end them "
            f"with hpml-bench stop {folder}{claimed}, or give another --out"
        )
