"""Registry of plug-ins (methods, tasks, ..., sections) by file name or entry point, imported at
their first use.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hpml_bench.suite.requirements import requirement
from hpml_bench.system.errors import UserError

Kind = Literal[
    "methods",
    "optimizers",
    "tasks",
    "datasets",
    "scorers",
    "metrics",
    "probes",
    "trackers",
    "engines",
    "sections",
]
Model = TypeVar("Model", bound=BaseModel)
ONE: Mapping[Kind, str] = {
    of: "data set" if of == "datasets" else of.removesuffix("s") for of in get_args(Kind)
}
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
    """Import and return the module registered as `name`; UserError if there is none, or it can't
    be imported.
    """
    if name not in names(kind):
        raise UserError(
            f"there is no {ONE[kind]} '{name}'; registered are {', '.join(names(kind))}"
        )
    if name not in _foreign(kind) or is_built_in(kind, name):
        return importlib.import_module(f"{package(kind)}.{name}")
    point = _foreign(kind)[name]
    try:
        loaded = point.load()
    except Exception as error:
        raise UserError(
            f"the {ONE[kind]} '{name}' of {point.value} can't be imported: {error}"
        ) from error
    if not isinstance(loaded, ModuleType):
        raise UserError(f"the {ONE[kind]} '{name}' of {point.value} is not a module")
    return loaded


def plugin(kind: Kind, name: str) -> type[Any]:
    """Import and return the class registered as `name`: the one in its module that extends the base
    class of the kind.

    The base classes are in `plugins`; each names its kind in `plugin_kind`. Raises UserError: as
    `get`; or the module has no such class, or several, or the class is incomplete, or a hook of it
    takes fewer arguments than the base class's.
    """
    module = get(kind, name)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    classes = {
        one
        for one in own
        if getattr(one, "plugin_kind", None) == kind and not one.__name__.startswith("_")
    }
    if len(classes) != 1:
        raise UserError(
            f"the {ONE[kind]} '{name}': {module.__name__} defines {len(classes)} classes that "
            f"extend the base class of {kind}, and must define one (docs/adding.md)"
        )
    (chosen,) = classes
    # what base classes require: abstract methods, and attributes without a value
    bases = [base for base in chosen.__mro__ if base.__module__.startswith("hpml_bench.plugins.")]
    declared = {
        name
        for base in bases
        for name in inspect.get_annotations(base)
        if not hasattr(chosen, name)
    }
    if missing := sorted(declared | getattr(chosen, "__abstractmethods__", frozenset())):
        raise UserError(
            f"the {ONE[kind]} '{name}': {module.__name__}.{chosen.__name__} lacks "
            f"{', '.join(missing)} (docs/adding.md)"
        )
    for base in bases:
        for hook in vars(base):
            if narrower := _narrower(chosen, base, hook):
                raise UserError(
                    f"the {ONE[kind]} '{name}': {module.__name__}.{chosen.__name__}.{hook} takes "
                    f"{narrower}, as in hpml_bench.plugins (docs/adding.md)"
                )
    return chosen


def _narrower(chosen: type[Any], base: type[Any], hook: str) -> str:
    """Return which arguments a hook of a class takes and must take, where it lacks some that the
    base class has; empty where it has all.
    """
    declared, own = getattr(base, hook), getattr(chosen, hook)
    if hook.startswith("_") or own is declared or not inspect.isfunction(declared):
        return ""
    if not inspect.isfunction(own):
        return ""
    # without `self`; the core gives all of them by position, or those after a `*` by name
    parameters = list(inspect.signature(declared).parameters.values())[1:]
    by_name = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
    by_position = [None for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    try:
        inspect.signature(own).bind(None, *by_position, **by_name)
    except TypeError:
        return f"{_arguments(own)} and must take {_arguments(declared)}"
    return ""


def _arguments(function: Any) -> str:
    parameters = list(inspect.signature(function).parameters)[1:]
    return f"({', '.join(parameters)})"


def validate_options(kind: Kind, name: str, options: dict[str, Any], where: str) -> BaseModel:
    """Return a plug-in's `Options`; a UserError if there is no such plug-in, or an option is
    unknown or wrong.
    """
    return validated(options_class(kind, name), options, f"{where}:")


def options_class(kind: Kind, name: str) -> type[BaseModel]:
    """Return the class of a plug-in's options; a UserError if there is no such plug-in."""
    options: type[BaseModel] = plugin(kind, name).Options
    return options


def without_defaults(kind: Kind, name: str, options: dict[str, Any]) -> dict[str, Any]:
    defaults = _defaults(kind, name)
    return {
        key: value
        for key, value in options.items()
        if key not in defaults or defaults[key] != value
    }


@cache
def _defaults(kind: Kind, name: str) -> dict[str, Any]:
    """Return a plug-in's default options as JSON values; no validator runs, since one may import
    a library.
    """
    try:
        model = options_class(kind, name)
    except UserError:
        return {}
    return model.model_construct().model_dump(mode="json")


def did_you_mean(word: str, allowed: Sequence[str]) -> str:
    """Return a question that names the word of like spelling; empty where there is none."""
    close = difflib.get_close_matches(word, allowed, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def validated(model: type[Model], values: Any, where: str) -> Model:
    """Return a model of these values; a UserError that begins with `where` if one is unknown or
    wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where} {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first error of a failed validation as a sentence with the key and what is
    allowed.
    """
    errors = error.errors(include_url=False)
    # an unknown key before all others: one that is missing is often just misspelt
    first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(model, first["loc"][:-1])
        return (
            f"{key} is not known{did_you_mean(str(first['loc'][-1]), allowed)} (allowed: "
            f"{', '.join(allowed) or 'none'})"
        )
    if first["type"] == "invalid_key":
        return f"the key {key} must be text (in quotes)"
    if first["type"] == "missing":
        return f"{key} is missing"
    return _explain_value(errors, first, model)


def _explain_value(
    errors: Sequence[ErrorDetails], first: ErrorDetails, model: type[BaseModel]
) -> str:
    """Return what is wrong with the value of the error `first`, which `errors` contain."""
    path = first["loc"]
    wrong = [first]
    size = _size_of_union_path(model, path)
    if size is not None:
        # after a field of several types, pydantic puts the type that it tried into the path
        alternatives = [error for error in errors if error["loc"][:size] == path[:size]]
        first = max(alternatives, key=lambda error: len(error["loc"]))
        path = first["loc"][:size] + first["loc"][size + 1 :]
        wrong = alternatives if len(path) == size else [first]

    key = ".".join(map(str, path))
    requirements = [requirement(error) for error in wrong]
    known = [words for words in requirements if words is not None]
    if known:
        return f"{key} is {_shown(first['input'])}, and must be {' or '.join(known)}"
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # an error about several keys
        return ": ".join(part for part in (key, message) if part)
    return f"{key} is {_shown(first['input'])}: {message}"


def _shown(value: Any) -> str:
    """Return a value in a few words."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    shown = repr(value)
    return shown if len(shown) < 80 else f"{shown[:77]}..."


def _size_of_union_path(model: type[BaseModel], path: Sequence[int | str]) -> int | None:
    """Return the length of the part of a path that leads to a field of several types; None where it
    leads to none.
    """
    for place, part in enumerate(path):
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # a key of a dictionary
        types = [kind for kind in get_args(field.annotation) if kind is not NoneType]
        if get_origin(field.annotation) in {Union, UnionType} and len(types) > 1:
            return place + 1
        model = _model_in(field, model)
    return None


def _model_in(field: FieldInfo, otherwise: type[BaseModel]) -> type[BaseModel]:
    """Return the model that a field holds, by itself or in a container."""
    inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
    models = (kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel))
    return next(models, otherwise)


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # a key of a dictionary
        model = _model_in(field, model)
    return list(model.model_fields)
