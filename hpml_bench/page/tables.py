"""Tables and sections of a report, and the questions that a page answers by them; `numbers`
writes what is in them.
"""

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Literal, NamedTuple

from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summarize import cost_scale, score_scale
from hpml_bench.plugins.blocks import Fold, Question, Section, Table, Tabs, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.numbers import MISSING, Cell, Quantity, Shown
from hpml_bench.system.errors import UserError

TITLES: dict[Question, tuple[str, str]] = {
    "best": ("Which is best?", "Best"),
    "cost": ("What does it cost?", "Cost"),
    "sure": ("How sure is that?", "Certainty"),
    "training": ("How did training go?", "Training"),
    "methods": ("Method by method", "Methods"),
    "setup": ("What exactly was run?", "Set-up"),
    "wrong": ("Anything wrong?", "Problems"),
    "reading": ("How to read this page", "Reading"),
}
"""Heading, and its short form for links."""
OF_SYSTEMS: dict[Question, tuple[str, str]] = {
    "methods": ("System by system", "Systems"),
    "setup": ("What was read?", "Input"),
}
"""The same where the page compares systems whose scores were given."""


def quantity_of(results: Results, name: str) -> Quantity:
    """Return a metric in the unit and digits of the first screen where it is there, else by its
    values' spread.
    """
    metric, scores = results.definitions[name], results.aligned
    intervals = [
        found
        for method in results.values(name)
        if (found := results.interval(method, name)) is not None
    ]
    spreads = any(interval.sd for interval in intervals)
    if name == results.quality:
        return Quantity(
            metric, *score_scale(scores), f".{answer_of(results).score.digits}f", spreads
        )
    if cost := next((cost for cost in scores.costs if cost.column == name), None):
        return Quantity(metric, *cost_scale(scores, cost), ".3g", spreads)
    return Quantity.of(metric, intervals)


def table(
    name: str,
    caption: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[Cell]],
    notes: Iterable[str] = (),
) -> Table:
    pairs = [list(map(_pair, row)) for row in rows]
    return Table(
        name=name,
        caption=caption,
        columns=tuple(columns),
        rows=tuple(tuple(text for text, _ in row) for row in pairs),
        values=tuple(tuple(value for _, value in row) for row in pairs),
        notes=tuple(notes),
    )


def _pair(cell: Cell) -> Shown:
    if cell is None:
        return MISSING, None
    if isinstance(cell, int):
        return str(cell), float(cell)
    return (cell, cell) if isinstance(cell, str) else cell


def section_of(
    slug: str,
    title: str,
    *blocks: Text | Table | Picture | Tabs | Fold | None,
    question: Question = "setup",
    about: str = "",
    folded: bool = True,
) -> Section | None:
    """Return a section of the blocks that there are: tables without rows are left out; None
    without a block.
    """
    there = tuple(
        block for block in blocks if block and not (isinstance(block, Table) and not block.rows)
    )
    if not there:
        return None
    return Section(
        slug=slug, title=title, blocks=there, question=question, about=about, folded=folded
    )


def by_method(
    results: Results, name: str, caption: str, metrics: Iterable[str], notes: Iterable[str] = ()
) -> Table | None:
    """Return a table of `mean ± sd`, one row per method, one column per measured metric; None if
    there is none.
    """
    quantities = [quantity_of(results, metric) for metric in results.measured(*metrics)]
    if not quantities:
        return None
    if not results.costs_ranked and any(
        quantity.metric.depends_on_machine for quantity in quantities
    ):
        notes = [*notes, f"Costs rank nothing: {results.aligned.unranked}."]
    rows = [[method, *spreads(results, method, quantities)] for method in results.methods]
    return table(
        name, caption, ["method", *(quantity.header for quantity in quantities)], rows, notes
    )


def spreads(results: Results, method: str, quantities: Iterable[Quantity]) -> list[Cell]:
    return [
        quantity.spread(results.interval(method, quantity.metric.name)) for quantity in quantities
    ]


# The parts of a page


class Part(NamedTuple):
    """A question with its sections: those in the open, and those behind a click."""

    key: str  # a `Question`, or the slug of a page's only section of this part
    title: str
    short: str
    shown: tuple[Section, ...]
    folded: tuple[Section, ...]


def parts(
    sections: Sequence[Section], noun: Literal["method", "system"] = "method"
) -> tuple[Part, ...]:
    """Return the questions in the page's order, also those without a section, in words for what
    is compared.
    """
    found = []
    for key, (title, short) in (TITLES | (OF_SYSTEMS if noun == "system" else {})).items():
        own = [section for section in sections if section.question == key]
        shown, folded = (tuple(s for s in own if s.folded == hidden) for hidden in (False, True))
        found.append(Part(key, title, short, shown, folded))
    return tuple(found)


def placed(module: ModuleType, name: str, section: Section) -> Section:
    """Return a section with its module's `question`, `about` and `folded`; a UserError where
    that is no question.
    """
    place = {
        key: getattr(module, key) for key in ("question", "about", "folded") if hasattr(module, key)
    }
    if place.get("question", "setup") not in TITLES:
        asked = f"a module's `question` is one of {', '.join(TITLES)} (docs/adding.md)"
        raise UserError(f"the section '{name}' answers '{place['question']}'; {asked}")
    return section.model_copy(update=place)
