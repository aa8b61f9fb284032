"""Behaviour: the answer says no more than its verdicts, in plain sentences of at most 20 words."""

from itertools import combinations

import pytest

from helpers.answers import ACCURACY, RMSE, an_answer
from hpml_bench.judge.summary import Guess, PageSummary, Score
from hpml_bench.page.answer import words
from hpml_bench.page.answer.facts import facts
from hpml_bench.records.numbers import ordinal

FIVE = {"full": 79.0, "lora": 78.9, "prompt_tuning": 76.0, "adapter": 75.3, "head": 72.5}
THREE = {"a": 79.0, "b": 78.9, "c": 70.0}
ALL = tuple(combinations(FIVE, 2))
LED = (("full", "lora"), ("full", "prompt_tuning"), ("lora", "prompt_tuning"))
UNTESTED = {
    "scores": {"full": 79.0, "lora": 78.0, "head": 99.0},
    "untested": (("full", "head"), ("lora", "head")),
}
WON = {"full": (1.0, 200.0, 1.0), "lora": (2.0, 300.0, 2.0), "head": (3.0, 400.0, 3.0)}


def fact(answer: PageSummary, label: str) -> str:
    """Return the text of a fact; empty where there is none."""
    return next((found.text for found in facts(answer) if found.label == label), "")


def turned(answer: PageSummary, metric: str, names: set[str], **update: object) -> PageSummary:
    """Return a fresh answer in which the pairs that hold these names are changed."""
    pairs = tuple(
        p.model_copy(update=update) if names <= {p.a, p.b} else p for p in answer.pairs[metric]
    )
    return answer.model_copy(update={"pairs": answer.pairs | {metric: pairs}})


CASES = {
    "one best": an_answer(FIVE),
    "two tied": an_answer(FIVE, open_=(("full", "lora"), ("lora", "prompt_tuning"))),
    "base": an_answer(
        {"lora": 17.3, "full": 16.8, "none": 14.1},
        bases=("none",),
        open_=(("lora", "full"), ("lora", "none"), ("full", "none")),
        seeds=3,
        rows=48,
        rows_text="48 test rows",
    ),
    "base wins": an_answer({"none": 71.0, "lora": 60.0, "full": 50.0}, bases=("none",)),
    "some beat the base": an_answer(
        {"lora": 80.0, "none": 71.0, "full": 70.5}, bases=("none",), open_=(("none", "full"),)
    ),
    "numbered": an_answer({f"a_rather_long_method_name_{n:02d}": 90.0 - n for n in range(45)}),
    "unranked": an_answer(FIVE, unranked="runs had neighbours on their host"),
    "untested": an_answer(**UNTESTED),
    "cycle": turned(an_answer({"a": 3.0, "b": 2.0, "c": 1.0}), "score", {"a", "c"}, winner="c"),
    "by way of another": an_answer({"a": 79.0, "b": 78.0, "c": 77.0}, open_=(("a", "c"),)),
    "guessing": an_answer(
        FIVE, guess=Guess(text="Guessing gets 25 %.", value=25.0, below=("full",))
    ),
    "base guesses": an_answer(
        {"full": 40.0, "none": 0.0},
        bases=("none",),
        guess=Guess(text="Guessing gets 0 %.", value=0.0, below=("full", "none")),
    ),
    "several costs won": an_answer({"full": 79.0, "lora": 78.0, "head": 70.0}, costs=WON),
    "improving": an_answer(FIVE, under=dict.fromkeys(FIVE, 5)),
    "one seed": an_answer(FIVE, over="row", seeds=1),
    "few rows": an_answer({"a": 79.0, "b": 78.9}, open_=(("a", "b"),), rows=48),
    "open": an_answer({"a": 79.0, "b": 78.9}, open_=(("a", "b"),)),
    "one measured": an_answer(
        {"a": 79.0, "b": 78.9, "c": 78.8},
        costs={"c": WON["full"]},
        open_=(("a", "b"), ("a", "c"), ("b", "c")),
    ),
    "slow": turned(
        an_answer({"a": 79.0, "b": 78.9}), "train_seconds", {"a"}, verdict="undecided", winner=None
    ),
    "unknown rows": an_answer(
        {"a": 79.0, "b": 78.9}, open_=(("a", "b"),), seeds=3, rows=0, rows_text="not known"
    ),
    "one lacks seeds": turned(
        an_answer({"a": 79.0, "b": 78.9, "c": 70.0}, open_=(("a", "b"),)), "score", {"c"}, shared=3
    ),
    "hosts": an_answer(FIVE, unranked="seeds were spread over hosts"),
    "alike": an_answer(FIVE, over="row"),
    "systems": an_answer(FIVE, noun="system"),
}
HEADLINES = {
    "full scores best: 79.0 % accuracy; lora follows with 78.9 %.": CASES["one best"],
    "full or lora may be best, at about 79 % accuracy. These runs can't tell which.": CASES[
        "two tied"
    ],
    "full and lora score best and equal: about 79 % accuracy.": an_answer(
        FIVE, equal=(("full", "lora"),)
    ),
    "5 of 5 methods may be best, at 72.5 to 79.0 % accuracy. These runs can't tell which.": an_answer(  # noqa: E501
        FIVE, open_=ALL
    ),
    "full has the highest accuracy, 79.0 %. One seed can't rank methods: take 3 or more.": an_answer(  # noqa: E501
        FIVE, untested=ALL, seeds=1
    ),
    (
        "full and lora have the highest accuracy, 87.0 % each. One seed can't rank methods: take "
        "3 or more."
    ): an_answer({"full": 87.0, "lora": 87.0, "head": 81.7}, pairs={}, seeds=1),
    "No run ended well, so there is nothing to compare.": an_answer({}, pairs={}),
    "Only full has comparable runs: there is nothing to compare it with.": an_answer(
        {"full": 79.0}, pairs={}
    ),
    "a scores best: 0.311 RMSE; b follows with 0.346.": an_answer(
        {"a": 0.311, "b": 0.346}, score=RMSE
    ),
    (
        "lora, full or the base model may be best, at 14.1 to 17.3 % accuracy. These runs can't "
        "tell which."
    ): CASES["base"],
    (
        "full has the highest accuracy (79.0 %), trains fastest, needs least memory to train and "
        "saves the smallest file."
    ): CASES["several costs won"],
    "Each method loses to another: none is best.": CASES["cycle"],
    "No method is shown to beat full: 79.0 % accuracy.": CASES["untested"],
    "full or lora may be best, at about 78 % accuracy. These runs can't tell which.": an_answer(
        **UNTESTED, open_=(("full", "lora"),)
    ),
    "No method is shown to beat a: 79.0 % accuracy.": CASES["by way of another"],
    "No method beats the base model: 71.0 % accuracy without training.": CASES["base wins"],
    "a has the highest accuracy, 93.0 %; c, 88.0 %, isn't shown to be worse.": an_answer(
        {"a": 93.0, "b": 90.0, "c": 88.0}, open_=(("a", "c"), ("b", "c"))
    ),
    "Neither a nor b is shown better: 66.5 to 76.0 % accuracy.": an_answer(
        {"a": 76.0, "b": 66.5}, open_=(("a", "b"),)
    ),
    "a and b are equal: about 79 % accuracy. None is shown to beat them.": an_answer(
        THREE, equal=(("a", "b"),), open_=(("b", "c"),)
    ),
    "full, lora and prompt_tuning score best and equal: 76.0 to 79.0 % accuracy.": an_answer(
        FIVE, equal=LED
    ),
}


@pytest.mark.parametrize("said", HEADLINES)
def test_the_headline_names_whom_no_verdict_puts_behind(said: str) -> None:
    """It names one best method only where each other one is shown to be worse, equal ones only
    where all pairs are.
    """
    assert words.headline(HEADLINES[said]) == said


@pytest.mark.parametrize(
    ("case", "label", "said"),
    [
        ("several costs won", "Cheaper", "No method trains faster or adds less memory."),
        (
            "one best",
            "Cheaper",
            "lora: 10 % less time than full, 0.10 points lower. head: fastest, 6.50 points lower.",
        ),
        ("base wins", "Cheaper", ""),
        ("one measured", "Cost", "c alone: 1.00 s training, 200 MB memory, 1.00 MB"),
        ("one measured", "Next", "To tell a, b and c apart takes about 78 seeds."),
        ("one measured", "Cheaper", ""),
        ("slow", "Cheaper", "No method is shown to train faster than a: times vary"),
        ("unknown rows", "Sure?", "No: 3 seeds are few."),
        ("one lacks seeds", "Sure?", "Not "),
        ("unranked", "Cheaper", "Costs are shown, not ranked: runs had neighbours on their host."),
        (
            "untested",
            "Sure?",
            "Not for head, which shares too few seeds. Verdicts hold at this budget and rates: ",
        ),
        ("by way of another", "Sure?", "Not against all. "),
        ("base", "Sure?", "No: 3 seeds and 48 test rows are few. Only large differences show."),
        ("base wins", "Worth it?", "No method is shown to beat the base model."),
        ("base", "Worth it?", "No method is shown to beat the base model."),
        ("some beat the base", "Worth it?", "Only lora is shown to beat the base model."),
        ("guessing", "Guessing", "full is not shown to beat guessing."),
        ("improving", "Still improving?", "All 5 methods."),
        ("numbered", "Difference", "No. 1 − no. 2: "),
        ("one seed", "Next", "Run each method with the same 3 seeds or more"),
        ("improving", "Next", "Train longer: 5 of 5 were still improving."),
        ("few rows", "Next", "Use more test rows: "),
        ("base guesses", "Next", "Look at rows and labels (hpml-bench preview), then tune"),
        ("guessing", "Next", "Take full."),
        ("open", "Next", "To tell a and b apart takes "),
        ("unranked", "Next", "Repeat the runs one at a time"),
        ("one best", "Next", "Take full."),
        ("hosts", "Next", "Take full."),
        ("alike", "Next", "Take full."),
        ("systems", "Next", ""),
    ],
)
def test_facts_go_no_further_than_verdicts(case: str, label: str, said: str) -> None:
    """Costs crown nobody where they aren't ranked or trained for; who isn't shown to beat the base
    model is said.

    A screen of methods ends in what to do next: more seeds, budget or rows, runs one at a time, or
    the one to take.
    """
    assert fact(CASES[case], label).startswith(said)
    assert bool(fact(CASES[case], label)) == bool(said)


@pytest.mark.parametrize(
    ("case", "name", "chip", "text"),
    [
        ("untested", "head", "", "not tested"),
        ("untested", "full", "may be best", "not tested against head"),
        ("by way of another", "a", "may be best", "can't tell from c"),
        ("base wins", "none", "best", ""),
        ("base", "none", "may be best", "can't tell from lora or full"),
        ("two tied", "full", "may be best", "can't tell from lora"),
        ("two tied", "lora", "may be best", "can't tell from full or prompt_tuning"),
        ("two tied", "prompt_tuning", "", "behind full; can't tell from lora"),
        ("two tied", "head", "", "5th of 5"),
        ("guessing", "full", "may be best", "not shown to beat guessing"),
        ("base guesses", "full", "may be best", "not shown to beat guessing"),
    ],
)
def test_a_row_names_one_by_one_whom_its_method_is_not_told_from(
    case: str, name: str, chip: str, text: str
) -> None:
    """Ties don't pass on, and what isn't shown to beat guessing or the base model is never
    called the best.
    """
    assert words.verdict(CASES[case], name)[:2] == (chip, text)


def test_a_cost_is_won_only_against_every_method() -> None:
    """A method that was tested against some others alone isn't called the fastest."""
    assert words.verdict(an_answer(FIVE), "head").more == (
        "fastest",
        "least memory to train",
        "smallest file",
    )
    answer = turned(an_answer(FIVE), "train_seconds", {"lora"}, verdict="untested", winner=None)
    assert "fastest" not in words.verdict(answer, "head").more


def test_numbers_read_well() -> None:
    """Over seven methods, or names over 20 characters, sentences number them, in ranges; ordinals
    are English.

    78.96 and 78.84 show as 79.0 and 78.8: with one digit their difference of 0.12 would contradict
    them. Saved sizes, which span several powers of ten, have each the unit that suits.
    """
    answer = CASES["numbered"]
    assert words.several(answer, [answer.methods[i].name for i in (0, 1, 2, 4)]) == "no. 1–3, 5"
    assert (
        " ".join(map(ordinal, (1, 2, 3, 4, 11, 13, 21, 112)))
        == "1st 2nd 3rd 4th 11th 13th 21st 112th"
    )
    assert an_answer({"a": 78.96, "b": 78.84}).gap_text(0.12) == "0.12 points"
    assert an_answer({"a": 79.0, "b": 78.0}).gap_text(1.0) == "1.0 point"
    sizes = ", ".join(map(answer.axes[2].text, (5.03, 0.2684, 0.002208, 1234.0, 0.000016, 0.0)))
    assert sizes == "5.03 MB, 268 kB, 2.21 kB, 1.23 GB, 16 B, 0 B"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.004, 1.996, "0.004 to 1.996"),
        (-1.996, -0.00004, "−1.99600 to −0.00004"),
        (-0.004, 1.996, "0.0 to 2.0"),
        (0.2, 1.8, "0.2 to 1.8"),
    ],
)
def test_an_interval_that_excludes_0_does_not_end_there(low: float, high: float, said: str) -> None:
    """Its ends have as many digits as it takes; one that includes 0 may end about there."""
    answer = turned(
        an_answer({"a": 78.0, "b": 77.0}),
        "score",
        {"a", "b"},
        difference=(low + high) / 2,
        decided_low=low,
        decided_high=high,
    )
    assert f"{answer.gap_text(low, unit=False)} to {answer.gap_text(high, unit=False)}" == said
    assert low < 0 or said in fact(answer, "Difference")


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (ACCURACY, "equal: within 1.0 point"),
        (ACCURACY.model_copy(update={"margin": 0.25}), "equal: within 0.25 points"),
        (RMSE, "equal: within 0.01"),
        (
            RMSE.model_copy(update={"unit": "m", "difference_unit": "m", "margin": 0.0004}),
            "equal: within 0.0004 m",
        ),
    ],
)
def test_equal_is_never_said_without_its_margin(score: Score, said: str) -> None:
    """The set-up line says within what, in full; a difference that is real and within it is
    called so.
    """
    shown = an_answer({"a": 1.0, "b": 1.001, "c": 2.0}, equal=(("a", "b"),), score=score)
    assert words.setup_line(shown)[-1] == said
    assert not any("equal" in part for part in words.setup_line(an_answer(FIVE, open_=LED)))
    small = turned(an_answer(FIVE), "score", {"full", "lora"}, within_margin=True)
    assert fact(small, "Difference").endswith(". Shown to lie within the margin of 1.0 point.")
    assert "margin" not in fact(CASES["one best"], "Difference")
