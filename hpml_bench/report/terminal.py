"""The answer and tables in the terminal: as wide as it is, with no cell broken."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from hpml_bench.plugins.blocks import Table
    from hpml_bench.report.answer.model import PageSummary

WIDE = 140  # characters per line where the output is no terminal
VERDICT, NAME = 16, 40  # characters that a verdict needs at least, and that a method's name has at most
MOST = 24  # methods that the answer has in a terminal; of more the best are shown, a line each, above the sentences


def terminal() -> Console:
    """Return the console to print to: as wide as the terminal, or wide enough where it is none."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def show_answer(answer: PageSummary, console: Console) -> None:
    """Print the sentences of the first screen, and a row per method, whose long verdict goes on beneath itself."""
    from hpml_bench.report.answer import words
    from hpml_bench.report.numbers import count_of

    header, *rows = words.cells(answer)
    longest, left = min(NAME, console.width // 3), len(rows) - MOST
    rows = [[name if len(name) <= longest else f"{name[: longest - 3]}...", *cells] for name, *cells in rows[:MOST]]
    *kept, last = fitting(header, [[*row[:-1], "-" * VERDICT] for row in rows], console.width)
    room = console.width - sum(max(len(row[index]) for row in [header, *rows]) + 2 for index in kept)
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for index in kept:
        grid.add_column(Text(header[index]), justify="right" if index else "left", no_wrap=True)
    grid.add_column(Text(header[last]))
    for row in rows:
        verdict = textwrap.shorten(row[last], max(9, room), placeholder=" ...") if left > 0 else row[last]
        grid.add_row(*(Text(row[index]) for index in kept), Text(verdict))
    said = (words.banner(answer), words.headline(answer), ", ".join(words.setup_line(answer)))
    banner, headline, setup = ([Text(text)] if text else [] for text in said)
    parts = [*banner, *headline, *setup, *([Text(), grid] if rows else [])]
    if left > 0:
        parts = [grid, Text(f"... and {count_of(left, answer.noun)} more, on the page\n"), *banner, *setup, *headline]
    with console.capture() as shown:
        console.print(*parts, sep="\n")
    for line in map(for_terminal, shown.get().splitlines()):
        plain = line.rstrip()
        try:
            line.encode(console.encoding)
        except (UnicodeError, LookupError):  # the terminal lacks typographic signs
            plain = re.sub("[\N{MINUS SIGN}\N{EN DASH}]", "-", plain).encode("ascii", "replace").decode()
        console.print(plain, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_table(table: Table, console: Console) -> None:
    """Print a table as wide as the console; columns that don't fit are named beneath."""
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
