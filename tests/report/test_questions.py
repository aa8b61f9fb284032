"""The parts that a page of questions added: pairs as a matrix, what would decide them, costs, methods, cautions."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from helpers.answers import RMSE, an_answer
from hpml_bench.builtin.sections import costs
from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.report.answer.model import PageSummary
from hpml_bench.report.answer.sections import deciding_section, matrix_section, turns
from hpml_bench.report.questions import parts, placed
from hpml_bench.system.errors import UserError

THREE = {"a": 80.0, "b": 79.0, "c": 70.0}


def costs_of(answer: PageSummary, monkeypatch: pytest.MonkeyPatch) -> Section:
    """Return the section of costs of an answer."""
    monkeypatch.setattr(costs, "answer_of", lambda _: answer)
    results: Any = SimpleNamespace(measured=lambda *_: (), means=lambda _: {}, comparisons=lambda _: ())
    made = costs.section(results)
    assert made is not None
    return made


def sentences(made: Section | None) -> str:
    """Return the texts of a section."""
    texts = [block for block in (made.leaves if made else ()) if isinstance(block, Text)]
    return " ".join(sentence for text in texts for sentence in text.sentences)


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


def test_open_pairs_say_what_would_decide_them() -> None:
    """Seeds where a number is enough, else more test rows; four pairs are named, in the table's order."""
    answer = an_answer(THREE, open_=(("a", "b"), ("b", "c")))
    more = [pair.model_copy(update={"need": None}) if pair.b == "c" else pair for pair in answer.pairs["score"]]
    answer = answer.model_copy(update={"pairs": answer.pairs | {"score": tuple(more)}})
    told = sentences(deciding_section(answer))
    assert "2 of 3 pairs of scores are open." in told
    assert "a or b: 1.0 point apart. With a gap of that size, about 78 seeds, fixed before, would decide." in told
    assert "b or c: 9.0 points apart. More seeds alone won't decide; use more than 1,000 test rows." in told
    many = {f"m{n}": 80.0 - n for n in range(4)}
    names = list(many)
    all_open = tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    told = sentences(deciding_section(an_answer(many, open_=all_open)))
    assert told.count("apart.") == 4
    assert "2 more: see every pair in numbers." in told


@pytest.mark.parametrize(("seeds", "chance"), [(3, "51"), (5, "33"), (10, "11")])
def test_the_claim_says_what_so_few_seeds_miss(seeds: int, chance: str) -> None:
    """The chance that n seeds show none of a fault in a fifth of them, 0.8^n, stands beside the claim on pages."""
    answer = an_answer(THREE, seeds=seeds)
    pairs = {of: tuple(p.model_copy(update={"shared": seeds}) for p in pairs) for of, pairs in answer.pairs.items()}
    told = sentences(deciding_section(answer.model_copy(update={"pairs": pairs})))
    assert f"A fault in 20 % of seeds like these stays unseen in {seeds} with a chance of {chance} %." in told


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


# Costs


def test_undecided_costs_are_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the fastest method nor the one with least memory is named where several may be."""
    answer = an_answer({"a": 80.0, "b": 79.0})
    tied = {
        metric: tuple(pair.model_copy(update={"verdict": "undecided", "winner": None}) for pair in pairs)
        for metric, pairs in answer.pairs.items()
    }
    said = sentences(costs_of(answer.model_copy(update={"pairs": tied}), monkeypatch))
    assert "Which trains fastest is undecided: a or b." in said
    assert "Which needs least memory is undecided: a or b." in said


# Method by method, and cautions


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
