"""Settings that have to be measured: decided once for a results folder, and kept there for later calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hpml_bench.config.devices import resolve_suite
from hpml_bench.config.settings import Settings
from hpml_bench.config.suite import Suite
from hpml_bench.launch import preparation
from hpml_bench.records.files import DEFINITE, read_json, write_atomically
from hpml_bench.system import environment
from hpml_bench.training.products import Products

Measure = Callable[[Settings], Products]


def resolve(suite: Suite, folder: Path, measure: Measure = preparation.products) -> Suite:
    """Return the suite with its settings resolved for this machine, and a note on what was measured for it.

    On a CPU with instructions for bfloat16, `precision: auto` takes what is faster there. The figures are kept in the
    folder by backbone and processor: a second call takes the same, and finds its runs.

    Raises:
        UserError: the settings can't be met on this machine, or the backbone can't be had.

    """
    definite = resolve_suite(suite)
    asked, settings = suite.settings, definite.settings
    if asked.precision != "auto" or asked.weights != "float32" or settings.device != "cpu":
        return definite
    if not environment.has_bf16("cpu"):
        return definite
    found = _kept(settings, folder, measure)
    return definite.model_copy(update={"settings": settings.model_copy(update={"precision": found.precision})})


def note(settings: Settings, folder: Path) -> dict[str, str]:
    """Return how the precision was decided, where it was measured, as a note for the records."""
    known = (read_json(folder / DEFINITE) or {}).get(_key(settings))
    return {"precision": str(Products.model_validate(known))} if known else {}


def _key(settings: Settings) -> str:
    return f"{settings.backbone} on {environment.processor()}, threads: {settings.threads}"


def _kept(settings: Settings, folder: Path, measure: Measure) -> Products:
    """Return the figures in the folder, else measure them and keep them there."""
    there = read_json(folder / DEFINITE) or {}
    known = there.get(_key(settings))
    if known is not None:
        return Products.model_validate(known)
    found = measure(settings)
    write_atomically(folder / DEFINITE, json.dumps({**there, _key(settings): found.model_dump()}, indent=1))
    return found
