"""Resolution of a suite's settings for a machine: devices, and measured settings once per
results folder.

In comes a suite whose settings may be left open, and out goes one with all decided. What was
measured is written into the results folder, and read there from then on: all runs of a suite have
the same settings.
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
        but = ""
        if self.never:
            but = f" but {', '.join(self.never)}, which ran out of memory with a single sample too"
        return f"{self.size}, the largest that fitted for all methods{but} when it was tried out"


def tried_out(suite: Suite, limits: Limits) -> Callable[[RunSpec], bool]:
    """Return a function that tries out a run's longest batch: whether the GPU's memory is
    enough.

    Model and data are prepared at once. The function raises UserError where a trial ends otherwise
    than well or for lack of the GPU's memory, and KeyboardInterrupt if it was interrupted.
    """
    prepared = preparation.prepare(suite.settings, limits.max_seconds)

    def fits(spec: RunSpec) -> bool:
        with tempfile.TemporaryDirectory(dir=temporary.folder()) as name:
            folder = Path(name) / spec.run_id
            request = RunRequest(
                spec=spec, prepared=prepared, folder=folder, limits=limits, try_out=True
            )
            record = launcher.run(request)
        if record.status == "oom_cuda":
            return False
        # a run that the method can't do with this model takes no memory
        if record.status in FINAL:
            return True
        if record.status == "interrupted":
            raise KeyboardInterrupt
        why = f": {record.error.message}" if record.error else ""
        raise UserError(
            f"micro_batch auto: {spec.method.name} with {spec.settings.micro_batch} ended as "
            f"{record.status}{why}; give micro_batch as a number"
        )

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
    resolved = suite.model_copy(update={"settings": resolve_devices(suite.settings, here)})
    if measures_precision(suite.settings, resolved.settings.device):
        products = _products(resolved.settings, folder, limits)
        if products is not None:
            resolved = _with(resolved, precision=products.precision)
            notes["precision"] = str(products)
    # after the precision, on which a run's memory depends
    if resolved.settings.micro_batch == "auto":
        fitted = _fitted(resolved, folder, limits)
        if fitted is None:
            resolved = _with(resolved, micro_batch=None)
        else:
            resolved = _with(resolved, micro_batch=fitted.size)
            notes["micro_batch"] = str(fitted)
    return ResolvedSuite(resolved, notes)


def _products(settings: Settings, folder: Path, limits: Limits | None) -> Products | None:
    """Return how fast this CPU multiplies in each precision; None where it isn't measured."""
    key = (
        f"precision of {settings.backbone} on {environment.processor()}, threads: "
        f"{settings.threads}"
    )

    def measure(limits: Limits) -> dict[str, Any]:
        return preparation.products(settings, limits.max_seconds).model_dump()

    measured = _measured_once(folder, key, limits, measure)
    return Products.model_validate(measured) if measured else None


def _fitted(suite: Suite, folder: Path, limits: Limits | None) -> Fitted | None:
    """Return the largest micro-batch that fits on these GPUs; None where it isn't measured."""
    cards = ", ".join(f"{gpu['name']} {gpu['memory_mb']} MB" for gpu in gpus.visible_gpus())
    other_settings = digest(identity(_with(suite, micro_batch=None).settings), 12)
    key = f"micro_batch of {suite.settings.backbone} on {cards}, settings {other_settings}"

    def measure(limits: Limits) -> dict[str, Any]:
        return _largest(suite, tried_out(suite, limits))._asdict()

    measured = _measured_once(folder, key, limits, measure)
    return Fitted(measured["size"], tuple(measured["never"])) if measured else None


def _measured_once(
    folder: Path, key: str, limits: Limits | None, measure: Callable[[Limits], dict[str, Any]]
) -> dict[str, Any] | None:
    """Return what the folder holds under a key; measure what it doesn't hold under the limits, and
    write it there; None without limits.

    The key names all that the measurement depends on: on another machine, or with other settings,
    it is made again. A value of another type than a measurement's counts as missing.
    """
    known = read_json(folder / MEASURED_SETTINGS) or {}
    held = known.get(key)
    if isinstance(held, dict):
        return held
    if limits is None:
        return None
    measured = measure(limits)
    known[key] = measured
    write_atomically(folder / MEASURED_SETTINGS, json.dumps(known, indent=1))
    return measured


def resolve_for_job(plan: JobPlan, folder: Path, limits: Limits) -> ResolvedSuite:
    """Return a plan's suite with the settings that its first job decided; UserError if this
    node's differ.

    The first job that comes here resolves the settings on its node, under the limits, and writes
    them down for all. Each job, the first included, then compares what its own node would decide of
    device, ranks and threads. Precision and micro-batch are not compared: the first job's, which
    may be measured ones, are taken as if the suite had named them; UserError where this node
    can't compute in that precision.
    """
    suite = plan.suite
    nodes = plan.profile.nodes
    if nodes > 1 and suite.settings.world_size is None:
        suite = _with(suite, world_size=nodes * default_ranks(suite.settings.device))
    ranks_here = plan.profile.ranks_per_node(suite.settings.world_size)

    first = read_resolved(folder, plan)
    if first is None:
        # over several nodes nothing is measured: a trial on one of them would be another run
        resolved = resolve(suite, folder, limits if nodes == 1 else None, ranks_here)
        write_once(folder / RESOLVED, resolved.suite.settings.model_dump_json())
        # of two jobs that resolve them at once, one has written, and both read that one's
        first = read_resolved(folder, plan)
        assert first is not None  # noqa: S101 - it was written just now

    notes = resolve(suite, folder, None, ranks_here).notes
    pinned = {"precision": first.precision, "micro_batch": first.micro_batch}
    this_node = resolve_devices(suite.settings.model_copy(update=pinned), ranks_here)
    different = [
        f"{key} {getattr(this_node, key)} instead of {getattr(first, key)}"
        for key in BY_NODE
        if getattr(this_node, key) != getattr(first, key)
    ]
    if different:
        raise UserError(
            f"this node would run with {', '.join(different)}, unlike the first job of this sweep; "
            "give the profile a constraint for nodes that are alike, or set these in the suite"
        )
    return ResolvedSuite(plan.suite.model_copy(update={"settings": first}), notes)


def on_one_node(settings: Settings, plan: JobPlan) -> Settings:
    """Return resolved settings with the ranks of one node, for the preparation, which looks at
    this node's GPUs.
    """
    ranks_here = plan.profile.ranks_per_node(settings.world_size)
    return settings.model_copy(update={"world_size": ranks_here})


def _with(suite: Suite, **changes: Any) -> Suite:
    """Return a suite with some of its settings changed."""
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
        fitting = _first_fitting(suite, name, sizes, fits)
        if fitting is None:
            never.append(name)
        else:
            # Larger ones are not tried for the methods after it. Those before it, which fit with a
            # larger one, are not tried again with this one.
            sizes = sizes[sizes.index(fitting) :]
    if len(never) == len(suite.methods):
        return Fitted(1, tuple(never))
    return Fitted(sizes[0], tuple(never))


def _first_fitting(
    suite: Suite, name: str, sizes: list[int], fits: Callable[[RunSpec], bool]
) -> int | None:
    """Return the first of the micro-batches that fits for a method; no further one is tried."""
    for size in sizes:
        (spec,) = _with(suite, micro_batch=size).runs([name], [0])
        if fits(spec):
            return size
    return None
