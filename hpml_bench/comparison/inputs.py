"""Inputs of a comparison: each file or folder goes to the first reader that claims it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

from hpml_bench.comparison import readers
from hpml_bench.comparison.measured import Measured
from hpml_bench.system.errors import UserError


@cache
def known() -> tuple[ModuleType, ...]:
    """Return the readers, in the order in which they are asked."""
    names = (module.name for module in pkgutil.iter_modules(readers.__path__))
    modules = [importlib.import_module(f"{readers.__name__}.{name}") for name in names]
    return tuple(sorted(modules, key=lambda module: (module.ORDER, module.__name__)))


def read(paths: Iterable[Path], metric: str | None = None, group: str | None = None) -> tuple[Measured, ...]:
    """Return what the readers find in files and folders.

    Args:
        paths: files or folders.
        metric: name of the score; the reader's own choice where None.
        group: field by which rows are grouped, for readers whose `read` takes one.

    Raises:
        UserError: there is no such file, no reader claims it, its reader can't read it, or takes no `group`.

    """
    found: list[Measured] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; name what holds the scores")
        reader = next((one for one in known() if one.claims(path)), None)
        if reader is None:
            kinds = "; ".join((one.__doc__ or "").split("\n")[0].rstrip(".") for one in known())
            raise UserError(f"{path}: no reader knows it; known are: {kinds} (docs/compare.md)")
        if group and "group" not in inspect.signature(reader.read).parameters:
            raise UserError(f"{path}: --group is for samples of lm_eval; a table has its groups in a column group")
        found += reader.read(path, metric, group) if group else reader.read(path, metric)
    return tuple(found)
