"""Behaviour: the answer says no more than its verdicts, in plain sentences of at most 20 words."""

from __future__ import annotations

import pytest

from helpers.answers import ACCURACY, RMSE, an_answer
from hpml_bench.report.answer import words
from hpml_bench.report.answer.facts import facts
from hpml_bench.report.answer.model import Failure, Guess, PageSummary, Score
from hpml_bench.report.numbers import ordinal

FIVE = {"full": 79.0, "lora": 78.9, "prompt_tuning": 76.0, "adapter": 75.3, "head": 72.5}


def fact(answer: PageSummary, label: str) -> str:
    """Return the text of a fact; empty where there is none."""
    return next((found.text for found in facts(answer) if found.label == label), "")


CASES = {
    "one best": an_answer(FIVE),
    "two tied": an_answer(FIVE, open_=(("full", "lora"), ("lora", "prompt_tuning"))),
    "all undecided": an_answer(FIVE, open_=tuple((a, b) for a in FIVE for b in FIVE if a < b)),
    "equal": an_answer(FIVE, equal=(("full", "lora"),)),
    "one seed": an_answer(FIVE, untested=tuple((a, b) for a in FIVE for b in FIVE if a < b), seeds=1),
    "one method": an_answer({"full": 79.0}, pairs={}),
    "lower is better": an_answer({"a": 0.311, "b": 0.346}, score=RMSE),
    "base": an_answer(
        {"lora": 17.3, "full": 16.8, "none": 14.1}, bases=("none",), open_=(("lora", "full"), ("lora", "none"),
        ("full", "none")), seeds=3, rows=48, rows_text="48 test rows",
    ),
    "failures": an_answer(FIVE, failures=(Failure(method="lora", seed=1, status="oom_cuda"),), shared=3, planned=26),
    "forty-five": an_answer({f"a_rather_long_method_name_{n:02d}": 90.0 - n for n in range(45)}),
    "unranked": an_answer(FIVE, unranked="runs had neighbours on their host"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("one best", "full scores best: 79.0 % accuracy; lora follows with 78.9 %."),
        ("two tied", "full or lora may be best, at about 79 % accuracy. These runs can't tell which."),
        ("equal", "full and lora score best and equal: about 79 % accuracy."),
        ("all undecided", "5 of 5 methods may be best, at 72.5 to 79.0 % accuracy. These runs can't tell which."),
        ("one seed", "full has the highest accuracy, 79.0 %. One seed can't rank methods: take 3 or more."),
        ("one method", "Only full has comparable runs: there is nothing to compare it with."),
        ("lower is better", "a scores best: 0.311 RMSE; b follows with 0.346."),
        ("base", "lora, full or the base model may be best, at 14.1 to 17.3 % accuracy. These runs can't tell which."),
    ],
)
def test_the_headline_names_whom_no_verdict_puts_behind(case: str, said: str) -> None:
    """The headline names one best method only where each other one is shown to be worse."""
    assert words.headline(CASES[case]) == said


def test_a_method_that_wins_in_costs_too_has_the_counts_named() -> None:
    """Where one method is best in several respects, the headline says in which."""
    costs = {"full": (1.0, 200.0, 1.0), "lora": (2.0, 300.0, 2.0), "head": (3.0, 400.0, 3.0)}
    answer = an_answer({"full": 79.0, "lora": 78.0, "head": 70.0}, costs=costs)
    said = "full has the highest accuracy (79.0 %), trains fastest, adds least memory and saves the smallest file."
    assert words.headline(answer) == said
    assert fact(answer, "Cheaper") == "No method trains faster or adds less memory."


def test_a_cycle_of_verdicts_has_no_best_method() -> None:
    """Methods that each lose to another, as pairs over different seeds may show, have none that is best."""
    answer = an_answer({"a": 3.0, "b": 2.0, "c": 1.0})
    pairs = [pair.model_copy(update={"winner": "c"}) if {pair.a, pair.b} == {"a", "c"} else pair
             for pair in answer.pairs["score"]]  # fmt: skip
    answer = answer.model_copy(update={"pairs": answer.pairs | {"score": tuple(pairs)}})
    assert words.headline(answer) == "Each method loses to another: none is best."
    assert not any(words.verdict(answer, name).chip for name in "abc")


def test_equal_scores_without_a_test_have_no_winner() -> None:
    """Of one seed two methods may have the very same score: both are named."""
    answer = an_answer({"full": 87.0, "lora": 87.0, "head": 81.7}, pairs={}, seeds=1)
    assert words.headline(answer).startswith(
        "full and lora have the highest accuracy, 87.0 % each. One seed can't rank"
    )


def test_an_untested_method_keeps_the_leader_from_being_called_best() -> None:
    """Of a method without shared seeds nothing is known, whatever its mean."""
    answer = an_answer({"full": 79.0, "lora": 78.0, "head": 99.0}, untested=(("full", "head"), ("lora", "head")))
    assert words.headline(answer) == "No method is shown to beat full: 79.0 % accuracy."
    assert words.verdict(answer, "head")[:2] == ("", "not tested")
    assert words.verdict(answer, "full").chip == "may be best"
    assert fact(answer, "Sure?").startswith("Not for head, which shares too few seeds. ")
    tied = an_answer({"full": 79.0, "lora": 78.0, "head": 99.0}, untested=(("full", "head"), ("lora", "head")),
                     open_=(("full", "lora"),))  # fmt: skip
    assert words.headline(tied).startswith("full or lora may be best")


def test_a_leader_by_way_of_another_is_not_called_the_best() -> None:
    """Where a beats b and b beats c, but a and c can't be told apart, no row and headline contradict each other."""
    answer = an_answer({"a": 79.0, "b": 78.0, "c": 77.0}, open_=(("a", "c"),))
    assert words.headline(answer) == "No method is shown to beat a: 79.0 % accuracy."
    assert words.verdict(answer, "a")[:2] == ("may be best", "can't tell from c")
    assert fact(answer, "Sure?").startswith("Not against all. ")


def test_a_base_model_that_wins_is_no_method_called_none() -> None:
    """The base model is named as such, and nothing is said to be cheaper than no training."""
    answer = an_answer({"none": 71.0, "lora": 60.0, "full": 50.0}, bases=("none",))
    assert words.headline(answer) == "No method beats the base model: 71.0 % accuracy without training."
    assert words.verdict(answer, "none").chip == "best"
    assert fact(answer, "Cheaper") == ""
    assert fact(answer, "Worth it?") == "No method is shown to beat the base model."


def test_some_methods_that_beat_the_base_model_are_named() -> None:
    """Training pays for those named alone."""
    answer = an_answer({"lora": 80.0, "none": 71.0, "full": 70.5}, bases=("none",), open_=(("none", "full"),))
    assert fact(answer, "Worth it?") == "Only lora is shown to beat the base model."


def test_a_cost_is_won_only_against_every_method() -> None:
    """A method that was tested against some others alone isn't called the fastest."""
    answer = an_answer(FIVE)
    untested = {"verdict": "untested", "winner": None}
    pairs = tuple(
        pair.model_copy(update=untested) if "lora" in {pair.a, pair.b} else pair
        for pair in answer.pairs["train_seconds"]
    )
    answer = answer.model_copy(update={"pairs": answer.pairs | {"train_seconds": pairs}})
    assert "fastest" not in words.verdict(answer, "head").more
    assert words.verdict(an_answer(FIVE), "head").more == ("fastest", "training adds least memory", "smallest file")


def test_improvement_in_some_runs_is_said_to_be_in_some() -> None:
    """One of five runs that was still improving doesn't stand for all."""
    assert fact(an_answer(FIVE, under={"lora": 1}), "Still improving?") == "1 of 5 methods: lora, in some runs."
    assert fact(an_answer(FIVE, under=dict.fromkeys(FIVE, 5)), "Still improving?") == "All 5 methods."


NEXT = {
    "one seed": (an_answer(FIVE, over="row", seeds=1), "Run each method with the same 3 seeds or more"),
    "late": (an_answer(FIVE, under=dict.fromkeys(FIVE, 5)), "Train longer: 5 of 5 were still improving."),
    "few rows": (an_answer({"a": 79.0, "b": 78.9}, open_=(("a", "b"),), rows=48), "Use more test rows: "),
    "open": (an_answer({"a": 79.0, "b": 78.9}, open_=(("a", "b"),)), "To tell a and b apart takes "),
    "best": (an_answer(FIVE), "Take full."),
    "costs": (an_answer(FIVE, unranked="runs had neighbours on their host"), "Repeat the runs one at a time"),
    "hosts": (an_answer(FIVE, unranked="seeds were spread over hosts"), "Take full."),
    "alike": (an_answer(FIVE, over="row"), "Take full."),
    "systems": (an_answer(FIVE, noun="system"), ""),
}


@pytest.mark.parametrize("case", NEXT)
def test_each_screen_of_methods_ends_in_what_to_do_next(case: str) -> None:
    """More seeds, a longer budget, more rows, runs one at a time, or the method to take."""
    answer, said = NEXT[case]
    assert fact(answer, "Next").startswith(said)
    assert bool(fact(answer, "Next")) == bool(said)


def test_two_undecided_methods_are_both_not_shown_better() -> None:
    """Of two methods in all the headline says that neither is shown better, and gives both means."""
    answer = an_answer({"a": 76.0, "b": 66.5}, open_=(("a", "b"),))
    assert words.headline(answer) == "Neither a nor b is shown better: 66.5 to 76.0 % accuracy."


def test_equal_methods_are_best_only_if_each_beats_the_others() -> None:
    """Two equal ones, of which one isn't shown better than the third, aren't called best."""
    equal, third = (("a", "b"),), (("b", "c"),)
    beaten = an_answer({"a": 79.0, "b": 78.9, "c": 70.0}, equal=equal)
    assert words.headline(beaten) == "a and b score best and equal: about 79 % accuracy."
    open_ = an_answer({"a": 79.0, "b": 78.9, "c": 70.0}, equal=equal, open_=third)
    assert words.headline(open_) == "a and b are equal: about 79 % accuracy. None is shown to beat them."


def test_ties_do_not_pass_on() -> None:
    """Each method names those that it can't be told from, and those in front of it, one by one."""
    answer = CASES["two tied"]
    assert words.verdict(answer, "full")[:2] == ("may be best", "can't tell from lora")
    assert words.verdict(answer, "lora")[:2] == ("may be best", "can't tell from full or prompt_tuning")
    assert words.verdict(answer, "prompt_tuning")[:2] == ("", "behind full; can't tell from lora")
    assert words.verdict(answer, "head")[:2] == ("", "5th of 5")


def test_a_base_model_that_may_be_best_makes_the_others_doubtful() -> None:
    """Training that isn't shown to help gets no badge of the best, and a line says so."""
    answer = CASES["base"]
    assert [words.verdict(answer, name).chip for name in ("lora", "full", "none")] == ["may be best"] * 3
    assert fact(answer, "Worth it?") == "No method is shown to beat the base model."
    assert fact(answer, "Sure?") == "No: 3 seeds and 48 test rows are few. Only large differences show."


def test_who_does_not_beat_guessing_is_named_and_never_best() -> None:
    """A score that guessing might reach is no evidence of learning."""
    guess = Guess(text="Guessing gets 25 %.", value=25.0, below=("full",))
    answer = an_answer(FIVE, guess=guess)
    assert words.verdict(answer, "full")[:2] == ("may be best", "not shown to beat guessing")
    assert fact(answer, "Guessing") == "full is not shown to beat guessing."


def test_a_base_model_that_is_beaten_is_not_said_to_stand() -> None:
    """Guessing, and what the base model does, are two comparisons."""
    guess = Guess(text="Guessing gets 0 %.", value=0.0, below=("full", "none"))
    answer = an_answer({"full": 40.0, "none": 0.0}, bases=("none",), guess=guess)
    assert words.verdict(answer, "full").text.endswith("not shown to beat guessing")


def test_unranked_costs_crown_nobody() -> None:
    """Costs of runs with neighbours are shown and rank nothing."""
    assert fact(CASES["unranked"], "Cheaper").startswith("Costs are shown, not ranked")


def test_the_cheaper_method_is_the_one_that_loses_least() -> None:
    """Named are the best of those shown to be faster, with both differences, and the fastest one."""
    assert fact(CASES["one best"], "Cheaper") == (
        "lora: 10 % less time than full, 0.10 points lower. head: fastest, 6.50 points lower."
    )


def test_failed_runs_are_counted_with_their_reasons() -> None:
    """The banner says how many runs failed, why, and what the means are over."""
    answer = CASES["failures"]
    assert (
        words.banner(answer) == "1 of 26 runs failed (out of GPU memory). Means use the 3 seeds that all methods share."
    )
    assert words.verdict(answer, "lora").failed == "1 run failed"
    assert words.banner(CASES["one best"]) == ""


def test_many_or_long_names_are_numbered() -> None:
    """Over seven methods, or names over 20 characters, sentences number them, and ranges are joined."""
    answer = CASES["forty-five"]
    assert words.several(answer, [answer.methods[i].name for i in (0, 1, 2, 4)]) == "no. 1–3, 5"
    assert fact(answer, "Difference").startswith("No. 1 − no. 2: ")


@pytest.mark.parametrize(("value", "said"), [(5.03, "5.03 MB"), (0.2684, "268 kB"), (0.002208, "2.21 kB"),
                                             (1234.0, "1.23 GB"), (0.000016, "16 B"), (0.0, "0 B")])  # fmt: skip
def test_sizes_have_the_unit_that_suits_each(value: float, said: str) -> None:
    """Saved sizes span several powers of ten."""
    assert CASES["one best"].axes[2].text(value) == said


def test_a_difference_that_roundings_belie_gets_another_digit() -> None:
    """78.96 and 78.84 show as 79.0 and 78.8, a difference of 0.12: with one digit it would contradict them."""
    assert an_answer({"a": 78.96, "b": 78.84}).gap_text(0.12) == "0.12 points"
    assert an_answer({"a": 79.0, "b": 78.0}).gap_text(1.0) == "1.0 point"


def test_ordinals() -> None:
    """English ordinals, also of eleven to thirteen."""
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]  # fmt: skip


def test_a_real_difference_within_the_margin_is_called_so() -> None:
    """Both verdicts hold; a difference whose interval reaches beyond the margin is not called so."""
    plain = an_answer({"full": 79.0, "lora": 78.4})
    both = tuple(pair.model_copy(update={"within_margin": True}) for pair in plain.pairs["score"])
    small = plain.model_copy(update={"pairs": {"score": both}})
    assert fact(small, "Difference").endswith(". Shown to lie within the margin of 1.0 point.")
    assert "margin" not in fact(plain, "Difference")


ALL_EQUAL = (("full", "lora"), ("full", "prompt_tuning"), ("lora", "prompt_tuning"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            an_answer(FIVE, equal=ALL_EQUAL),
            "full, lora and prompt_tuning score best and equal: 76.0 to 79.0 % accuracy.",
        ),
        (
            an_answer(FIVE, equal=tuple((a, b) for a in FIVE for b in FIVE if a < b)),
            "5 of 5 methods score best and equal: 72.5 to 79.0 % accuracy.",
        ),
        (
            an_answer({"lora": 79.0, "full": 78.9, "none": 78.8}, bases=("none",),
                      equal=(("lora", "full"), ("lora", "none"), ("full", "none"))),
            "lora, full and the base model are equal: about 79 % accuracy. None is shown to beat them.",
        ),
        (
            an_answer(FIVE, equal=ALL_EQUAL[:2], open_=ALL_EQUAL[2:]),
            "full, lora or prompt_tuning may be best, at 76.0 to 79.0 % accuracy. These runs can't tell which.",
        ),
    ],
)  # fmt: skip
def test_any_number_of_methods_shown_equal_are_called_equal(answer: PageSummary, said: str) -> None:
    """Where each two of the best are shown equal the headline says so; where one pair is open it doesn't."""
    assert words.headline(answer) == said


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (ACCURACY, "equal: within 1.0 point"),
        (ACCURACY.model_copy(update={"margin": 0.25}), "equal: within 0.25 points"),
        (RMSE, "equal: within 0.01"),
        (RMSE.model_copy(update={"unit": "m", "difference_unit": "m", "margin": 0.0004}), "equal: within 0.0004 m"),
    ],
)
def test_equal_is_never_said_without_its_margin(score: Score, said: str) -> None:
    """The set-up line says within what, in full; where no two are shown equal it says nothing of it."""
    shown = an_answer({"a": 1.0, "b": 1.001, "c": 2.0}, equal=(("a", "b"),), score=score)
    assert words.setup_line(shown)[-1] == said
    assert not any("equal" in part for part in words.setup_line(an_answer(FIVE, open_=ALL_EQUAL)))
