"""Rows that `hpml-bench list` prints."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import yaml

from hpml_bench import registry
from hpml_bench.config.suite import packaged_suites, suites_folder
from hpml_bench.records.listing import headlines
from hpml_bench.system.text import for_terminal


def known(what: str) -> list[tuple[str, str]]:
    """Return name and one line on each packaged suite, or each registered plug-in of a kind."""
    if what == "suites":
        return [(name, _suite_line(suites_folder() / f"{name}.yaml")) for name in packaged_suites()]
    kind = cast(registry.Kind, what)
    return [(name, _first_line(kind, name)) for name in registry.names(kind)]


def runs(folders: Iterable[Path]) -> list[tuple[str, ...]]:
    """Return a row for each recorded run: suite, run, status, seconds, the metric that leads."""
    rows: list[tuple[str, ...]] = []
    for folder in folders:
        for record in headlines(folder):
            row = (record.spec.suite, record.run_id, record.status, f"{record.seconds:7.1f} s", record.shown)
            rows.append(tuple(for_terminal(cell, 100) for cell in row))
    return rows


def _suite_line(path: Path) -> str:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return " ".join(str(content.get("description", "")).split())


def _first_line(kind: registry.Kind, name: str) -> str:
    """Return the first line of a module's docstring without importing it."""
    found = importlib.util.find_spec(f"{registry.PACKAGES[kind]}.{name}")
    if found is None or found.origin is None:
        return "(from another package)"
    docstring = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]
