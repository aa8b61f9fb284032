"""Plan of a sweep that jobs do, made from a request; and what of an earlier plan of the folder still holds."""

from __future__ import annotations

from pathlib import Path

from hpml_bench.errors import UserError
from hpml_bench.plugins.engine import make_engine
from hpml_bench.records.jobs import JobPlan, Unit, UnitRun, plan_id
from hpml_bench.records.listing import load_records
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.sweep.resolve import BY_NODE


def plan_jobs(request: SweepRequest, profile: Profile, folder: Path, before: JobPlan | None) -> JobPlan:
    """Return a new plan of a results folder; of the plan there before it keeps what still holds.

    Raises:
        UserError: there is no method to run, or one can't be run, or the nodes can't have equal parts of the ranks.

    """
    suite = request.suite
    request.check(suite.settings)
    ranks, nodes = suite.settings.world_size, profile.nodes
    if ranks is not None and ranks % nodes:
        raise UserError(f"{ranks} ranks can't be parted over {nodes} nodes; give --nproc a multiple of {nodes}")
    earlier = [record.call for record in load_records(folder).records] if before is None else [before.call]
    made = JobPlan(
        id=plan_id(folder), suite=suite, profile=profile, units=_units(request, profile), limits=request.limits,
        verbose=request.verbose, call=max(earlier, default=0) + 1,
    )  # fmt: skip
    if before is None or not same_runs(before, made):
        return made
    return made.model_copy(update={"digests": before.digests})


def _units(request: SweepRequest, profile: Profile) -> tuple[Unit, ...]:
    """Return the runs, in the order of a sweep, cut into units as the profile says: a run or a seed each."""
    tasks = [UnitRun(method=spec.method.name, seed=spec.seed) for spec in request.runs(request.suite)]
    if profile.unit == "run":
        return tuple(Unit(tasks=(task,)) for task in tasks)
    by_seed: dict[int, list[UnitRun]] = {}
    for task in tasks:
        by_seed.setdefault(task.seed, []).append(task)
    return tuple(Unit(tasks=tuple(group)) for group in by_seed.values())


def same_runs(before: JobPlan, plan: JobPlan) -> bool:
    """Tell whether two plans are of the same runs, cut in the same way."""
    return before.suite == plan.suite and before.units == plan.units and before.profile.nodes == plan.profile.nodes


def resolved_alike(before: JobPlan, plan: JobPlan) -> bool:
    """Tell whether jobs of two plans resolve the same settings; if in doubt, they don't, and each job looks again."""
    same = before.suite.settings == plan.suite.settings and before.profile.engine == plan.profile.engine
    return same and make_engine(before.profile).place == make_engine(plan.profile).place


def continues(before: JobPlan, plan: JobPlan) -> bool:
    """Tell whether jobs of an earlier plan may work on while those of this one are submitted."""
    engines = before.profile.engine == plan.profile.engine
    return same_runs(before, plan) and resolved_alike(before, plan) and engines


def recorded(folder: Path, plan: JobPlan) -> list[RunSpec]:
    """Return the recorded runs of a plan, whatever a node decided of the settings that it leaves open."""
    planned = {(task.method, task.seed) for unit in plan.units for task in unit.tasks}
    found = [record.spec for record in load_records(folder).records]
    return [
        spec for spec in found if (spec.method.name, spec.seed) in planned and spec == _decided_as(plan.suite, spec)
    ]


def _decided_as(suite: Suite, found: RunSpec) -> RunSpec:
    """Return the suite's run with a recorded one's method and seed, and what it leaves open as it is there."""
    requested = suite.settings
    left_open = [name for name in BY_NODE if getattr(requested, name) in {None, "auto"}]
    left_open += ["micro_batch"] if requested.micro_batch == "auto" else []
    settings = requested.model_copy(update={name: getattr(found.settings, name) for name in left_open})
    (spec,) = suite.model_copy(update={"settings": settings}).runs([found.method.name], [found.seed])
    return spec
