"""Options of plug-ins: a method's, a task's or a data set's, checked against its `Options`."""

import difflib
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from hpml_bench.suite import registry
from hpml_bench.system.errors import UserError


def validate_options(kind: registry.Kind, name: str, options: dict[str, Any], where: str) -> BaseModel:
    """Return a plug-in's `Options`; a UserError if there is no such plug-in, or an option is unknown or wrong."""
    model = options_class(kind, name)
    try:
        return model.model_validate(options)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, model)}") from None


def options_class(kind: registry.Kind, name: str) -> type[BaseModel]:
    """Return the class of a plug-in's options; a UserError if there is no such plug-in."""
    options: type[BaseModel] = registry.plugin(kind, name).Options
    return options


def without_defaults(kind: registry.Kind, name: str, options: dict[str, Any]) -> dict[str, Any]:
    defaults = _defaults(kind, name)
    return {key: value for key, value in options.items() if key not in defaults or defaults[key] != value}


@cache
def _defaults(kind: registry.Kind, name: str) -> dict[str, Any]:
    """Return a plug-in's default options as JSON values; no validator runs, since one may import a library."""
    try:
        model = options_class(kind, name)
    except UserError:
        return {}
    return model.model_construct().model_dump(mode="json")


def did_you_mean(word: str, allowed: Sequence[str]) -> str:
    """Return a question that names the word of like spelling; empty where there is none."""
    close = difflib.get_close_matches(word, allowed, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first error of a failed validation as a sentence with the key and what is allowed."""
    errors = error.errors(include_url=False)
    # an unknown key before all others: one that is missing is often just misspelt
    first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(model, first["loc"][:-1])
        return f"{key} is not known{did_you_mean(str(first['loc'][-1]), allowed)} (allowed: {', '.join(allowed)})"
    if first["type"] == "missing":
        return f"{key} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # an error about several keys
        return ": ".join(part for part in (key, message) if part)
    shown = repr(first["input"])
    return f"{key} is {shown if len(shown) < 80 else shown[:77] + '...'}: {message}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # a key of a dictionary
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return list(model.model_fields)
