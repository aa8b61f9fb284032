"""Conversations as rows of the task: what is too long, what is cut, and what scoring needs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from chat_families import CHATML, FAMILIES, MISTRAL, ONE, TWO, chatml, example, mistral, of, roles

from hpml_bench.config.settings import TaskSpec
from hpml_bench.data.tokenizer import Encoder
from hpml_bench.errors import UserError
from hpml_bench.plugins.task import IGNORE_INDEX, make_task

# Length


def test_a_row_that_is_too_long_is_dropped_and_counted() -> None:
    """As many tokens as fit are kept, not one more; nothing of it is cut."""
    full = example(of("chatml"), *TWO)
    writer = of("chatml", max_length=len(full.ids))
    assert example(writer, *TWO) == full
    short = of("chatml", max_length=len(full.ids) - 1)
    assert short.example(roles(*TWO), TWO) is None
    assert short.counts == {"rows": 1, "dropped rows": 1, "dropped tokens": len(full.ids)}


@pytest.mark.parametrize("name", ["chatml", "llama 3", "gemma", "zephyr", "alpaca", "plain"])
@pytest.mark.parametrize("loss_on", ["answers", "all"])
@pytest.mark.parametrize("contents", [ONE, TWO])
def test_a_prompt_is_cut_at_the_front_and_an_answer_never(name: str, loss_on: str, contents: tuple[str, ...]) -> None:
    """BOS stays, a token of the prompt too, and all that is learnt; where that is too long the row is dropped."""
    full = example(of(name), *contents)
    bos = FAMILIES[name].tokenizer().bos_token_id
    front = int(bos is not None)
    first = next(place for place, label in enumerate(full.labels) if label != IGNORE_INDEX)
    for length in range(1, len(full.ids) + 1):
        writer = of(name, max_length=length, too_long="cut_prompt", loss_on=loss_on)
        found = writer.example(roles(*contents), contents)
        cut = len(full.ids) - length
        if cut and cut >= first - front:
            assert found is None
            assert writer.counts["dropped rows"] == 1
            assert writer.counts["dropped tokens"] == len(full.ids)
            continue
        assert found is not None
        assert found.ids == full.ids[:front] + full.ids[front + cut :]
        assert found.ids[found.prompt :] == full.ids[full.prompt :]
        assert (found.cut, writer.counts["cut rows"], writer.counts["cut tokens"]) == (cut, int(cut > 0), cut)
        learnt = [label for label in found.labels if label != IGNORE_INDEX]
        answers = [label for label in full.labels if label != IGNORE_INDEX]
        assert learnt == (answers if loss_on == "answers" else list(found.ids[1:]))
        if bos is not None:
            assert found.ids.count(bos) == 1


def test_a_text_that_is_too_long_is_dropped() -> None:
    """It is an answer from its first token on, which is never cut."""
    for too_long in ("drop", "cut_prompt"):
        writer = of("llama 3", max_length=4, too_long=too_long)
        assert writer.example(["assistant"], ["Paris is the capital of France."]) is None
        assert writer.counts["dropped rows"] == 1


# The task


def encode(
    tokenizer: Any, rows: dict[str, list[Any]], max_length: int = 200, **options: Any
) -> tuple[Any, Counter[str]]:
    """Encode rows as the preparation does."""
    encoder = Encoder(tokenizer, max_length, None, "path:model")
    task = make_task(TaskSpec(name="causal_lm", options=options))
    return task.encode({"choices": [[] for _ in rows["roles"]]} | rows, encoder), encoder.counts


def test_rows_become_ids_labels_and_what_scoring_needs() -> None:
    """One entry a row that is kept, in every column."""
    rows = {"roles": [roles(*ONE), roles(*TWO), ["assistant"]], "contents": [[*ONE], [*TWO], ["Paris is"]]}
    found, counts = encode(chatml(), rows, template=CHATML, max_length=40)
    assert {len(column) for column in found.values()} == {2}
    assert found["input_ids"][0] == list(example(of("chatml"), *ONE).ids)
    assert (found["question"], found["expected"]) == ([ONE[0], ""], [ONE[1], "Paris is"])
    assert (counts["rows"], counts["dropped rows"]) == (3, 1)


def test_a_row_that_a_template_refuses_is_named_by_its_beginning() -> None:
    """One sentence, without the line breaks of the row."""
    rows = {"roles": [roles(*ONE), ["user", "user", "assistant"]], "contents": [[*ONE], ["Hi\nthere", "a", "b"]]}
    with pytest.raises(UserError, match=r"Conversation roles must .* \(the row begins with 'Hi there'\)$") as raised:
        encode(mistral(), rows, template=MISTRAL)
    assert "\n" not in str(raised.value)


def test_choices_are_the_tokens_of_the_answer_alone() -> None:
    """Without the end of the turn and the line break behind it."""
    rows = {"roles": [roles(*ONE)], "contents": [[ONE[0], "yes"]], "choices": [["yes", "no and no"]]}
    found, _ = encode(chatml(), rows, template=CHATML, scorer="choice")
    assert [chatml().decode(ids) for ids in found["choice_ids"][0]] == ["yes", "no and no"]
    assert found["input_ids"][0][found["prompt"][0] :][: len(found["choice_ids"][0][0])] == found["choice_ids"][0][0]


@pytest.mark.parametrize("too_long", ["drop", "cut_prompt"])
def test_every_choice_fits_behind_the_prompt(too_long: str) -> None:
    """A choice longer than the right answer makes the row too long, or its prompt shorter: counted, never cut."""
    long = "the answer to a question is a short text"
    rows = {"roles": [roles(*ONE)], "contents": [["What is the capital of France?", "yes"]], "choices": [["yes", long]]}
    whole = len(example(of("chatml"), rows["contents"][0][0], long).ids)
    found, counts = encode(chatml(), rows, whole - 2, template=CHATML, scorer="choice", too_long=too_long)
    assert counts["rows"] == 1
    if too_long == "drop":
        assert found["input_ids"] == []
        assert counts["dropped rows"] == 1
        return
    assert counts["cut tokens"] == 2
    assert [chatml().decode(ids) for ids in found["choice_ids"][0]] == ["yes", long]
    assert found["prompt"][0] + len(found["choice_ids"][0][1]) + 2 == whole - 2
