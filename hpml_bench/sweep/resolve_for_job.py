"""Settings of a plan as the first job resolved them; every other job must be able to have the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpml_bench.errors import UserError
from hpml_bench.launch.limits import Limits
from hpml_bench.records.plan import RESOLVED, Plan, read_resolved, write_once
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep import resolve as definite
from hpml_bench.sweep.request import BY_NODE
from hpml_bench.sweep.resolve import Decided
from hpml_bench.system import environment, gpus


def resolve(plan: Plan, folder: Path, limits: Limits) -> Decided:
    """Return the suite with the settings of all jobs; the first job decides what the suite leaves open.

    Raises:
        UserError: this node can't have them, or would have decided otherwise.

    """
    asked = over_nodes(plan)
    kept = read_resolved(folder)
    if kept is None:
        decided = definite.resolve(asked, folder, limits) if plan.profile.nodes == 1 else _known(asked, folder, plan)
        write_once(folder / RESOLVED, decided.suite.settings.model_dump_json())
        kept = read_resolved(folder)
        assert kept is not None  # noqa: S101 - it was written just now
    notes = _known(asked, folder, plan).notes
    pinned = {"precision": kept.precision, "micro_batch": kept.micro_batch}
    here = resolve_devices(asked.settings.model_copy(update=pinned), _ranks_here(asked.settings, plan))
    different = [f"{key} {getattr(here, key)} instead of {getattr(kept, key)}"
                 for key in BY_NODE if getattr(here, key) != getattr(kept, key)]  # fmt: skip
    if different:
        raise UserError(
            f"this node would run with {', '.join(different)}, as the first job of this sweep did; give the profile a "
            "constraint for nodes that are alike, or set these in the suite"
        )
    return Decided(plan.suite.model_copy(update={"settings": kept}), notes)


def over_nodes(plan: Plan) -> Suite:
    """Return a plan's suite; with several nodes a run, and no number of ranks, as many as they have."""
    settings, nodes = plan.suite.settings, plan.profile.nodes
    if nodes == 1:
        return plan.suite
    return plan.suite.model_copy(update={"settings": settings.model_copy(update=_ranks(settings, plan))})


def on_one_node(settings: Settings, plan: Plan) -> Settings:
    """Return resolved settings with the ranks of one node, for what looks at this node's GPUs."""
    return settings.model_copy(update={"world_size": _ranks_here(settings, plan)})


def _ranks(settings: Settings, plan: Plan) -> dict[str, Any]:
    """Return the number of ranks over the nodes.

    Raises:
        UserError: the nodes can't have equal parts of those that the suite asks for.

    """
    nodes = plan.profile.nodes
    if settings.world_size is None:
        cards = len(gpus.visible_gpus()) if settings.device != "cpu" else 0
        return {"world_size": nodes * (cards or min(2, environment.cores()))}
    if settings.world_size % nodes:
        raise UserError(
            f"{settings.world_size} ranks can't be parted over {nodes} nodes; give --nproc a multiple of {nodes}"
        )
    return {}


def _ranks_here(settings: Settings, plan: Plan) -> int | None:
    return None if settings.world_size is None else settings.world_size // plan.profile.nodes


def _known(asked: Suite, folder: Path, plan: Plan) -> Decided:
    return definite.resolve_as_known(asked, folder, _ranks_here(asked.settings, plan))
