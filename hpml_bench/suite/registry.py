"""Registry of plug-ins (methods, tasks, ..., sections) by file name or entry point, imported at their first use."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from types import ModuleType
from typing import Any, Literal, get_args

from hpml_bench.system.errors import UserError

Kind = Literal[
    "methods", "optimizers", "tasks", "datasets", "scorers", "metrics", "probes", "trackers", "engines", "sections"
]  # fmt: skip
ONE: Mapping[Kind, str] = {of: "data set" if of == "datasets" else of.removesuffix("s") for of in get_args(Kind)}
"""Singular of each kind, for messages."""


def package(kind: Kind) -> str:
    return f"hpml_bench.builtin.{kind}"


@cache
def _foreign(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"hpml_bench.{kind}")}


@cache
def _own(kind: Kind) -> frozenset[str]:
    return frozenset(module.name for module in pkgutil.iter_modules([str(files(package(kind)))]))


@cache
def names(kind: Kind) -> tuple[str, ...]:
    """Return the registered names of a kind, sorted; nothing is imported."""
    return tuple(sorted(_own(kind) | set(_foreign(kind))))


def is_built_in(kind: Kind, name: str) -> bool:
    return name in _own(kind)


def get(kind: Kind, name: str) -> ModuleType:
    """Import and return the module registered as `name`; UserError if there is none, or it can't be imported."""
    if name not in names(kind):
        raise UserError(f"there is no {ONE[kind]} '{name}'; registered are {', '.join(names(kind))}")
    if name not in _foreign(kind) or is_built_in(kind, name):
        return importlib.import_module(f"{package(kind)}.{name}")
    point = _foreign(kind)[name]
    try:
        loaded = point.load()
    except Exception as error:
        raise UserError(f"the {ONE[kind]} '{name}' of {point.value} can't be imported: {error}") from error
    if not isinstance(loaded, ModuleType):
        raise UserError(f"the {ONE[kind]} '{name}' of {point.value} is not a module")
    return loaded


def plugin(kind: Kind, name: str) -> type[Any]:
    """Import and return the class registered as `name`: the one in its module that extends the base class of the kind.

    The base classes are in `plugins`; each names its kind in `plugin_kind`. Raises UserError: as `get`; or the module
    has no such class, or several, or the class is incomplete.
    """
    module = get(kind, name)
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    classes = {one for one in own if getattr(one, "plugin_kind", None) == kind and not one.__name__.startswith("_")}
    if len(classes) != 1:
        raise UserError(
            f"the {ONE[kind]} '{name}': {module.__name__} defines {len(classes)} classes that extend the base class of "
            f"{kind}, and must define one (docs/adding.md)"
        )
    (chosen,) = classes
    # what base classes require: abstract methods, and attributes without a value
    bases = [base for base in chosen.__mro__ if base.__module__.startswith("hpml_bench.plugins.")]
    declared = {name for base in bases for name in vars(base).get("__annotations__", {}) if not hasattr(chosen, name)}
    if missing := sorted(declared | getattr(chosen, "__abstractmethods__", frozenset())):
        raise UserError(
            f"the {ONE[kind]} '{name}': {module.__name__}.{chosen.__name__} lacks {', '.join(missing)} (docs/adding.md)"
        )
    return chosen
