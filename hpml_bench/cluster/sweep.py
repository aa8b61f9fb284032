"""Sweep by jobs, as its submitter sees it: plan, submission of what is missing, waiting, stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from hpml_bench.cluster.claims import release_dead
from hpml_bench.config.profile import Profile
from hpml_bench.config.settings import RunSpec, Settings
from hpml_bench.config.suite import Suite
from hpml_bench.errors import UserError
from hpml_bench.launch import preparation
from hpml_bench.launch.limits import Limits
from hpml_bench.launch.order import balanced
from hpml_bench.plugins.engine import Batch, Engine, Live, make_engine, units_of
from hpml_bench.plugins.method import check_methods
from hpml_bench.records import plan as plans
from hpml_bench.records.files import PLAN, RECORD, remove
from hpml_bench.records.folder import ResultsFolder, locked
from hpml_bench.records.plan import Plan, Task, Unit
from hpml_bench.records.run import Digests, RunRecord, protocol_id
from hpml_bench.system.text import utc_now

Say = Callable[[str], None]
POLL_SECONDS = 5.0
UNANSWERED_SECONDS = 600.0
"""For so long an engine may fail to answer what jobs there are."""
SUBMITTED_SECONDS = 120.0
"""For so long another process that submits to the same folder is waited for: it would not see our jobs, nor we its."""
VAIN = 2
"""Submissions in a row that bring no new run before the sweep is given up."""


@dataclass(frozen=True)
class Asked:
    """What a call of run-all asks for."""

    suite: Suite
    profile: Profile
    methods: tuple[str, ...] | None
    limits: Limits
    verbose: bool = False

    def tasks(self) -> list[Task]:
        """Return the runs, seed by seed, methods in the balanced order of a sweep."""
        runs = balanced(self.suite.runs(self.methods), list(self.suite.methods))
        return [Task(method=spec.method.name, seed=spec.seed) for spec in runs]

    def units(self) -> tuple[Unit, ...]:
        """Return the runs cut into units."""
        tasks = self.tasks()
        if self.profile.unit == "run":
            return tuple(Unit(tasks=(task,)) for task in tasks)
        by_seed: dict[int, list[Task]] = {}
        for task in tasks:
            by_seed.setdefault(task.seed, []).append(task)
        return tuple(Unit(tasks=tuple(group)) for group in by_seed.values())

    def plan(self, folder: Path) -> Plan:
        """Return a new plan of a results folder.

        Raises:
            UserError: there is no method to run, or one can't be run.

        """
        specs = self.suite.runs(self.methods, [0])
        if not specs:
            raise UserError(
                f"suite {self.suite.name}: there is no method to run; name some under methods, or by --methods a,b"
            )
        check_methods((spec.method for spec in specs), self.suite.settings)
        ranks, nodes = self.suite.settings.world_size, self.profile.nodes
        if ranks is not None and ranks % nodes:
            raise UserError(f"{ranks} ranks can't be parted over {nodes} nodes; give --nproc a multiple of {nodes}")
        limits = plans.Limits(stall=self.limits.stall, run_timeout=self.limits.run_timeout, retries=self.limits.retries)
        return Plan(
            id=plans.plan_id(folder), asked=utc_now(), suite=self.suite, profile=self.profile, units=self.units(),
            limits=limits, verbose=self.verbose,
        )  # fmt: skip


class Sweep:
    """A sweep that jobs do."""

    def __init__(self, folder: Path, plan: Plan, engine: Engine, say: Say) -> None:
        """Keep them."""
        self.folder, self.plan, self.engine, self.say = folder, plan, engine, say
        self._results = ResultsFolder(folder)
        self._specs: list[list[RunSpec]] | None = None
        self._known: dict[str, tuple[tuple[int, ...], RunRecord | None]] = {}
        """run_id -> record, and by what its file is told from a later one."""
        self._last: str | None = None

    @classmethod
    def open(cls, asked: Asked, folder: Path, say: Say, fresh: bool = False) -> Sweep:
        """Return the sweep of a results folder: the one that was planned before, or a new one.

        Raises:
            UserError: the engine can't be had, or jobs of another plan work in the folder.

        """
        engine = make_engine(asked.profile)
        engine.check()
        with ResultsFolder.open(folder) as results:
            before = plans.read_plan(folder) if (folder / PLAN).exists() else None
            plan = asked.plan(folder)
            if before is not None:
                owned = make_engine(before.profile)
                if before.profile.engine == asked.profile.engine:
                    owned = engine
                living = [job.job for job in release_dead(folder, owned)] + [job.name for job in owned.live(before)]
                same = _same(before, plan) and not fresh and before.profile.engine == asked.profile.engine
                if living and not same:
                    raise UserError(
                        f"{folder}: jobs of another plan work in it ({', '.join(sorted(set(living))[:3])}); end them "
                        f"with hpml-bench stop {folder}, or give another --out"
                    )
                if same:
                    plan = plan.model_copy(update={"digests": before.digests})
            if before is None or not _resolved_alike(before, plan):
                (folder / plans.RESOLVED).unlink(missing_ok=True)
            if fresh and asked.methods is not None:
                results.clear(spec for unit in cls(folder, plan, engine, say).specs() or () for spec in unit)
            elif fresh:
                results.clear()
                results.forget_measured()
                remove(folder / plans.LOGS)
            results.write_suite(asked.suite.model_dump_json(indent=1))
            plans.write_plan(folder, plan)
        return cls(folder, plan, engine, say)

    @classmethod
    def look(cls, asked: Asked, folder: Path, say: Say) -> Sweep:
        """Return the same without writing anything, for `--dry-run`."""
        engine = make_engine(asked.profile)
        engine.check()
        plan = asked.plan(folder)
        before = plans.read_plan(folder) if (folder / PLAN).exists() else None
        if before is not None and _same(before, plan):
            plan = plan.model_copy(update={"digests": before.digests})
        return cls(folder, plan, engine, say)

    def _set_aside_unusable(self) -> None:
        """Set damaged runs aside, and those on other rows or weights, as a sweep without jobs does."""
        specs, digests = self.specs(), self.plan.digests
        if specs is not None and digests is not None:
            flat = [spec for unit in specs for spec in unit]
            protocol = protocol_id(flat[0].settings, digests)
            self._results.set_aside_unusable(flat, protocol, self.say)

    @property
    def unprepared(self) -> bool:
        """Whether model and data are to be prepared in this process, since jobs are to be submitted that need them."""
        if self.plan.profile.prepare != "here":
            return False
        return self.plan.digests is None or bool(self.missing(again=True) and not self._live())

    def prepare_here(self) -> None:
        """Prepare model and data in this process, so that the jobs need no network.

        Raises:
            UserError: they can't be had.

        """
        settings = self.plan.suite.settings
        self.say(f"preparing model and data of {settings.backbone.partition('#')[0]} ...")
        here = {"device": "cpu", "world_size": 1, "threads": 1, "micro_batch": None}
        prepared = preparation.prepare(settings.model_copy(update=here))
        for warning in prepared.warnings:
            self.say(warning)
        self.plan = self.plan.model_copy(update={"digests": prepared.digests})
        plans.write_plan(self.folder, self.plan)

    # What is done

    def specs(self) -> list[list[RunSpec]] | None:
        """Return the runs of each unit; None before a job has resolved the settings."""
        if self._specs is None:
            settings = plans.read_resolved(self.folder)
            self._specs = None if settings is None else self.plan.specs(settings)
        return self._specs

    def records(self) -> tuple[RunRecord, ...]:
        """Return the records of the plan's runs."""
        found = (self._record(spec) for unit in self.specs() or () for spec in unit)
        return tuple(record for record in found if record is not None)

    def _record(self, spec: RunSpec) -> RunRecord | None:
        """Return the record of a run; it is read again only where its file is another one."""
        run = self._results.run_folder(spec)
        try:
            there = (run.path / RECORD).stat()
        except OSError:
            return None
        mark = there.st_ino, there.st_mtime_ns, there.st_size
        known = self._known.get(spec.run_id)
        if known is None or known[0] != mark:
            known = self._known[spec.run_id] = mark, run.record()
        return known[1]

    def missing(self, again: bool) -> tuple[int, ...]:
        """Return the units of which a run is to be done; with `again`, also where one has failed since asked."""
        specs = self.specs()
        if specs is None:
            return tuple(range(len(self.plan.units)))
        return tuple(
            number for number, unit in enumerate(specs) if not all(self._settled(spec, again) for spec in unit)
        )

    def _settled(self, spec: RunSpec, again: bool) -> bool:
        record = self._record(spec)
        return record is not None and self.plan.settles(record, self._protocol(spec.settings, record), again)

    def _progress(self) -> int:
        """Return how many runs need not be done any more."""
        return sum(self._settled(spec, again=False) for unit in self.specs() or () for spec in unit)

    def _protocol(self, settings: Settings, record: RunRecord) -> str | None:
        digests: Digests | None = self.plan.digests or record.digests
        return None if digests is None else protocol_id(settings, digests)

    # Jobs

    def batch(self, units: Sequence[int], after: str | None = None) -> Batch:
        """Return the jobs of units."""
        arguments = ("work", str(self.folder / PLAN), "--unit", "{unit}")
        return Batch(self.plan, self.folder, tuple(units), arguments, after=after)

    def script(self, fresh: bool = False) -> str:
        """Return what would be submitted; nothing where nothing is missing."""
        missing = range(len(self.plan.units)) if fresh else self.missing(again=True)
        return self.engine.script(self.batch(missing)) if missing else ""

    def submit(self, again: bool) -> int:
        """Submit the units that are missing and have no job; return how many.

        Raises:
            UserError: the engine refuses them, or another process that submits doesn't end.

        """
        with nullcontext() if not self.engine.outlives else locked(self.folder, SUBMITTED_SECONDS):
            return self._submit(again)

    def _submit(self, again: bool) -> int:
        live = self._live()
        release_dead(self.folder, self.engine)
        if again:
            self._set_aside_unusable()
        if live:
            self.say(f"{len(live)} jobs of this sweep wait or run")
        units = sorted(set(self.missing(again)) - units_of(live))
        if not units:
            return 0
        after = None
        prepared = any(job.unit == -1 and job.how == "done" for job in plans.read_jobs(self.folder))
        if self.plan.profile.prepare == "job" and not prepared:
            arguments = ("work", str(self.folder / PLAN), "--prepare")
            after = self.engine.submit(Batch(self.plan, self.folder, (), arguments, kind="prepare"))
        name = self.engine.submit(self.batch(units, after))
        runs = sum(len(self.plan.units[unit].tasks) for unit in units)
        if self.engine.starts:
            said = f"{len(units)} jobs for {runs} runs were given to {self.engine.title}" + (
                f" as {name}" if name else ""
            )
            self.say(f"{said}, {self.plan.profile.parallel} at a time")
        self._last = name
        return len(units)

    def submit_report(self) -> None:
        """Submit a job that writes the report when the others have ended."""
        arguments = ("report", str(self.folder))
        self.engine.submit(Batch(self.plan, self.folder, (), arguments, kind="report", after=self._last))

    def wait(self, found: Callable[[RunRecord], None], poll: float = POLL_SECONDS) -> bool:
        """Wait until no job is left, submitting anew what jobs have left undone; return whether all runs have a record.

        Args:
            found: takes each record once, as it is found.
            poll: seconds between two looks.

        """
        seen: set[tuple[str, str]] = set()
        vain, before = 0, -1
        began = time.monotonic()
        while True:
            live = self._live()  # before the records: a job that ends in between has written its own
            for record in self.records():
                key = record.run_id, record.started
                if key not in seen:
                    seen.add(key)
                    found(record)
            if not live:
                missing = self.missing(again=False)
                if not missing:
                    return True
                if plans.read_plan(self.folder).stopped:
                    self.say("the sweep was stopped")
                    return False
                done = self._progress()
                vain, before = (0, done) if done > before else (vain + 1, before)
                if vain >= VAIN:
                    return False
                self.say(f"{len(missing)} jobs ended with runs left to do; submitting them again")
                self.submit(again=False)
            self.engine.wait(min(poll, 0.5 + (time.monotonic() - began) / 10))

    def _live(self) -> tuple[Live, ...]:
        """Return the jobs that wait or run; those that the engine will never begin are cancelled.

        An engine that doesn't answer is asked again for some minutes.

        Raises:
            UserError: it hasn't answered all that time.

        """
        deadline = time.monotonic() + UNANSWERED_SECONDS
        while True:
            try:
                live = self.engine.live(self.plan)
                stuck = [job for job in live if job.stuck]
                if stuck:
                    self.say(f"job {stuck[0].name} ({len(stuck)} in all) is held: {stuck[0].state.lower()}; cancelled")
                    self.engine.cancel(stuck)
                return tuple(job for job in live if not job.stuck)
            except UserError as error:
                if time.monotonic() > deadline:
                    raise
                self.say(f"{error}; asking again")
                time.sleep(POLL_SECONDS)

    def reasons(self) -> list[str]:
        """Return of what the last jobs of the units that are missing have failed, each reason once."""
        last = {job.unit: job for job in plans.read_jobs(self.folder)}
        found = (last.get(unit) for unit in (-1, *self.missing(again=False)))
        return list(dict.fromkeys(job.why for job in found if job is not None and job.why is not None))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder while the body runs, if jobs end with this process: nobody else is to work in it meanwhile.

        Raises:
            UserError: another process holds it; says which.

        """
        with nullcontext() if self.engine.outlives else locked(self.folder):
            yield

    def stop(self) -> int:
        """End all jobs, and remove their claims; return how many there were. Who waits for them submits none again."""
        plans.write_plan(self.folder, self.plan.model_copy(update={"stopped": True}))
        count = self.engine.stop(self.plan)
        deadline = time.monotonic() + 60
        while self.engine.live(self.plan) and time.monotonic() < deadline:
            time.sleep(0.5)
        release_dead(self.folder, self.engine)
        return count


def find(path: Path, say: Say) -> Sweep:
    """Return the sweep of a results folder with a plan, or of the one folder in `path` that has one.

    Raises:
        UserError: there is none, or there are several.

    """
    folders = [path] if (path / PLAN).exists() else sorted(found.parent for found in path.glob(f"*/{PLAN}"))
    if len(folders) != 1:
        names = ", ".join(map(str, folders)) or "none"
        raise UserError(f"{path}: name a results folder with a plan, as run-all --on makes it (here: {names})")
    plan = plans.read_plan(folders[0])
    return Sweep(folders[0].resolve(), plan, make_engine(plan.profile), say)


def _same(before: Plan, plan: Plan) -> bool:
    """Tell whether two plans are of the same runs, cut in the same way."""
    return before.suite == plan.suite and before.units == plan.units and before.profile.nodes == plan.profile.nodes


def _resolved_alike(before: Plan, plan: Plan) -> bool:
    """Tell whether jobs of two plans resolve the same settings; if in doubt, they don't, and each job looks again."""
    return before.suite.settings == plan.suite.settings and before.profile.place == plan.profile.place
