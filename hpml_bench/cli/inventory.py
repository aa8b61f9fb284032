"""What `hpml-bench list` and the end of `run-all` print."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from hpml_bench import registry
from hpml_bench.config.suite import packaged_suites, suites_folder
from hpml_bench.records.listing import headlines
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from hpml_bench.report.blocks import Table
    from hpml_bench.report.results import Results

WIDE = 140
"""Characters a line where the output is no terminal."""
LESS_URGENT = ("Macro", "Gradient", "Test loss", "Trainable")
"""Columns left out first where the terminal is narrow."""


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


def terminal() -> Console:
    """Return the console to print to: as wide as the terminal, or wide enough where it is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def show_table(results: Results, console: Console) -> None:
    """Print the comparison table."""
    from hpml_bench.report.render import summary_table

    print_table(summary_table(results), console)


def print_table(table: Table, console: Console) -> None:
    """Print a table as wide as the console; columns that don't fit are named beneath."""
    from rich.table import Table as Grid
    from rich.text import Text

    columns = fitting(table.columns, table.rows, console.width)
    shown = Grid(title=Text(for_terminal(table.caption)), title_justify="left")
    for index in columns:
        width = _width(table.columns[index], [row[index] for row in table.rows])
        name = Text(for_terminal(table.columns[index]))
        shown.add_column(name, justify="left" if index == 0 else "right", width=width)
    for row in table.rows:
        shown.add_row(*(Text(for_terminal(row[index])) for index in columns))
    console.print(shown)
    if len(columns) < len(table.columns):
        left_out = [name for index, name in enumerate(table.columns) if index not in columns]
        console.print(Text(for_terminal(f"Left out for width: {', '.join(left_out)}; the report has all.")))


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns to show so that no cell is broken: those in the middle go first, the last is kept."""
    sizes = [_width(name, [row[index] for row in rows]) + 3 for index, name in enumerate(columns)]
    kept = list(range(len(columns)))
    while sum(sizes[index] for index in kept) + 1 > width and len(kept) > 2:
        kept.remove(next((i for i in kept if columns[i].startswith(LESS_URGENT)), kept[-2]))
    return kept


def _width(name: str, cells: Iterable[str]) -> int:
    """Return the characters a column needs: its longest cell, or the longest word of its name."""
    return max(map(len, [*name.split(), *cells]), default=1)


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
