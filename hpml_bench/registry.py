"""Lists methods, probes, tasks and sections by file name, plus entry points; imports one only when asked."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal

from hpml_bench.errors import UserError

Kind = Literal["methods", "probes", "tasks", "sections"]


@cache
def _foreign(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"hpml_bench.{kind}")}


@cache
def _own(kind: Kind) -> frozenset[str]:
    folder = Path(__file__).parent / kind
    return frozenset(module.name for module in pkgutil.iter_modules([str(folder)]))


@cache
def names(kind: Kind) -> tuple[str, ...]:
    """Return the registered names of a kind, sorted; nothing is imported."""
    return tuple(sorted(_own(kind) | set(_foreign(kind))))


def get(kind: Kind, name: str) -> ModuleType:
    """Import and return the module registered as `name`.

    Raises:
        UserError: nothing of that name is registered, or another package's entry point can't be imported.

    """
    if name not in names(kind):
        raise UserError(f"there is no {kind[:-1]} '{name}'; registered are {', '.join(names(kind))}")
    if name not in _foreign(kind) or name in _own(kind):  # another package can't take a built-in's name
        return importlib.import_module(f"hpml_bench.{kind}.{name}")
    point = _foreign(kind)[name]
    try:
        loaded = point.load()
    except Exception as error:
        raise UserError(f"the {kind[:-1]} '{name}' of {point.value} can't be imported: {error}") from error
    if not isinstance(loaded, ModuleType):
        raise UserError(f"the {kind[:-1]} '{name}' of {point.value} is not a module")
    return loaded
