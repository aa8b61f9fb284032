"""The answer as a table, for CSV, LaTeX and trackers."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Table
from hpml_bench.report.answer import terms, words
from hpml_bench.report.answer.model import Axis, Method, PageSummary
from hpml_bench.report.pictures.differences import difference
from hpml_bench.report.tables import MISSING, capitalized, number


def answer_table(answer: PageSummary) -> Table:
    """Return a row per method, the best mean first: score, difference to the best mean, verdict, costs."""
    score = answer.score
    best = answer.methods[0].name if answer.methods else ""
    unit = f" ({score.difference_unit})" if score.difference_unit else ""
    columns = (
        answer.noun, f"{score.title} ({score.unit})" if score.unit else score.title,
        f"difference{unit}", "low", "high", "verdict", "can't tell from",
        *(f"{axis.title.lower()} ({axis.unit})" if axis.unit else axis.title.lower() for axis in answer.axes),
    )  # fmt: skip
    rows = [_row(answer, method, best) for method in answer.methods]
    what = f"{capitalized(answer.noun)}s"
    return Table(
        name="answer",
        caption=f"{what} by {score.title}, with the difference to the best mean, and low and high at its test's level",
        columns=columns,
        rows=tuple(tuple(text for text, _ in row) for row in rows),
        values=tuple(tuple(value for _, value in row) for row in rows),
    )


_Cell = tuple[str, float | str | None]
"""A cell's text and the value behind it."""


def _row(answer: PageSummary, method: Method, best: str) -> tuple[_Cell, ...]:
    name, score = method.name, method.values.get("score")
    gap = difference(answer, name, best) if name != best else None

    def shown(value: float | None) -> _Cell:
        return (MISSING, None) if value is None else (terms.gap_text(answer, value, unit=False), value)

    return (
        (name, name),
        (MISSING, None) if score is None else (terms.score_text(answer, score.mean, unit=False), score.mean),
        shown(gap.d if gap else None),
        shown(gap.low if gap else None),
        shown(gap.high if gap else None),
        _text(_verdict(answer, name)),
        _text(", ".join(answer.related(name, "open"))),
        *(_cost(answer, axis, method) for axis in answer.axes),
    )


def _verdict(answer: PageSummary, name: str) -> str:
    behind = answer.related(name, "worse")
    return words.verdict(answer, name).chip or (f"behind {', '.join(behind)}" if behind else "")


def _text(text: str) -> _Cell:
    return text or MISSING, text or None


def _cost(answer: PageSummary, axis: Axis, method: Method) -> _Cell:
    found = method.values.get(axis.id)
    if found is None:
        return MISSING, None
    text = number(found.mean) if terms.own_units(axis) else terms.cost_text(answer, axis.id, found.mean, unit=False)
    return text, found.mean
