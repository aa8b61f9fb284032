"""Settings that have to be measured: decided once for a results folder, and kept there for later calls."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hpml_bench.errors import UserError
from hpml_bench.launch import launcher, preparation
from hpml_bench.launch.limits import UNLIMITED, Limits
from hpml_bench.records.files import DEFINITE, read_json, write_atomically
from hpml_bench.records.run import DONE
from hpml_bench.suite.devices import resolve_suite
from hpml_bench.suite.settings import RunSpec, Settings, identity
from hpml_bench.suite.suite import Suite
from hpml_bench.system import environment, gpus, tempdir
from hpml_bench.system.hashing import digest
from hpml_bench.training.products import Products

Measure = Callable[[Settings], Products]
Fits = Callable[[RunSpec], bool]


class Decided(NamedTuple):
    """A suite with all settings decided."""

    suite: Suite
    notes: dict[str, str]
    """How what was measured was decided, for the records."""


def resolve(
    suite: Suite, folder: Path, limits: Limits = UNLIMITED, measure: Measure | None = None, fits: Fits | None = None
) -> Decided:
    """Return the suite with its settings resolved for this machine.

    On a CPU with instructions for bfloat16, `precision: auto` takes what is faster there; on a GPU, `micro_batch: auto`
    takes the largest that fits for all methods of the suite that fit at all. What was found is kept in the folder, by
    backbone, hardware and settings: a second call takes the same, and finds its runs.

    Args:
        suite: as it is asked for.
        folder: the results folder.
        limits: of the sweep.
        measure: times products of the backbone's shape; None for doing so.
        fits: tells whether a run fits into the memory; None for trying.

    Raises:
        UserError: the settings can't be met on this machine, or the backbone can't be had.
        KeyboardInterrupt: the user ended it while a run was tried out.

    """
    found, notes = resolve_suite(suite), {}
    if _measures_precision(suite.settings, found.settings):
        key, timed = _key("precision", found.settings), measure or partial(_products, limits)
        products = Products.model_validate(_kept(folder, key, lambda: timed(found.settings).model_dump()))
        found, notes = _with(found, precision=products.precision), {"precision": str(products)}
    if found.settings.micro_batch == "auto":
        key = _key("micro_batch", found.settings)
        fitted = _fitted(_kept(folder, key, lambda: _largest(found, fits or _tried(found, limits))._asdict()))
        found = _with(found, micro_batch=fitted.size)
        notes["micro_batch"] = str(fitted)
    return Decided(found, notes)


def resolve_as_known(suite: Suite, folder: Path, here: int | None = None) -> Decided:
    """Return the suite resolved by what the folder knows already, where nothing can be measured, as under torchrun.

    What it doesn't know is decided without: fp32 on a CPU, and a rank's whole share as the micro-batch. `here` is the
    number of ranks on this machine, where they are on several.
    """
    found, notes, known = resolve_suite(suite, here), {}, read_json(folder / DEFINITE) or {}
    products = known.get(_key("precision", found.settings))
    if products and _measures_precision(suite.settings, found.settings):
        measured = Products.model_validate(products)
        found, notes = _with(found, precision=measured.precision), {"precision": str(measured)}
    if found.settings.micro_batch == "auto":
        fitted = known.get(_key("micro_batch", found.settings))
        found = _with(found, micro_batch=_fitted(fitted).size if fitted else None)
    return Decided(found, notes)


def _measures_precision(asked: Settings, settings: Settings) -> bool:
    """Tell whether the precision is left open, on a CPU that has bfloat16."""
    left_open = asked.precision == "auto" and asked.weights == "float32"
    return left_open and settings.device == "cpu" and environment.has_bf16("cpu")


def _products(limits: Limits, settings: Settings) -> Products:
    return preparation.products(settings, limits.max_seconds)


def _with(suite: Suite, **changes: Any) -> Suite:
    return suite.model_copy(update={"settings": suite.settings.model_copy(update=changes)})


def _key(what: str, settings: Settings) -> str:
    """Return the name under which a finding is kept: with all that it depends on."""
    if what == "precision":
        return f"precision of {settings.backbone} on {environment.processor()}, threads: {settings.threads}"
    cards = ", ".join(f"{gpu['name']} {gpu['memory_mb']} MB" for gpu in gpus.visible_gpus())
    asked = settings.model_copy(update={"micro_batch": None})
    return f"micro_batch of {settings.backbone} on {cards}, settings {digest(identity(asked), 12)}"


def _kept(folder: Path, key: str, find: Callable[[], Any]) -> Any:
    """Return what the folder holds under a key, else find it and keep it there."""
    there = read_json(folder / DEFINITE) or {}
    if key not in there:
        there |= {key: find()}
        write_atomically(folder / DEFINITE, json.dumps(there, indent=1))
    return there[key]


class Fitted(NamedTuple):
    """A micro-batch that fits, and the methods that fit with none."""

    size: int
    never: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return both as a note says them."""
        but = f" but {', '.join(self.never)}, which ran out of memory with a single sample too" if self.never else ""
        return f"{self.size}, the largest that fitted for all methods{but} when it was tried out"


def _fitted(kept: Any) -> Fitted:
    """Return what a folder holds; until there were methods left out, it held the size alone."""
    return Fitted(kept) if isinstance(kept, int) else Fitted(kept["size"], tuple(kept["never"]))


def _largest(suite: Suite, fits: Fits) -> Fitted:
    """Return the largest divisor of a rank's share with which every method fits that fits with any; 1 if none does."""
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


def _tried(suite: Suite, limits: Limits) -> Fits:
    """Return what runs a method on its longest batch and tells whether the GPU's memory was enough.

    Raises:
        UserError: model and data can't be had, or a run ended for another reason.

    """
    prepared = preparation.prepare(suite.settings, limits.max_seconds).model_copy(update={"try_out": True})

    def fits(spec: RunSpec) -> bool:
        with tempfile.TemporaryDirectory(dir=tempdir.folder()) as name:
            try:
                record = launcher.run(spec, prepared, Path(name) / spec.run_id, limits)
            except launcher.Interrupted:
                raise KeyboardInterrupt from None
        if record.status not in {*DONE, "oom_cuda"}:
            why = f": {record.error.message}" if record.error else ""
            raise UserError(
                f"micro_batch auto: {spec.method.name} with {spec.settings.micro_batch} ended as {record.status}{why}; "
                "give micro_batch as a number"
            )
        return record.status != "oom_cuda"

    return fits
