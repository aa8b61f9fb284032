"""The answer as rows: lines for a terminal, within its width, and a table for CSV, LaTeX and trackers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from hpml_bench.plugins.blocks import Table
from hpml_bench.report.answer import words
from hpml_bench.report.answer.model import PageSummary
from hpml_bench.report.numbers import MISSING, Shown, capitalized, count_of, number
from hpml_bench.report.pictures.screen import difference
from hpml_bench.report.tables import table

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
        return [*found, "", *_lines(answer, width)] if answer.methods else found
    last = [line for text in (said[0], said[2], said[1]) for line in textwrap.wrap(text, width)]
    return [*_lines(answer, width), f"... and {count_of(left, answer.noun)} more, on the page", "", *last]


def _lines(answer: PageSummary, width: int) -> Iterator[str]:
    """Yield header and rows: method, score, costs, verdict; a long verdict goes on beneath itself, of a few methods."""
    columns = _columns(answer, min(LONGEST_NAME, width // 3))
    widths = [max(map(len, column)) for column in columns]
    while len(widths) > 2 and width - sum(widths) - len(GAP) * len(widths) < VERDICT:
        widths.pop()
    last = sum(widths) + len(GAP) * len(widths)
    many = len(answer.methods) > MOST
    said = ["verdict", *(words.verdict(answer, method.name).in_full for method in answer.methods)]
    for at, (text, (name, *cells)) in enumerate(zip(said, zip(*columns, strict=True), strict=True)):
        if at > MOST:
            return
        shown = [name.ljust(widths[0]), *(cell.rjust(room) for cell, room in zip(cells, widths[1:], strict=False))]
        first, *more = textwrap.wrap(text, max(9, width - last), max_lines=1 if many else None, placeholder=" ...") or [
            ""
        ]
        yield (GAP.join(shown) + GAP + first).rstrip()
        yield from (" " * last + line for line in more)


def _columns(answer: PageSummary, longest: int) -> list[list[str]]:
    """Return the columns but the verdict: a header, then a cell per method, numbered where sentences are."""
    names = [words.row_name(answer, method.name) for method in answer.methods]
    names = [name if len(name) <= longest else f"{name[: longest - 3]}..." for name in names]
    if answer.numbered:
        names = [f"{at:2} {name}" for at, name in enumerate(names, 1)]
    unit = f" {answer.score.unit}" if answer.score.unit else ""
    scores = [answer.value(method.name, "score") for method in answer.methods]
    shown = ["-" if score is None else answer.score.text(score, unit=False) for score in scores]
    columns = [[answer.noun, *names], [answer.score.title + unit, *shown]]
    for axis in answer.axes:
        values = [answer.value(method.name, axis.id) for method in answer.methods]
        header = SHORT.get(axis.key, axis.title.lower()) + ("" if axis.own_units else f" {axis.unit}")
        cells = ["-" if value is None else axis.text(value, unit=False) for value in values]
        columns.append([header, *cells])
    return columns


def answer_table(answer: PageSummary) -> Table:
    score, best = answer.score, answer.methods[0].name if answer.methods else ""
    unit = f" ({score.difference_unit})" if score.difference_unit else ""
    columns = (
        answer.noun, f"{score.title} ({score.unit})" if score.unit else score.title,
        f"difference{unit}", "low", "high", "verdict", "can't tell from",
        *(f"{axis.title.lower()} ({axis.unit})" if axis.unit else axis.title.lower() for axis in answer.axes),
    )  # fmt: skip
    caption = (
        f"{capitalized(answer.noun)}s by {score.title}, with the difference to the best mean, and low and high at its "
        "test's level"
    )
    return table("answer", caption, columns, [_cells(answer, method.name, best) for method in answer.methods])


def _cells(answer: PageSummary, name: str, best: str) -> Iterator[Shown]:
    mean, gap = answer.value(name, "score"), difference(answer, name, best) if name != best else None
    yield name, name
    yield (MISSING, None) if mean is None else (answer.score.text(mean, unit=False), mean)
    for value in (gap.d, gap.low, gap.high) if gap else (None,) * 3:
        yield (MISSING, None) if value is None else (answer.gap_text(value, unit=False), value)
    behind = ", ".join(answer.related(name, "worse"))
    verdict = words.verdict(answer, name).chip or (f"behind {behind}" if behind else "")
    for text in (verdict, ", ".join(answer.related(name, "open"))):
        yield text or MISSING, text or None
    for axis in answer.axes:
        cost = answer.value(name, axis.id)
        if cost is None:
            yield MISSING, None
        else:
            yield number(cost) if axis.own_units else axis.text(cost, unit=False), cost
