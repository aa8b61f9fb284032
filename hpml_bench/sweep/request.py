"""Plan of a sweep: the runs that a call requests, in random order of methods, and for jobs cut into
units.

In comes a `SweepRequest`, which a command makes from its suite and options. Out go its runs in the
order in which they are done, the place of each in that order, and for jobs a `JobPlan`. Nothing is
written here.

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

from hpml_bench.plugins.method import check_methods, commands_of, doubts_of, make_method
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
    most: int | None = None
    """Number of planned runs, the first ones in the order of a sweep, recorded ones included; None
    for all. It limits what is planned, not what a call begins.
    """
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
        """The suite's results folder."""
        return self.out / self.suite.name

    @property
    def whole(self) -> bool:
        """Whether the request is for the whole suite, so that `fresh` is about its whole folder."""
        # the seeds of a race are those of its round, and no choice of the user's
        return self.methods is None and (self.seeds is None or self.suite.until is not None)

    def save_to(self, folder: Path) -> Path | None:
        """Return where a run of this folder saves its trained parts; None if nowhere."""
        if self.keep:
            return folder / KEPT
        return None if self.save is None else self.save.resolve()

    def runs(self, suite: Suite) -> tuple[RunSpec, ...]:
        """Return the requested runs in the order of a sweep; `suite` is the request's own, whose
        settings may have been resolved since. UserError for a method that it doesn't know.
        """
        in_order = shuffled(suite.runs(self.methods, self.seeds), suite)
        return tuple(in_order[: self.most])

    def check(self, settings: Settings, elsewhere: bool = False) -> None:
        """Raise UserError if the request can't be run, before anything is written.

        It has no method, a method that doesn't go with `settings` (of which a node may have to
        resolve some yet) or lacks a program, nothing to save in spite of `save`, or commands that
        aren't allowed. `elsewhere`: whether jobs that may be on other machines do the runs.
        """
        specs = self.suite.runs(self.methods, [0])
        if not specs:
            raise UserError(
                f"suite {self.suite.name}: there is no method to run; name some under methods, or "
                f"by --methods a,b"
            )
        check_methods((spec.method for spec in specs), settings, elsewhere)
        if self.save:
            # only `run` has --save, and it has one method; a command may train whatever it likes
            method = specs[0].method
            if not (make_method(method).trains or self.commands):
                raise UserError(
                    f"--save: {method.name} trains nothing, so that there is nothing to save"
                )
        if self.commands and not self.allow_commands:
            raise UserError(
                f"suite {self.suite.name} runs commands: {'; '.join(self.commands)}. Read them and "
                "the programs that they start, and allow them with --allow-commands"
            )

    @property
    def doubts(self) -> list[str]:
        """What its runs lack on this machine, and jobs on others may have, in sentences."""
        return doubts_of(spec.method for spec in self.suite.runs(self.methods, [0]))

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that runs start, as `METHOD: COMMAND`; methods without one are left out."""
        specs = self.suite.runs(self.methods, [0])
        command_of = commands_of(spec.method for spec in specs)
        return tuple(f"{method}: {command}" for method, command in command_of.items())


def shuffled(runs: Iterable[RunSpec], suite: Suite) -> list[RunSpec]:
    """Return the runs seed by seed, with another order of methods in each.

    The order within a seed depends on the seed and on the suite's name and methods alone, not on
    which runs are given: a sweep keeps it when it is resumed, gets more seeds or runs only some
    methods. Methods that the suite doesn't have come last in their seed, in the order given.
    """
    methods = list(suite.methods)

    def order_key(spec: RunSpec) -> tuple[int, int]:
        name = spec.method.name
        if name not in methods:
            return spec.seed, len(methods)
        order = methods_of_seed(len(methods), spec.seed, suite.name)
        place = order.index(methods.index(name))
        return spec.seed, place

    return sorted(runs, key=order_key)


def places(runs: Iterable[RunSpec], suite: Suite) -> dict[str, Place]:
    """Return run_id -> place in the sweep and within its seed, with the suite's declarations.

    The runs are all those of a sweep in the order in which they are done, or those of a round of a
    race. Places count from 1, those in the sweep through all rounds.
    """
    declared = Declared(
        seeds=suite.seeds,
        margin=suite.margin,
        until=suite.until,
        looks=suite.looks,
        prior=suite.prior,
    )
    planned = list(runs)
    runs_before = 0
    if suite.until is not None:
        # A round goes on with the seeds after those of the rounds before it. Each of these seeds
        # counts as if all methods had run in it, so that no place is taken twice.
        first_seed = min((spec.seed for spec in planned), default=0)
        runs_before = first_seed * len(suite.methods)

    place_of_run: dict[str, Place] = {}
    runs_of_seed = Counter[int]()
    for in_sweep, spec in enumerate(planned, start=runs_before + 1):
        runs_of_seed[spec.seed] += 1
        place_of_run[spec.run_id] = Place(in_sweep, runs_of_seed[spec.seed], declared)
    return place_of_run


def methods_of_seed(count: int, seed: int, lot: str) -> tuple[int, ...]:
    """Return the numbers of `count` methods, from 0, in the order of one seed; `lot`, as the
    suite's name, makes it differ between suites.

    Two methods never keep one order in seeds 0 to 2, 3 to 5, and so on: if the first two of three
    seeds have the same order, the third has the other one.
    """
    drawn = _drawn(count, seed, lot)
    if count != 2 or seed % 3 != 2:
        return drawn
    # By chance, two methods would keep one order in three seeds in a quarter of suites. A
    # disturbance of every second run would then meet the same method in all three.
    two_before, before = _drawn(2, seed - 2, lot), _drawn(2, seed - 1, lot)
    return before[::-1] if before == two_before else drawn


def _drawn(count: int, seed: int, lot: str) -> tuple[int, ...]:
    return tuple(Random(f"{lot} {seed}").sample(range(count), count))  # noqa: S311 - no secret


def plan_jobs(
    request: SweepRequest, profile: Profile, folder: Path, before: JobPlan | None
) -> JobPlan:
    """Return the plan of a call of run-all for jobs in a results folder; nothing is written.

    `before` is the plan that the folder has; None for none. The new plan has the number of the next
    call. It keeps the digests of model and data of `before` only where both plans have the same
    units. Raises UserError if the request can't be run, or the profile's nodes can't share the
    ranks equally.
    """
    suite = request.suite
    request.check(suite.settings, profile.elsewhere)
    profile.ranks_per_node(suite.settings.world_size)  # refuses ranks that can't be divided equally
    call = _last_call(folder, before) + 1
    # in a sweep's order, so that the runs of a seed follow one another
    tasks = [UnitRun(method=spec.method.name, seed=spec.seed) for spec in request.runs(suite)]
    if profile.unit == "seed":
        tasks_of_units = [list(of_seed) for _, of_seed in groupby(tasks, key=lambda t: t.seed)]
    else:
        tasks_of_units = [[task] for task in tasks]
    plan = JobPlan(
        id=plan_id(folder),
        suite=suite,
        profile=profile,
        units=tuple(Unit(tasks=tuple(tasks_of_unit)) for tasks_of_unit in tasks_of_units),
        limits=request.limits,
        verbose=request.verbose,
        keep=request.keep,
        call=call,
    )
    if before is None or not before.same_units(plan):
        return plan
    # of another suite the data may be others; without digests model and data are prepared again
    return plan.model_copy(update={"digests": before.digests})


def _last_call(folder: Path, before: JobPlan | None) -> int:
    """Return the number of the last call of run-all by jobs in a folder; 0 before the first."""
    if before is not None:
        # its jobs' records are of this call or earlier ones, and needn't be read
        return before.call
    # Records may be there without their plan, as in a copied folder. Failures of the present call
    # are final, so that its number must be beyond theirs.
    records = load_records(folder).records
    return max((record.call for record in records), default=0)


def recorded_specs(folder: Path, plan: JobPlan) -> list[RunSpec]:
    """Return the recorded runs of a plan, with any values that a node decided for open settings.

    A record counts if its method and seed are in the plan and it equals the plan's run in all that
    the plan settles.
    """
    planned = {(task.method, task.seed) for unit in plan.units for task in unit.tasks}
    recorded = []
    for record in load_records(folder).records:
        name, seed = record.spec.method.name, record.spec.seed
        if (name, seed) not in planned:
            continue
        settings = decided_as(plan.suite.settings, record.spec.settings)
        suite = plan.suite.model_copy(update={"settings": settings})
        recorded += [spec for spec in suite.runs([name], [seed]) if spec == record.spec]
    return recorded
