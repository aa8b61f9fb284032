"""What `hpml-bench list` and the end of `run-all` print."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import yaml

from hpml_bench import registry, store
from hpml_bench.suite import packaged_suites, suites_folder

if TYPE_CHECKING:
    from rich.console import Console

    from hpml_bench.report.results import Results


def known(what: str) -> list[tuple[str, str]]:
    """Return name and one line on each packaged suite, or each registered method, probe or task."""
    if what == "suites":
        return [(name, _suite_line(suites_folder() / f"{name}.yaml")) for name in packaged_suites()]
    kind = cast(Literal["methods", "probes", "tasks"], what)
    return [(name, _first_line(kind, name)) for name in registry.names(kind)]


def runs(folders: Iterable[Path]) -> list[tuple[str, ...]]:
    """Return a row for each recorded run: suite, run, status, seconds, accuracy."""
    rows: list[tuple[str, ...]] = []
    for folder in folders:
        for record in store.load_records(folder).records:
            accuracy = record.metrics.get("test_accuracy")
            shown = "" if accuracy is None else f"accuracy {accuracy:.1%}"
            rows.append((record.spec.suite, record.run_id, record.status, f"{record.seconds:7.1f} s", shown))
    return rows


def show_table(results: Results, console: Console) -> None:
    """Print the comparison table."""
    from rich.table import Table
    from rich.text import Text

    from hpml_bench.report.render import summary_table

    table = summary_table(results)
    shown = Table(title=Text(table.caption), title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(Text(column), justify="left" if index == 0 else "right")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)


def _suite_line(path: Path) -> str:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return " ".join(str(content.get("description", "")).split())


def _first_line(kind: registry.Kind, name: str) -> str:
    """Return the first line of a module's docstring without importing it."""
    found = importlib.util.find_spec(f"hpml_bench.{kind}.{name}")
    if found is None or found.origin is None:
        return "(from another package)"
    docstring = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]
