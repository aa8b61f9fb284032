"""The answer and tables in the terminal: as wide as it is, with no cell broken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from hpml_bench.plugins.blocks import Table
    from hpml_bench.report.answer.model import PageSummary

WIDE = 140
"""Characters per line where the output is no terminal."""


def terminal() -> Console:
    """Return the console to print to: as wide as the terminal, or wide enough where it is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def show_answer(answer: PageSummary, console: Console) -> None:
    from hpml_bench.report.answer.words import lines

    for line in map(for_terminal, lines(answer, console.width)):
        shown = line
        try:
            line.encode(console.encoding)
        except (UnicodeError, LookupError):  # the terminal lacks typographic signs
            shown = re.sub("[\N{MINUS SIGN}\N{EN DASH}]", "-", line).encode("ascii", "replace").decode()
        console.print(shown, markup=False, highlight=False, soft_wrap=True)


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
        left_out = ", ".join(name for index, name in enumerate(table.columns) if index not in columns)
        console.print(Text(for_terminal(f"Left out for width: {left_out}; the report has all.")))


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns to show so that no cell is broken: those in the middle go first, the last is kept."""
    sizes = [_width(name, [row[index] for row in rows]) + 3 for index, name in enumerate(columns)]
    kept = list(range(len(columns)))
    while sum(sizes[index] for index in kept) + 1 > width and len(kept) > 2:
        kept.pop(-2)
    return kept


def _width(name: str, cells: Iterable[str]) -> int:
    return max(map(len, [*name.split(), *cells]), default=1)
