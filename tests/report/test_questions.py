"""The parts that a page of questions added: pairs as a matrix, what would decide them, costs, methods, cautions."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from helpers.answers import RMSE, an_answer
from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.report.answer.model import PageSummary
from hpml_bench.report.answer.sections import matrix_section, turns
from hpml_bench.report.tables import parts, placed
from hpml_bench.system.errors import UserError

THREE = {"a": 80.0, "b": 79.0, "c": 70.0}


def tables(made: Section | None) -> list[Table]:
    """Return the tables of a section."""
    return [block for block in (made.leaves if made else ()) if isinstance(block, Table)]


# The matrix


COSTLY = {"a": (2.0, 300.0, 1.0), "b": (1.0, 200.0, 1.0)}


@pytest.mark.parametrize(
    ("answer", "at", "rows"),
    [
        (an_answer(THREE, open_=(("a", "b"),)), 0,
         [" | +1.0 ? | +10.0 ▲", "−1.0 ? |  | +9.0 ▲", "−10.0 ▼ | −9.0 ▼ | "]),
        (an_answer(THREE, equal=(("a", "b"),), untested=(("a", "c"),)), 0,
         [" | +1.0 = | +10.0", "−1.0 = |  | +9.0 ▲", "−10.0 | −9.0 ▼ | "]),
        (an_answer({"a": 0.3, "b": 0.4}, score=RMSE), 0, [" | −0.100 ▲", "+0.100 ▼ | "]),
        (an_answer({"a": 80.0, "b": 79.0}, costs=COSTLY), 1, [" | × 2.00 ▼", "× 0.50 ▲ | "]),
    ],
    ids=["open", "equal and untested", "lower is better", "factors"],
)  # fmt: skip
def test_a_row_of_the_matrix_is_seen_from_its_method(answer: PageSummary, at: int, rows: list[str]) -> None:
    """Differences turn round with the pair, and sign and mark say the verdict, which of errors the sign doesn't."""
    made = tables(matrix_section(answer))
    assert [" | ".join(row[1:]) for row in made[at].rows] == rows
    signs = {"better": "▲", "worse": "▼", "open": "?", "equal": "=", None: ""}
    assert made[at].marks
    for texts, marks in zip(made[at].rows, made[at].marks, strict=True):
        assert all(text.endswith(signs[mark]) for text, mark in zip(texts, marks, strict=True))


# What would decide


@pytest.mark.parametrize(("methods", "seeds", "said"), [
    ("ab", 3, True), ("abc", 3, False), ("ab", 4, False), (("a", "b", "none"), 3, True),
])  # fmt: skip
def test_orders_of_two_methods_over_three_seeds_bound_no_rhythm(methods: Sequence[str], seeds: int, said: bool) -> None:
    """Said of ranked costs alone; a base model, which has none, is no third method."""
    answer = an_answer({name: 80.0 - at for at, name in enumerate(methods)})
    pairs = {
        of: tuple(p.model_copy(update={"shared": seeds}) for p in pairs if of == "score" or p.b != "none")
        for of, pairs in answer.pairs.items()
    }
    sentence = "No order of two methods over three seeds bounds a disturbance that returns every few runs."
    assert turns(answer.model_copy(update={"pairs": pairs})) == (sentence if said else "")
    assert turns(answer.model_copy(update={"pairs": {"score": answer.pairs["score"]}})) == ""


# Places


def test_a_section_stands_where_its_module_says() -> None:
    """Without a word it answers what was run, behind a click; a question that the page doesn't ask is refused."""
    made = Section(slug="own", title="Own", blocks=())
    bare = placed(ModuleType("bare"), "bare", made)
    assert (bare.question, bare.folded, bare.about) == ("setup", True, "")
    module: Any = ModuleType("told")
    module.question, module.folded, module.about = "cost", False, "a word"
    told = placed(module, "told", made)
    assert {part.key: (part.shown, part.folded) for part in parts((bare, told)) if part.shown or part.folded} == {
        "cost": ((told,), ()), "setup": ((), (bare,)),
    }  # fmt: skip
    module.question = "why"
    with pytest.raises(UserError, match=r"the section 'odd' answers 'why'; .* one of best, cost, sure"):
        placed(module, "odd", made)
