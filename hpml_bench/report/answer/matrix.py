"""Matrix of an answer's pairs: each method against each other, by score and by each tested cost."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Mark, Section, Table, Tabs, Text
from hpml_bench.report.answer import terms
from hpml_bench.report.answer.model import Axis, PageSummary
from hpml_bench.report.tables import MISSING, Cell, capitalized, number, section_of, table

SIGNS: dict[Mark, str] = {"better": "▲", "worse": "▼", "open": "?", "equal": "="}
LEGEND = "Read a row: its {} against each column. ▲ shown better, ▼ shown worse, ? can't tell, = equal."


def matrix_section(answer: PageSummary) -> Section | None:
    """Return a table of differences per score and tested cost, one shown at a time; None where no pair was tested."""
    if not answer.decided:
        return None
    tested: list[Axis | None] = [None, *(axis for axis in answer.axes if axis.tested)]
    tables = [made for axis in tested if (made := _table(answer, axis)) is not None]
    labels = tuple(_label(answer, axis) for axis in tested if _table(answer, axis) is not None)
    return section_of(
        "matrix",
        "Every pair",
        Text(sentences=(LEGEND.format(answer.noun),)),
        Tabs(name="matrix", labels=labels, tables=tuple(tables)),
    )


def _label(answer: PageSummary, axis: Axis | None) -> str:
    if axis is None:
        return capitalized(answer.score.title)
    return axis.title if axis.tested == axis.id else "Memory added"


def _table(answer: PageSummary, axis: Axis | None) -> Table | None:
    """Return the differences by score, or factors by a cost, row against column; None where none was compared."""
    key, metric = ("score", "score") if axis is None else (axis.key, axis.tested or "")
    pairs = answer.pairs.get(metric, ())
    named = {name for pair in pairs for name in (pair.a, pair.b)}
    names = [method.name for method in answer.methods if method.name in named]
    if len(names) < 2:
        return None
    rows: list[list[Cell]] = []
    marks: list[tuple[Mark | None, ...]] = []
    for name in names:
        relations = [None if other == name else answer.relation(key, name, other) for other in names]
        own: list[Mark | None] = [None if r in {None, "untested"} else r for r in relations]  # type: ignore[misc]
        rows.append(
            [
                f"{answer.number[name]} {name}" if answer.numbered else name,
                *(_cell(answer, metric, name, o, m) for o, m in zip(names, own, strict=True)),
            ]
        )
        marks.append((None, *own))
    heads = [str(answer.number[name]) if answer.numbered else name for name in names]
    unit = f" ({answer.score.difference_unit})" if answer.score.difference_unit else ""
    what = f"difference{unit}, row less column" if axis is None else "factor, row over column"
    made = table(f"matrix_{metric}", f"{_label(answer, axis)}: {what}", (capitalized(answer.noun), *heads), rows)
    return made.model_copy(update={"marks": tuple(marks)})


def _cell(answer: PageSummary, metric: str, name: str, other: str, mark: Mark | None) -> Cell:
    pair = None if name == other else answer.pair(metric, name, other)
    if pair is None:
        return (MISSING if name != other else " ", None)
    ratio = metric != "score"
    value = terms.seen_from(pair, name, ratio=ratio)[0]
    if ratio:
        text = f"× {number(value, '.2f')}"
    else:
        text = terms.gap_text(answer, value, unit=False)
        text = f"+{text}" if value > 0 and float(number(value, f".{answer.gap_digits}f").replace(",", "")) else text
    return (f"{text} {SIGNS[mark]}" if mark else text, value)
