"""Plan of a sweep by jobs, made from a request, and the parts of the folder's earlier plan that still hold."""

from __future__ import annotations

from pathlib import Path

from hpml_bench.plugins.engine import make_engine
from hpml_bench.records.jobs import JobPlan, Unit, UnitRun, plan_id
from hpml_bench.records.load import load_records
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.sweep.resolve import BY_NODE


def plan_jobs(request: SweepRequest, profile: Profile, folder: Path, before: JobPlan | None) -> JobPlan:
    """Return a new plan of a results folder; it keeps the digests of the plan `before` if both have the same runs.

    Raises UserError if no method can be run, or the ranks can't be divided equally over the nodes.
    """
    suite = request.suite
    request.check(suite.settings)
    profile.ranks_per_node(suite.settings.world_size)  # refuses ranks that can't be divided equally
    earlier = [record.call for record in load_records(folder).records] if before is None else [before.call]
    made = JobPlan(
        id=plan_id(folder), suite=suite, profile=profile, units=_units(request, profile), limits=request.limits,
        verbose=request.verbose, call=max(earlier, default=0) + 1,
    )  # fmt: skip
    if before is None or not same_runs(before, made):
        return made
    return made.model_copy(update={"digests": before.digests})


def _units(request: SweepRequest, profile: Profile) -> tuple[Unit, ...]:
    """Return the runs, in the order of a sweep, cut into the profile's units: a run or a seed each."""
    tasks = [UnitRun(method=spec.method.name, seed=spec.seed) for spec in request.runs(request.suite)]
    if profile.unit == "run":
        return tuple(Unit(tasks=(task,)) for task in tasks)
    by_seed: dict[int, list[UnitRun]] = {}
    for task in tasks:
        by_seed.setdefault(task.seed, []).append(task)
    return tuple(Unit(tasks=tuple(group)) for group in by_seed.values())


def same_runs(before: JobPlan, plan: JobPlan) -> bool:
    """Return whether two plans have the same runs, cut into the same units."""
    return before.suite == plan.suite and before.units == plan.units and before.profile.nodes == plan.profile.nodes


def resolved_alike(before: JobPlan, plan: JobPlan) -> bool:
    """Return whether jobs of two plans resolve the same settings; False in doubt, so that they are resolved again."""
    same = before.suite.settings == plan.suite.settings and before.profile.engine == plan.profile.engine
    return same and make_engine(before.profile).device_request == make_engine(plan.profile).device_request


def continues(before: JobPlan, plan: JobPlan) -> bool:
    """Return whether jobs of an earlier plan may go on while those of this one are submitted."""
    engines = before.profile.engine == plan.profile.engine
    return same_runs(before, plan) and resolved_alike(before, plan) and engines


def recorded(folder: Path, plan: JobPlan) -> list[RunSpec]:
    """Return the recorded runs of a plan, with any values that a node decided for open settings."""
    planned = {(task.method, task.seed) for unit in plan.units for task in unit.tasks}
    specs = [record.spec for record in load_records(folder).records]
    return [
        spec for spec in specs if (spec.method.name, spec.seed) in planned and spec == _decided_as(plan.suite, spec)
    ]


def _decided_as(suite: Suite, run: RunSpec) -> RunSpec:
    """Return the suite's run with a recorded run's method, seed and values of the open settings."""
    requested = suite.settings
    left_open = [name for name in BY_NODE if getattr(requested, name) in {None, "auto"}]
    left_open += ["micro_batch"] if requested.micro_batch == "auto" else []
    settings = requested.model_copy(update={name: getattr(run.settings, name) for name in left_open})
    (spec,) = suite.model_copy(update={"settings": settings}).runs([run.method.name], [run.seed])
    return spec
