"""Certainty of an answer: a matrix of each method against each other, and what would decide the open pairs."""

from __future__ import annotations

from collections.abc import Iterator

from hpml_bench.plugins.blocks import Mark, Section, Table, Tabs, Text
from hpml_bench.report.answer import words
from hpml_bench.report.answer.model import Axis, PageSummary, Pair
from hpml_bench.report.numbers import MISSING, Cell, capitalized, count_of, number
from hpml_bench.report.tables import section_of, table
from hpml_bench.statistics.over_rows import MOST_ROWS

SIGNS: dict[Mark, str] = {"better": "▲", "worse": "▼", "open": "?", "equal": "="}
LEGEND = "Read a row: its {} against each column. ▲ shown better, ▼ shown worse, ? can't tell, = equal."
FAULT = 0.2
"""Share of seeds with a fault, such as a collapse, that no test of few seeds bounds; n show none by (1 - 0.2)^n."""
SHOWN = 4
"""Open pairs that are named; the others are counted."""


# The matrix


def matrix_section(answer: PageSummary) -> Section | None:
    """Return a table of differences per score and tested cost, one shown at a time; None where no pair was tested."""
    tested: list[Axis | None] = [None, *(axis for axis in answer.axes if axis.tested)]
    named = {_label(answer, axis): made for axis in tested if (made := _matrix(answer, axis)) is not None}
    if not answer.decided or not named:
        return None
    tabs = Tabs(name="matrix", labels=tuple(named), tables=tuple(named.values()))
    legend = Text(sentences=(LEGEND.format(answer.noun),))
    return section_of("matrix", "Every pair", legend, tabs, question="sure", folded=False)


def _label(answer: PageSummary, axis: Axis | None) -> str:
    if axis is None:
        return capitalized(answer.score.title)
    return axis.title if axis.tested == axis.id else "Memory added"


def _matrix(answer: PageSummary, axis: Axis | None) -> Table | None:
    key, metric = ("score", "score") if axis is None else (axis.key, axis.tested or "")
    compared = {name for pair in answer.pairs.get(metric, ()) for name in (pair.a, pair.b)}
    names = [method.name for method in answer.methods if method.name in compared]
    if len(names) < 2:
        return None
    numbers = answer.number if answer.numbered else {}
    rows: list[list[Cell]] = []
    marks: list[tuple[Mark | None, ...]] = []
    for name in names:
        relations = [None if other == name else answer.relation(key, name, other) for other in names]
        own: list[Mark | None] = [None if r in {None, "untested"} else r for r in relations]  # type: ignore[misc]
        cells = [_cell(answer, metric, name, other, mark) for other, mark in zip(names, own, strict=True)]
        rows.append([f"{numbers[name]} {name}" if numbers else name, *cells])
        marks.append((None, *own))
    unit = f" ({answer.score.difference_unit})" if answer.score.difference_unit else ""
    what = f"difference{unit}, row less column" if axis is None else "factor, row over column"
    heads = (capitalized(answer.noun), *(str(numbers.get(name, name)) for name in names))
    made = table(f"matrix_{metric}", f"{_label(answer, axis)}: {what}", heads, rows)
    return made.model_copy(update={"marks": tuple(marks)})


def _cell(answer: PageSummary, metric: str, name: str, other: str, mark: Mark | None) -> Cell:
    pair = None if name == other else answer.pair(metric, name, other)
    if pair is None:
        return (MISSING if name != other else " ", None)
    value = pair.seen_from(name, ratio=metric != "score")[0]
    if metric != "score":
        text = f"× {number(value, '.2f')}"
    else:
        text = answer.gap_text(value, unit=False)
        text = f"+{text}" if value > 0 and text.strip("0.,") else text
    return (f"{text} {SIGNS[mark]}" if mark else text, value)


# What would decide


def deciding_section(answer: PageSummary) -> Section | None:
    """Return what each open pair would take, and what the verdicts hold for; None with a single method."""
    if len(answer.methods) < 2:
        return None
    pairs = answer.pairs.get("score", ())
    place = answer.number
    pending = [pair for pair in pairs if pair.verdict == "undecided"]
    pending.sort(key=lambda pair: sorted((place[pair.a], place[pair.b])))
    blocks = [Text(sentences=(_headline(answer, len(pending), len(pairs)),))]
    if pending:
        lines = [_line(answer, pair) for pair in pending[:SHOWN]]
        more = [f"{len(pending) - SHOWN} more: see every pair in numbers."] * (len(pending) > SHOWN)
        blocks.append(Text(sentences=(*lines, *more)))
    if scope := tuple(_scope(answer)):
        blocks.append(Text(sentences=(" ".join(scope),)))
    return section_of("deciding", "What would decide", *blocks, question="sure", folded=False)


def _headline(answer: PageSummary, pending: int, pairs: int) -> str:
    if answer.untested:
        return f"No pair of scores is tested: {answer.untested}."
    if not answer.tested_by_score:
        return f"No pair of scores is tested. Run each {answer.noun} with the same {answer.least} seeds or more."
    if not pending:
        return "Every tested pair of scores is decided."
    if pairs == 1:
        return "The pair of scores is open."
    return f"{pending} of {count_of(pairs, 'pair')} of scores {'is' if pending == 1 else 'are'} open."


def _line(answer: PageSummary, pair: Pair) -> str:
    one, other = sorted((pair.a, pair.b), key=answer.number.__getitem__)
    gap = answer.gap_text(abs(pair.difference))
    apart = f"{words.label(answer, one)} or {words.label(answer, other)}: {gap} apart."
    fixed = "" if answer.rounds else ", fixed before,"
    if pair.need:
        return f"{apart} With a gap of that size, about {pair.need:,} {answer.over}s{fixed} would decide."
    if answer.lacking:
        return f"{apart} The missing rows may turn it."
    if answer.over == "row":
        return f"{apart} Not even {MOST_ROWS:,} rows would decide."
    return f"{apart} More seeds alone won't decide; use more than {answer.rows_text}."


def turns(answer: PageSummary) -> str:
    """Return what no order of runs bounds where costs of two methods over three seeds are ranked; empty elsewhere."""
    costs = [p for by, pairs in answer.pairs.items() if by != "score" for p in pairs if p.verdict != "untested"]
    if len({name for p in costs for name in (p.a, p.b)}) != 2 or min(p.shared for p in costs) > answer.least:
        return ""
    return f"No order of two {answer.noun}s over three seeds bounds a disturbance that returns every few runs."


def _scope(answer: PageSummary) -> Iterator[str]:
    if not answer.decided:
        return
    by = "score and costs" if any(axis.tested for axis in answer.axes) else "score"
    yield f"The page compares {count_of(answer.tested, 'pair')} by {by}, for {answer.judged}."
    if answer.over == "row":
        yield f"With rows drawn at random and fixed before, at most {answer.chance:g} % of pages hold a wrong verdict."
        if answer.noun == "method" and answer.seeds < answer.least:
            few = f"{count_of(answer.seeds, 'seed')} can't rank methods"
            yield f"{few}: another seed may order them otherwise. Run {answer.least} or more."
        yield "“Can't tell” doesn't mean equal."
        return
    fixed = "looks declared" if answer.rounds else "seeds fixed"
    yield f"With near-normal noise and {fixed} before, at most {answer.chance:g} % of pages hold a wrong verdict."
    n = min(pair.shared for pairs in answer.pairs.values() for pair in pairs if pair.verdict != "untested")
    missed = f"{100 * (1 - FAULT) ** n:.2g} %"
    yield f"A fault in {100 * FAULT:g} % of seeds like these stays unseen in {n} with a chance of {missed}."
    yield f"{'Verdicts hold at this budget. ' if answer.noun == 'method' else ''}“Can't tell” doesn't mean equal."
