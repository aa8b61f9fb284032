"""The questions that a page answers, in its order, and the sections under each."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Literal, NamedTuple, get_args

from hpml_bench.plugins.blocks import Question, Section
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


class Part(NamedTuple):
    """A question with its sections: those in the open, and those behind a click."""

    key: str
    """A `Question`, or the slug of a page's only section of this part."""
    title: str
    short: str
    shown: tuple[Section, ...]
    folded: tuple[Section, ...]


OF_SYSTEMS: dict[Question, tuple[str, str]] = {
    "methods": ("System by system", "Systems"),
    "setup": ("What was read?", "Input"),
}
"""The same where the page compares systems whose scores were given."""


def parts(sections: Sequence[Section], noun: Literal["method", "system"] = "method") -> tuple[Part, ...]:
    """Return the questions in the page's order, also those without a section, in words for what is compared."""
    found = []
    for key, (title, short) in (TITLES | (OF_SYSTEMS if noun == "system" else {})).items():
        own = [section for section in sections if section.question == key]
        shown, folded = (tuple(s for s in own if s.folded == hidden) for hidden in (False, True))
        found.append(Part(key, title, short, shown, folded))
    return tuple(found)


def placed(module: ModuleType, name: str, section: Section) -> Section:
    """Return a section with what its module says of its place: `question`, `about`, `folded`.

    Raises:
        UserError: there is no such question.

    """
    place = {key: getattr(module, key) for key in ("question", "about", "folded") if hasattr(module, key)}
    if place.get("question", "setup") not in TITLES:
        known = ", ".join(get_args(Question))
        raise UserError(
            f"the section '{name}' answers '{place['question']}'; a module's `question` is one of {known} "
            "(docs/adding.md)"
        )
    return section.model_copy(update=place)
