"""Generated word problems: their answers are right, no question comes twice, and their scorer reads them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from helpers import tiny
from hpml_bench.builtin.scorers.number import number_of
from hpml_bench.plugins.dataset import LoadedData, make_loader
from hpml_bench.suite.suite import load_suite

FIRST = re.compile(r"\w+ has (\d+) \w+\.")
CHANGES: tuple[tuple[str, Any], ...] = (
    (r"gives \w+ (\d+) more|buys (\d+)|finds (\d+)", lambda amount, n: amount + n),
    (r"gives (\d+) to|loses (\d+)|sells (\d+)", lambda amount, n: amount - n),
    (r"now (\d+) times as many", lambda amount, n: amount * n),
)


def loaded(**options: Any) -> LoadedData:
    dataset = {"name": "word_problems", "options": options}
    settings = tiny.settings(dataset=dataset, train_samples=300, validation_samples=16, test_samples=200)
    return make_loader(settings).load(settings, "answer")


def solved(question: str) -> int:
    """Return the answer, read sentence by sentence."""
    first, *told = re.findall(r"[^.?]+[.?]", question)
    amount = int(FIRST.match(first)[1])  # type: ignore[index]
    for sentence in told:
        for pattern, change in CHANGES:
            if found := re.search(pattern, sentence):
                amount = change(amount, int(next(number for number in found.groups() if number)))
                break
    return amount


@pytest.mark.parametrize("steps", [(1, 1), (2, 3)])
def test_answers_are_those_of_the_questions(steps: tuple[int, int]) -> None:
    """Read from the text, and equal to what every calculation and the end of the answer say."""
    for question, answer in loaded(steps=steps).test["contents"]:
        calculated = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)\.", answer)
        assert steps[0] <= len(calculated) <= steps[1]
        for left, sign, right, result in calculated:
            amounts = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}
            assert amounts[sign] == int(result)
            assert 0 < int(result) < 100
        assert calculated[-1][3] == answer.rpartition("#### ")[2] == str(number_of(answer)) == str(solved(question))


def test_no_question_comes_twice() -> None:
    """Over all splits; and the rows are the same each time."""
    data = loaded()
    splits = [data.train, data.validation, data.test]
    questions = [contents[0] for split in splits if split is not None for contents in split["contents"]]
    assert len(set(questions)) == len(questions) == 516
    assert loaded().test["contents"][:] == data.test["contents"][:]


def test_the_suite_asks_for_the_number() -> None:
    """`arithmetic` scores by the last number, or the one behind ####."""
    suite = load_suite("arithmetic")
    assert suite.settings.task.options["scorer"] == "number"
    assert set(suite.methods) >= {"none", "lora", "full"}
