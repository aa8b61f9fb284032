"""The answer in a terminal: its sentences and a row per method, within the width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from hpml_bench.report.answer import terms, words
from hpml_bench.report.answer.model import PageSummary

NARROWEST = 40
"""Characters below which nothing is narrowed any more."""
VERDICT = 24
"""Characters that a verdict needs at least; a cost's column is left out for them, sizes first."""
GAP = "  "
LONGEST_NAME = 40
"""Characters of a method's name; a longer one is cut, on a narrow terminal one of more than a third of its width."""
MOST = 24
"""Rows of a table in a terminal; of more the best are shown, a line each, above the sentences."""
SHORT = {"time": "time", "memory": "memory", "size": "saved"}


def lines(answer: PageSummary, width: int) -> list[str]:
    """Return what the first screen says, in lines of at most `width` characters."""
    width = max(NARROWEST, width)
    said = (words.banner(answer), words.headline(answer), ", ".join(words.setup_line(answer)))
    found = [line for text in said for line in textwrap.wrap(text, width)]
    if (left := len(answer.methods) - MOST) <= 0:
        return [*found, "", *_table(answer, width)] if answer.methods else found
    last = [line for text in (said[0], said[2], said[1]) for line in textwrap.wrap(text, width)]
    return [*_table(answer, width), f"... and {terms.count_of(left, answer.noun)} more, on the page", "", *last]


def _table(answer: PageSummary, width: int) -> Iterator[str]:
    """Yield header and rows: method, score, costs, verdict; a long verdict goes on beneath itself, of a few methods."""
    columns = _columns(answer, min(LONGEST_NAME, width // 3))
    while len(columns) > 2 and width - _taken(columns) < VERDICT:
        columns.pop()
    last, rows = _taken(columns), min(len(answer.methods), MOST) + 1
    most = None if len(answer.methods) <= MOST else 1
    said = ["verdict", *(words.verdict(answer, method.name).in_full for method in answer.methods)]
    for row in range(rows):
        cells = [_pad(column, row, left=at == 0) for at, column in enumerate(columns)]
        wrapped = textwrap.wrap(said[row], max(9, width - last), max_lines=most, placeholder=" ...")
        first, *more = wrapped or [""]
        yield (GAP.join(cells) + GAP + first).rstrip()
        yield from (" " * last + line for line in more)


def _columns(answer: PageSummary, longest: int) -> list[list[str]]:
    """Return the columns but the verdict: a header, then a cell per method."""
    unit = f" {answer.score.unit}" if answer.score.unit else ""
    scores = [answer.value(method.name, "score") for method in answer.methods]
    columns = [
        [answer.noun, *(_name(answer, method.name, longest) for method in answer.methods)],
        [answer.score.title + unit, *("-" if s is None else terms.score_text(answer, s, unit=False) for s in scores)],
    ]
    for axis in answer.axes:
        values = [answer.value(method.name, axis.id) for method in answer.methods]
        header = SHORT.get(axis.key, axis.title.lower()) + ("" if terms.own_units(axis) else f" {axis.unit}")
        cells = ["-" if value is None else terms.cost_text(answer, axis.id, value, unit=False) for value in values]
        columns.append([header, *cells])
    return columns


def _name(answer: PageSummary, name: str, longest: int) -> str:
    """Return a method's name, with its number where sentences use that."""
    shown = terms.row_name(answer, name)
    shown = shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
    return f"{answer.number[name]:2} {shown}" if answer.numbered else shown


def _taken(columns: list[list[str]]) -> int:
    """Return the characters that columns take, with the gap after each."""
    return sum(max(map(len, column)) + len(GAP) for column in columns)


def _pad(column: list[str], row: int, *, left: bool) -> str:
    width = max(map(len, column))
    return column[row].ljust(width) if left else column[row].rjust(width)
