"""Request of a call of `run-all` for runs that jobs do, and its plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpml_bench.errors import UserError
from hpml_bench.launch.limits import Limits
from hpml_bench.plugins.method import check_methods
from hpml_bench.records import plan as plans
from hpml_bench.records.listing import load_records
from hpml_bench.records.plan import Plan, Task, Unit
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.order import shuffled

BY_NODE = ("device", "world_size", "threads", "precision")
"""Settings that a node decides where they are None or `auto`."""


@dataclass(frozen=True)
class Asked:
    """What a call of run-all asks for."""

    suite: Suite
    profile: Profile
    methods: tuple[str, ...] | None
    limits: Limits
    verbose: bool = False

    def tasks(self) -> list[Task]:
        """Return the runs, seed by seed, methods in the order of a sweep."""
        runs = shuffled(self.suite.runs(self.methods), self.suite)
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

    def plan(self, folder: Path, before: Plan | None) -> Plan:
        """Return a new plan of a results folder; of the plan there before it keeps what still holds.

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
        earlier = [plans.call(record) for record in load_records(folder).records] if before is None else [before.call]
        made = Plan(
            id=plans.plan_id(folder), suite=self.suite, profile=self.profile, units=self.units(),
            limits=limits, verbose=self.verbose,
            call=max(earlier, default=0) + 1,
        )  # fmt: skip
        if before is None or not same_runs(before, made):
            return made
        return made.model_copy(update={"digests": before.digests})


def same_runs(before: Plan, plan: Plan) -> bool:
    """Tell whether two plans are of the same runs, cut in the same way."""
    return before.suite == plan.suite and before.units == plan.units and before.profile.nodes == plan.profile.nodes


def resolved_alike(before: Plan, plan: Plan) -> bool:
    """Tell whether jobs of two plans resolve the same settings; if in doubt, they don't, and each job looks again."""
    return before.suite.settings == plan.suite.settings and before.profile.place == plan.profile.place


def recorded(folder: Path, plan: Plan) -> list[RunSpec]:
    """Return the recorded runs that a plan asks for, whatever a node decided of the settings that it leaves open."""
    asked = {(task.method, task.seed) for unit in plan.units for task in unit.tasks}
    found = [record.spec for record in load_records(folder).records]
    return [spec for spec in found if (spec.method.name, spec.seed) in asked and spec == _decided_as(plan.suite, spec)]


def _decided_as(suite: Suite, found: RunSpec) -> RunSpec:
    """Return the suite's run with a recorded one's method and seed, and what it leaves open as it is there."""
    asked = suite.settings
    left_open = [name for name in BY_NODE if getattr(asked, name) in {None, "auto"}]
    left_open += ["micro_batch"] if asked.micro_batch == "auto" else []
    settings = asked.model_copy(update={name: getattr(found.settings, name) for name in left_open})
    (spec,) = suite.model_copy(update={"settings": settings}).runs([found.method.name], [found.seed])
    return spec
