"""Plan of a sweep: the runs that a call requests, in random order of methods, and for jobs cut into
units.

Methods are shuffled within a seed, so that the place of a method doesn't bias its figures. A
machine gets faster or slower over hours, or is disturbed every so many runs. Any fixed design, such
as a Williams square, meets a disturbance of some period with the same method again and again;
random orders meet it by chance alone, for which tests over seeds allow (Fisher 1935, *The Design of
Experiments*, §9).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random

from hpml_bench.plugins.method import check_methods, commands_of, make_method
from hpml_bench.records.files import KEPT
from hpml_bench.records.jobs import JobPlan, Unit, UnitRun, plan_id
from hpml_bench.records.load import load_records
from hpml_bench.records.plan import UNLIMITED, Limits
from hpml_bench.records.run import Declared
from hpml_bench.suite.devices import decided_as
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.settings import RunSpec, Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.system.errors import UserError
from hpml_bench.training.request import Place


@dataclass(frozen=True)
class SweepRequest:
    """Runs of a suite that a call requests."""

    suite: Suite  # suite as requested: settings may be left open
    out: Path  # parent of the suite's results folder
    methods: tuple[str, ...] | None = None  # names of methods; None for the suite's own
    seeds: tuple[int, ...] | None = None  # seeds; None for the suite's own
    most: int | None = None  # number of runs, the first ones in the order of a sweep; None for all
    limits: Limits = UNLIMITED
    fresh: bool = False  # whether earlier results are removed first
    verbose: bool = False  # whether the log of rank 0 is shown
    save: Path | None = None  # folder in which a single run saves its model
    keep: bool = False  # whether each run's trained parts are kept in its folder
    allow_commands: bool = False  # whether commands that the suite names may be run
    # monotonic time from which hours count, of a round of a race; None: as the call begins
    began: float | None = None

    @property
    def folder(self) -> Path:
        return self.out / self.suite.name

    @property
    def whole(self) -> bool:
        return self.methods is None and (self.seeds is None or self.suite.until is not None)

    def save_to(self, folder: Path) -> Path | None:
        """Return where a run of this folder saves its trained parts; None if nowhere."""
        return folder / KEPT if self.keep else self.save and self.save.resolve()

    def runs(self, suite: Suite) -> tuple[RunSpec, ...]:
        return tuple(shuffled(suite.runs(self.methods, self.seeds), suite)[: self.most])

    def check(self, settings: Settings) -> None:
        """Refuse methods that can't be run, before anything is written; a node may have to
        resolve `settings` yet.
        """
        specs = self.suite.runs(self.methods, [0])
        if not specs:
            raise UserError(
                f"suite {self.suite.name}: there is no method to run; name some under methods, or "
                f"by --methods a,b"
            )
        check_methods((spec.method for spec in specs), settings)
        if self.save and not (make_method(specs[0].method).trains or self.commands):
            raise UserError(
                f"--save: {specs[0].method.name} trains nothing, so that there is nothing to save"
            )
        if self.commands and not self.allow_commands:
            raise UserError(
                f"suite {self.suite.name} runs commands: {'; '.join(self.commands)}. Read them and "
                "the programs that they start, and allow them with --allow-commands"
            )

    @property
    def commands(self) -> tuple[str, ...]:
        """Names of methods with the commands that their runs start."""
        specs = self.suite.runs(self.methods, [0])
        return tuple(
            f"{name}: {words}" for name, words in commands_of(spec.method for spec in specs).items()
        )


def shuffled(runs: Iterable[RunSpec], suite: Suite) -> list[RunSpec]:
    """Return the runs seed by seed, with another order of methods in each."""
    # The order depends on the seed and the suite's name and methods alone, so that a sweep keeps it
    # when it is resumed, gets more seeds or runs only some methods. Methods that the suite doesn't
    # have come last.
    methods = list(suite.methods)

    def order_key(spec: RunSpec) -> tuple[int, int]:
        name, row = spec.method.name, methods_of_seed(len(methods), spec.seed, suite.name)
        return spec.seed, row.index(methods.index(name)) if name in methods else len(methods)

    return sorted(runs, key=order_key)


def places(runs: Iterable[RunSpec], suite: Suite) -> dict[str, Place]:
    """Return run_id -> place in the sweep and within its seed, with the suite's declarations."""
    declared = Declared(
        seeds=suite.seeds,
        margin=suite.margin,
        until=suite.until,
        looks=suite.looks,
        prior=suite.prior,
    )
    seen = Counter[int]()
    by_run, planned = {}, list(runs)
    # a round of a race goes on with the seeds of those before it, as if each had had all methods
    before = (
        len(suite.methods) * min((spec.seed for spec in planned), default=0) if suite.until else 0
    )
    for order, spec in enumerate(planned, start=1 + before):
        seen[spec.seed] += 1
        by_run[spec.run_id] = Place(order, seen[spec.seed], declared)
    return by_run


def methods_of_seed(count: int, seed: int, lot: str) -> tuple[int, ...]:
    """Return the numbers of `count` methods in the order of one seed; `lot` makes it differ
    between suites.
    """
    # Two methods don't keep one order in three seeds, counted from 0: by chance they would in a
    # quarter of suites, and a disturbance of every second run would then meet the same method in
    # all three.
    if count == 2 and seed % 3 == 2 and _drawn(2, seed - 2, lot) == _drawn(2, seed - 1, lot):
        return _drawn(2, seed - 1, lot)[::-1]
    return _drawn(count, seed, lot)


def _drawn(count: int, seed: int, lot: str) -> tuple[int, ...]:
    return tuple(Random(f"{lot} {seed}").sample(range(count), count))  # noqa: S311 - no secret


def plan_jobs(
    request: SweepRequest, profile: Profile, folder: Path, before: JobPlan | None
) -> JobPlan:
    """Return a new plan, with the digests of the plan `before` if both have the same runs;
    UserError if it can't be.
    """
    suite = request.suite
    request.check(suite.settings)
    profile.ranks_per_node(suite.settings.world_size)  # refuses ranks that can't be divided equally
    earlier = (
        [record.call for record in load_records(folder).records]
        if before is None
        else [before.call]
    )
    tasks = [
        UnitRun(method=spec.method.name, seed=spec.seed) for spec in request.runs(suite)
    ]  # in a sweep's order
    units = [[task] for task in tasks]
    if profile.unit == "seed":
        units = [list(of_seed) for _, of_seed in groupby(tasks, key=lambda task: task.seed)]
    made = JobPlan(
        id=plan_id(folder),
        suite=suite,
        profile=profile,
        units=tuple(Unit(tasks=tuple(own)) for own in units),
        limits=request.limits,
        verbose=request.verbose,
        keep=request.keep,
        call=max(earlier, default=0) + 1,
    )
    if before is None or not before.same_units(made):
        return made
    return made.model_copy(update={"digests": before.digests})


def recorded_specs(folder: Path, plan: JobPlan) -> list[RunSpec]:
    """Return the recorded runs of a plan, with any values that a node decided for open settings."""
    planned, found = {(task.method, task.seed) for unit in plan.units for task in unit.tasks}, []
    for spec in (record.spec for record in load_records(folder).records):
        if (spec.method.name, spec.seed) in planned:
            settings = decided_as(plan.suite.settings, spec.settings)
            suite = plan.suite.model_copy(update={"settings": settings})
            found += [run for run in suite.runs([spec.method.name], [spec.seed]) if run == spec]
    return found
