"""Settings that have to be measured: decided once for a results folder, and kept there for later calls."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpml_bench.config.devices import resolve_suite
from hpml_bench.config.settings import RunSpec, Settings, identity
from hpml_bench.config.suite import Suite
from hpml_bench.launch import launcher, preparation
from hpml_bench.records.files import DEFINITE, read_json, write_atomically
from hpml_bench.system import environment, gpus, tempdir
from hpml_bench.system.hashing import digest
from hpml_bench.training.products import Products

Measure = Callable[[Settings], Products]
Fits = Callable[[RunSpec], bool]


def resolve(suite: Suite, folder: Path, measure: Measure | None = None, fits: Fits | None = None) -> Suite:
    """Return the suite with its settings resolved for this machine.

    On a CPU with instructions for bfloat16, `precision: auto` takes what is faster there; on a GPU, `micro_batch: auto`
    takes the largest that fits for all methods. What was found is kept in the folder, by backbone and hardware: a
    second call takes the same, and finds its runs.

    Args:
        suite: as it is asked for.
        folder: the results folder.
        measure: times products of the backbone's shape; None for doing so.
        fits: tells whether a run fits into the memory; None for trying.

    Raises:
        UserError: the settings can't be met on this machine, or the backbone can't be had.

    """
    asked, found = suite.settings, resolve_suite(suite)
    undecided = asked.precision == "auto" and asked.weights == "float32" and found.settings.device == "cpu"
    if undecided and environment.has_bf16("cpu"):
        key, timed = _key("precision", found.settings), measure or preparation.products
        products = _kept(folder, key, lambda: timed(found.settings).model_dump())
        found = _with(found, precision=Products.model_validate(products).precision)
    if found.settings.micro_batch == "auto":
        key = _key("micro_batch", found.settings)
        found = _with(found, micro_batch=_kept(folder, key, lambda: _largest(found, fits or _tried(found))))
    return found


def note(settings: Settings, folder: Path) -> dict[str, str]:
    """Return how the precision was decided, where it was measured, as a note for the records."""
    known = (read_json(folder / DEFINITE) or {}).get(_key("precision", settings))
    return {"precision": str(Products.model_validate(known))} if known else {}


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


def _largest(suite: Suite, fits: Fits) -> int:
    """Return the largest divisor of a rank's share with which a run of every method fits; 1 where none does."""
    settings = suite.settings
    share = settings.global_batch // (settings.world_size or 1)
    sizes = [size for size in range(share, 0, -1) if share % size == 0]
    for name in suite.methods:
        while len(sizes) > 1:
            (spec,) = _with(suite, micro_batch=sizes[0]).runs([name], [0])
            if fits(spec):
                break
            del sizes[0]
    return sizes[0]


def _tried(suite: Suite) -> Fits:
    """Return what runs a method on its longest batch and tells whether the GPU's memory was enough."""
    prepared = preparation.prepare(suite.settings).model_copy(update={"try_out": True})

    def fits(spec: RunSpec) -> bool:
        with tempfile.TemporaryDirectory(dir=tempdir.folder()) as name:
            return launcher.run(spec, prepared, Path(name) / spec.run_id).status != "oom_cuda"

    return fits
