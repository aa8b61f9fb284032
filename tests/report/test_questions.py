"""The parts that a page of questions added: pairs as a matrix, what would decide them, costs, methods, cautions."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from report_sections import load, section

from helpers.answers import RMSE, SIZE, TIME, an_answer
from helpers.made_records import failed, sweep
from hpml_bench.builtin.sections import costs
from hpml_bench.plugins.blocks import Fold, Section, Table, Tabs, Text
from hpml_bench.report.answer.certainty import deciding_section, matrix_section, turns
from hpml_bench.report.answer.model import PageSummary
from hpml_bench.report.questions import parts, placed
from hpml_bench.report.render import all_sections, tables_of, write_report
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


def test_a_row_is_seen_from_its_method() -> None:
    """Differences turn round with the pair, and sign and mark say the verdict; the diagonal is empty."""
    made = tables(matrix_section(an_answer(THREE, open_=(("a", "b"),))))
    score = made[0]
    assert score.columns == ("Method", "a", "b", "c")
    assert score.rows == (
        ("a", "", "+1.0 ?", "+10.0 ▲"), ("b", "−1.0 ?", "", "+9.0 ▲"), ("c", "−10.0 ▼", "−9.0 ▼", ""),
    )  # fmt: skip
    assert score.marks == (
        (None, None, "open", "better"), (None, "open", None, "better"), (None, "worse", "worse", None),
    )  # fmt: skip
    assert score.values is not None
    assert score.values[2][1:3] == (-10.0, -9.0)


def test_factors_of_costs_turn_round_too() -> None:
    """A cost has a table of its own: half the time against twice as much; the cheaper is better."""
    costly = {"a": (2.0, 300.0, 1.0), "b": (1.0, 200.0, 1.0)}
    made = matrix_section(an_answer({"a": 80.0, "b": 79.0}, costs=costly))
    assert made is not None
    (tabs,) = (block for block in made.blocks if isinstance(block, Tabs))
    assert tabs.labels == ("Accuracy", "Training time", "Memory added")
    assert [table.name for table in tabs.tables] == [
        "matrix_score", "matrix_train_seconds", "matrix_peak_memory_over_setup_mb",
    ]  # fmt: skip
    assert [row[1:] for row in tabs.tables[1].rows] == [("", "× 2.00 ▼"), ("× 0.50 ▲", "")]


def test_a_lower_score_can_be_better() -> None:
    """Of errors, the mark says what the sign does not: the smaller one is better."""
    made = tables(matrix_section(an_answer({"a": 0.3, "b": 0.4}, score=RMSE)))
    assert [row[1:] for row in made[0].rows] == [("", "−0.100 ▲"), ("+0.100 ▼", "")]


def test_equal_and_untested_pairs_have_their_own_marks() -> None:
    """Equal is a verdict, not tested is none."""
    answer = an_answer(THREE, equal=(("a", "b"),), untested=(("a", "c"),))
    assert tables(matrix_section(answer))[0].rows[0] == ("a", "", "+1.0 =", "+10.0")


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


def test_nothing_open_is_said() -> None:
    """Decided pairs need nothing."""
    assert "Every tested pair of scores is decided." in sentences(deciding_section(an_answer(THREE)))


@pytest.mark.parametrize(("seeds", "chance"), [(3, "51"), (5, "33"), (10, "11")])
def test_the_claim_says_what_so_few_seeds_miss(seeds: int, chance: str) -> None:
    """The chance that n seeds show none of a fault in a fifth of them, 0.8^n, stands beside the claim on pages."""
    answer = an_answer(THREE, seeds=seeds)
    pairs = {of: tuple(p.model_copy(update={"shared": seeds}) for p in pairs) for of, pairs in answer.pairs.items()}
    told = sentences(deciding_section(answer.model_copy(update={"pairs": pairs})))
    assert f"A fault in 20 % of seeds like these stays unseen in {seeds} with a chance of {chance} %." in told


@pytest.mark.parametrize(("methods", "seeds", "said"), [("ab", 3, True), ("abc", 3, False), ("ab", 4, False)])
def test_orders_of_two_methods_over_three_seeds_bound_no_rhythm(methods: str, seeds: int, said: bool) -> None:
    """Said of ranked costs alone."""
    answer = an_answer({name: 80.0 - at for at, name in enumerate(methods)})
    pairs = {of: tuple(p.model_copy(update={"shared": seeds}) for p in pairs) for of, pairs in answer.pairs.items()}
    answer = answer.model_copy(update={"pairs": pairs})
    sentence = "No order of two methods over three seeds bounds a disturbance that returns every few runs."
    assert turns(answer) == (sentence if said else "")
    assert turns(answer.model_copy(update={"pairs": {"score": answer.pairs["score"]}})) == ""


def test_a_base_model_has_no_turns_of_its_own() -> None:
    """Two trained methods beside the base model, which has no costs, are two."""
    answer = an_answer({"a": 80.0, "b": 79.0, "none": 60.0})
    pairs = {
        of: tuple(p.model_copy(update={"shared": 3}) for p in pairs if of == "score" or "none" not in {p.a, p.b})
        for of, pairs in answer.pairs.items()
    }
    assert turns(answer.model_copy(update={"pairs": pairs})) != ""


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


def test_costs_stand_in_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, times as long as the fastest, whole peak and what training adds of it, saved size in the unit of each."""
    made = costs_of(an_answer({"a": 80.0, "b": 79.0}), monkeypatch)
    (shown,) = tables(made)
    assert shown.columns == (
        "Method", "Training time (s)", "Times as long as b", "Peak memory (MB)", "Of it by training (MB)", "Saved size",
    )  # fmt: skip
    assert shown.rows[0] == ("a", "10.0", "1.11 [1.09, 1.13]", "500", "400", "5.00 MB")
    assert shown.rows[1][2] == "1"
    told = sentences(made)
    assert "Verdicts on memory are on what training adds; limits are on the total peak." in told


def test_memory_of_one_kind_needs_no_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where verdicts and limits are on one memory, or none was measured, the sentence is missing."""
    told = sentences(costs_of(an_answer(THREE, axes=(TIME, SIZE)), monkeypatch))
    assert "peak" not in told


# Method by method, and cautions


def test_each_method_has_a_fold_with_its_number(tmp_path: Path) -> None:
    """Folds come in the order of the answer, named m-1, m-2 and so on; each has its facts."""
    made = section("each", load(tmp_path, sweep(["lora", "full", "head"], 3)))
    assert made is not None
    folds = [block for block in made.blocks if isinstance(block, Fold)]
    assert [fold.anchor for fold in folds] == ["m-1", "m-2", "m-3"]
    assert folds[-1].title == "head"
    for fold in folds:
        (facts,) = fold.blocks
        assert isinstance(facts, Table)
        named = dict(facts.rows)
        assert {"Seed by seed", "Training time", "Learning rate", "Options", "At the end"} <= set(named)
        assert named["Seed by seed"].count(",") == 2


def test_tables_of_folds_stay_on_the_page(tmp_path: Path) -> None:
    """CSV and LaTeX have the matrices, and not two tables a method."""
    names = {table.name for table in tables_of(all_sections(load(tmp_path, sweep(["lora", "full"], 3))))}
    assert {"matrix_score", "matrix_train_seconds", "costs", "definitions"} <= names
    assert not [name for name in names if name.startswith(("method_", "against_"))]


def test_a_page_without_a_sound_run_is_whole(tmp_path: Path) -> None:
    """Its parts are there all the same, and name the failures."""
    results = load(tmp_path, [failed("lora", 0, "failed", "why"), failed("full", 0, "oom_host", "killed")])
    write_report(results, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<h2") == 7
    assert "✕ Failed or stopped runs: 2 of 2" in page
    assert '2<span class="sr"> problems' in page


# Places


def test_a_section_stands_where_its_module_says() -> None:
    """Without a word it answers what was run, behind a click; the order of questions is the page's."""
    made = Section(slug="own", title="Own", blocks=())
    bare = placed(ModuleType("bare"), "bare", made)
    assert (bare.question, bare.folded, bare.about) == ("setup", True, "")
    module: Any = ModuleType("told")
    module.question, module.folded, module.about = "cost", False, "a word"
    told = placed(module, "told", made)
    of_page = {part.key: part for part in parts((bare, told))}
    assert of_page["cost"].shown == (told,)
    assert of_page["setup"].folded == (bare,)
    assert list(of_page) == ["best", "cost", "sure", "training", "methods", "setup", "wrong", "reading"]


def test_a_question_that_the_page_does_not_ask_is_an_error() -> None:
    """The message names the section, and the questions that there are."""
    module: Any = ModuleType("odd")
    module.question = "why"
    with pytest.raises(UserError, match=r"the section 'odd' answers 'why'; .* one of best, cost, sure"):
        placed(module, "odd", Section(slug="odd", title="Odd", blocks=()))
