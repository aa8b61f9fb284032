"""Resolution of a suite's settings for a machine: devices, and measured settings once per
results folder.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hpml_bench.launch import launcher, preparation
from hpml_bench.records.files import MEASURED_SETTINGS
from hpml_bench.records.jobs import RESOLVED, JobPlan, read_resolved, write_once
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import FINAL
from hpml_bench.suite.devices import BY_NODE, default_ranks, measures_precision, resolve_devices
from hpml_bench.suite.settings import RunSpec, Settings, identity
from hpml_bench.suite.suite import Suite
from hpml_bench.system import environment, gpus, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json, write_atomically
from hpml_bench.system.text import digest
from hpml_bench.training.products import Products
from hpml_bench.training.request import RunRequest


class ResolvedSuite(NamedTuple):
    """A suite whose settings are all decided."""

    suite: Suite
    notes: dict[str, str]  # how measured settings were decided, for the records


class Fitted(NamedTuple):
    """The largest micro-batch that fits for all methods, and the methods that fit with none."""

    size: int
    never: tuple[str, ...] = ()

    def __str__(self) -> str:
        but = (
            f" but {', '.join(self.never)}, which ran out of memory with a single sample too"
            if self.never
            else ""
        )
        return f"{self.size}, the largest that fitted for all methods{but} when it was tried out"


def tried_out(suite: Suite, limits: Limits) -> Callable[[RunSpec], bool]:
    """Return a function that tries out a run's longest batch: whether the GPU's memory is
    enough.
    """
    prepared = preparation.prepare(suite.settings, limits.max_seconds)

    def fits(spec: RunSpec) -> bool:
        with tempfile.TemporaryDirectory(dir=temporary.folder()) as name:
            folder = Path(name) / spec.run_id
            request = RunRequest(
                spec=spec, prepared=prepared, folder=folder, limits=limits, try_out=True
            )
            record = launcher.run(request)
        if record.status == "interrupted":
            raise KeyboardInterrupt
        if record.status not in {*FINAL, "oom_cuda"}:
            why = f": {record.error.message}" if record.error else ""
            raise UserError(
                f"micro_batch auto: {spec.method.name} with {spec.settings.micro_batch} ended as "
                f"{record.status}{why}; give micro_batch as a number"
            )
        return record.status != "oom_cuda"

    return fits


def resolve(
    suite: Suite, folder: Path, limits: Limits | None = None, here: int | None = None
) -> ResolvedSuite:
    """Return a suite with its settings resolved for this machine, which has `here` of the ranks;
    None: all of them.

    On a CPU with instructions for bfloat16, `precision: auto` takes the faster one, fp32 where that
    isn't measured; on a GPU, `micro_batch: auto` takes the largest that fits for all methods of the
    suite that fit at all, a rank's whole share where it isn't measured. What the results folder
    doesn't hold is measured under the limits, and without any not at all. Raises UserError, and
    KeyboardInterrupt if a trial run was interrupted.
    """
    notes: dict[str, str] = {}
    found = suite.model_copy(update={"settings": resolve_devices(suite.settings, here)})
    settings = found.settings
    if measures_precision(suite.settings, settings.device):
        key = (
            f"precision of {settings.backbone} on {environment.processor()}, threads: "
            f"{settings.threads}"
        )
        kept = _kept(
            folder,
            key,
            limits,
            lambda most: preparation.products(settings, most.max_seconds).model_dump(),
        )
        if kept:
            products = Products.model_validate(kept)
            found, notes["precision"] = _with(found, precision=products.precision), str(products)
    if found.settings.micro_batch == "auto":
        cards = ", ".join(f"{gpu['name']} {gpu['memory_mb']} MB" for gpu in gpus.visible_gpus())
        others = digest(identity(_with(found, micro_batch=None).settings), 12)
        key = f"micro_batch of {settings.backbone} on {cards}, settings {others}"
        whole = found
        kept = _kept(
            folder, key, limits, lambda most: _largest(whole, tried_out(whole, most))._asdict()
        )
        fitted = Fitted(kept["size"], tuple(kept["never"])) if kept else None
        found = _with(found, micro_batch=fitted and fitted.size)
        notes |= {"micro_batch": str(fitted)} if fitted else {}
    return ResolvedSuite(found, notes)


def _kept(folder: Path, key: str, limits: Limits | None, find: Callable[[Limits], Any]) -> Any:
    """Return the folder's result under a key, of all that it depends on; measure a missing one,
    and write it there.
    """
    known = read_json(folder / MEASURED_SETTINGS) or {}
    if not isinstance(known.get(key), dict) and limits is not None:
        known |= {key: find(limits)}
        write_atomically(folder / MEASURED_SETTINGS, json.dumps(known, indent=1))
    found = known.get(key)
    return found if isinstance(found, dict) else None


def resolve_for_job(plan: JobPlan, folder: Path, limits: Limits) -> ResolvedSuite:
    """Return a plan's suite with the settings that its first job decided; UserError if this
    node's differ.
    """
    suite, nodes = plan.suite, plan.profile.nodes
    if nodes > 1 and suite.settings.world_size is None:
        suite = _with(suite, world_size=nodes * default_ranks(suite.settings.device))
    here = plan.profile.ranks_per_node(suite.settings.world_size)
    kept = read_resolved(folder, plan)
    if kept is None:
        first = resolve(suite, folder, limits if nodes == 1 else None, here)
        write_once(folder / RESOLVED, first.suite.settings.model_dump_json())
        kept = read_resolved(folder, plan)
        assert kept is not None  # noqa: S101 - it was written just now
    notes = resolve(suite, folder, None, here).notes
    pinned = {"precision": kept.precision, "micro_batch": kept.micro_batch}
    own = resolve_devices(suite.settings.model_copy(update=pinned), here)
    different = [
        f"{key} {getattr(own, key)} instead of {getattr(kept, key)}"
        for key in BY_NODE
        if getattr(own, key) != getattr(kept, key)
    ]
    if different:
        raise UserError(
            f"this node would run with {', '.join(different)}, unlike the first job of this sweep; "
            "give the profile a constraint for nodes that are alike, or set these in the suite"
        )
    return ResolvedSuite(plan.suite.model_copy(update={"settings": kept}), notes)


def on_one_node(settings: Settings, plan: JobPlan) -> Settings:
    """Return resolved settings with the ranks of one node, for the preparation, which looks at
    this node's GPUs.
    """
    return settings.model_copy(
        update={"world_size": plan.profile.ranks_per_node(settings.world_size)}
    )


def _with(suite: Suite, **changes: Any) -> Suite:
    return suite.model_copy(update={"settings": suite.settings.model_copy(update=changes)})


def _largest(suite: Suite, fits: Callable[[RunSpec], bool]) -> Fitted:
    """Return the largest divisor of a rank's share that fits for every method that fits at all;
    1 if none does.
    """
    settings = suite.settings
    share = settings.global_batch // (settings.world_size or 1)
    sizes = [size for size in range(share, 0, -1) if share % size == 0]
    never: list[str] = []
    for name in suite.methods:
        specs = (_with(suite, micro_batch=size).runs([name], [0])[0] for size in sizes)
        place = next((place for place, spec in enumerate(specs) if fits(spec)), None)
        if place is None:
            never.append(name)
        else:
            sizes = sizes[place:]
    return Fitted(1 if len(never) == len(suite.methods) else sizes[0], tuple(never))
