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
    from hpml_bench.judge.summary import PageSummary
    from hpml_bench.plugins.blocks import Table

WIDE = 140  # characters per line where the output is no terminal
NARROWEST, VERDICT = 40, 24  # characters below which no line is narrowed, and that a verdict needs
NAME = 40  # characters that a method's name has at most
# methods that the answer has in a terminal; of more the best are shown, a line each, above the
# sentences
MOST = 24


def terminal() -> Console:
    """Return the console to print to: as wide as the terminal, or wide enough where it is none."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def show_answer(answer: PageSummary, console: Console) -> None:
    """Print the sentences of the first screen, and a row per method, whose long verdict goes on
    beneath itself.
    """
    from hpml_bench.page.answer import words
    from hpml_bench.system.text import count_of

    header, *rows = words.cells(answer)
    page = Console(width=max(NARROWEST, console.width))
    longest, left = min(NAME, page.width // 3) + 3 * answer.numbered, len(rows) - MOST
    rows = [
        [name if len(name) <= longest else f"{name[: longest - 3]}...", *cells]
        for name, *cells in rows[:MOST]
    ]
    widths = [max(map(len, column)) + 2 for column in zip(header, *rows, strict=True)][:-1]
    while (room := page.width - sum(widths)) < VERDICT and len(widths) > 2:
        widths.pop()
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for index, name in enumerate(
        header[: len(widths)]
    ):  # a long title of the score goes on beneath itself
        grid.add_column(
            Text(name), justify="right" if index else "left", no_wrap=index != 1 or room >= VERDICT
        )
    grid.add_column(Text(header[-1]), overflow="fold")
    for *cells, verdict in rows:
        text = textwrap.shorten(verdict, max(9, room), placeholder=" ...") if left > 0 else verdict
        grid.add_row(*map(Text, cells[: len(widths)]), Text(text))
    said = (words.banner(answer), words.headline(answer), ", ".join(words.setup_line(answer)))
    banner, headline, setup = ([Text(text)] if text else [] for text in said)
    parts = [*banner, *headline, *setup, *([Text(), grid] if rows else [])]
    if left > 0:
        parts = [
            grid,
            Text(f"... and {count_of(left, answer.noun)} more, on the page\n"),
            *banner,
            *setup,
            *headline,
        ]
    with page.capture() as shown:
        page.print(*parts, sep="\n")
    for line in map(for_terminal, shown.get().splitlines()):
        plain = line.rstrip()
        try:
            line.encode(console.encoding)
        except (UnicodeError, LookupError):  # the terminal lacks typographic signs
            plain = (
                re.sub("[\N{MINUS SIGN}\N{EN DASH}]", "-", plain)
                .encode("ascii", "replace")
                .decode()
            )
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
        left_out = ", ".join(
            name for index, name in enumerate(table.columns) if index not in columns
        )
        console.print(Text(for_terminal(f"Left out for width: {left_out}; the report has all.")))


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns to show so that no cell is broken: those in the middle go first, the
    last is kept.
    """
    sizes = [_width(name, [row[index] for row in rows]) + 3 for index, name in enumerate(columns)]
    kept = list(range(len(columns)))
    while sum(sizes[index] for index in kept) + 1 > width and len(kept) > 2:
        kept.pop(-2)
    return kept


def _width(name: str, cells: Iterable[str]) -> int:
    return max(map(len, [*name.split(), *cells]), default=1)
