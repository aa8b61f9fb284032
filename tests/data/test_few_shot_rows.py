"""Examples before a prompt: the tokens of one conversation, as its template writes it for a user of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.chat_families import FAMILIES, PUBLISHED, Family, chatml, llama_3, messages, mistral
from hpml_bench.data.chat_template import TODAY
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.rows import Rows, write_rows
from hpml_bench.plugins.task import KEPT, Task, make_task
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system.errors import Unsupported

SHOWN = [("What is 1+1?", "It is 2."), ("And 1+3?", "It is 4."), ("And 3+3?", "It is 6.")]
ASKED = [("What is 2+2?", "It is 4."), ("And 2+5, is it an odd number?", "Yes, it is 7.")]


def shown_before(
    tokenizer: Any, folder: Path, max_length: int = 10_000, system: str | None = None, **options: Any
) -> tuple[Rows, dict[str, list[Any]], Task]:
    """Return the asked rows as they were prepared, and their columns with the shown ones before each."""
    task = make_task(TaskSpec(name="causal_lm", options={"scorer": "exact", **options}))
    encoder, found = Encoder(tokenizer, max_length, None, "path:model"), []
    for name, pairs in (("shown", SHOWN), ("asked", ASKED)):
        turns = [messages(system, *pair, first="system") if system else messages(*pair) for pair in pairs]
        rows: dict[str, list[Any]] = {
            "roles": [[turn["role"] for turn in row] for row in turns],
            "contents": [[turn["content"] for turn in row] for row in turns],
            "choices": [[f"It is {number}." for number in (3, 4, 7)] for _ in turns],
        }
        rows["choices"][-1].append(pairs[-1][1])
        columns = task.encode(rows, encoder)
        columns.pop(KEPT)
        write_rows(folder / name, [columns], task.label_type(), task.extra_types())
        found.append(Rows(folder / name, 0))
    return found[1], task.with_examples(found[1], found[0], encoder), task


@pytest.mark.parametrize("family", [of for of in PUBLISHED if of.several and of.system], ids=lambda of: of.models)
@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_examples_are_earlier_turns_of_the_conversation(family: Family, system: str | None, tmp_path: Path) -> None:
    """Token by token what `apply_chat_template` gives for them: one system prompt, one BOS; examples aren't learnt."""
    tokenizer = family.tokenizer()
    rows, columns, _ = shown_before(tokenizer, tmp_path, system=system, template=family.template)
    front = [{"role": "system", "content": system}] if system else []
    dated = TODAY if "strftime_now" in family.template else ""
    for row, (question, _) in enumerate(ASKED):
        turns = [*front, *(turn for pair in SHOWN for turn in messages(*pair)), *messages(question)]
        text = tokenizer.apply_chat_template(
            turns, chat_template=dated + family.template, add_generation_prompt=True, tokenize=False
        )
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert columns["input_ids"][row][: columns["prompt"][row]] == expected
        learnt = [token for token in columns["label"][row] if token != IGNORE_INDEX]
        assert learnt == rows.references[row].tolist()
        assert all(label == IGNORE_INDEX for label in columns["label"][row][: len(expected)])


@pytest.mark.parametrize("loss_on", ["answers", "all"])
def test_without_a_chat_template_an_empty_line_ends_each_example(loss_on: str, tmp_path: Path) -> None:
    """The texts follow each other after one BOS; what the row learns is what it learns alone."""
    tokenizer = llama_3()
    rows, columns, _ = shown_before(tokenizer, tmp_path, template="plain", loss_on=loss_on)
    text = "".join(f"{question}{answer}\n\n" for question, answer in SHOWN)
    for row, (question, answer) in enumerate(ASKED):
        ids, prompt = columns["input_ids"][row], columns["prompt"][row]
        assert ids[:prompt] == tokenizer(text + question)["input_ids"]
        assert ids[prompt:] == [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert [token for token in columns["label"][row] if token != IGNORE_INDEX] == rows.references[row].tolist()


def test_choices_follow_the_same_prompt(tmp_path: Path) -> None:
    """Each row's own choices, with the tokens that they have after its prompt alone."""
    rows, columns, _ = shown_before(chatml(), tmp_path, template=FAMILIES["chatml"].template, scorer="choice")
    assert columns["choice_ids"] == rows.column("choice_ids")
    assert [len(ids) for ids in columns["choice_ids"]] == [3, 4]


def test_rows_without_room_for_the_examples_are_named(tmp_path: Path) -> None:
    """As many tokens as fit are kept, not one more; no prompt is cut, even where the task may cut prompts."""
    _, columns, _ = shown_before(chatml(), tmp_path / "all", template=FAMILIES["chatml"].template)
    longest = max(map(len, columns["input_ids"]))
    assert shown_before(chatml(), tmp_path / "fit", longest, template=FAMILIES["chatml"].template)[1] == columns
    for too_long in ("drop", "cut_prompt"):
        with pytest.raises(Unsupported, match=f"with 3 examples 1 of 2 rows have more than max_length {longest - 1}"):
            shown_before(
                chatml(), tmp_path / too_long, longest - 1, template=FAMILIES["chatml"].template, too_long=too_long
            )


def test_templates_of_one_turn_are_refused(tmp_path: Path) -> None:
    """One that writes the last question alone shows no example; without a scorer nothing is answered."""
    asked = "{% if messages[-1].role == 'user' %}{{ messages[-1].content }}{% else %}"
    last = asked + "{{ messages[-2].content }}{{ messages[-1].content }}{% endif %}"
    one = "{% if messages|length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + last
    with pytest.raises(Unsupported, match="leaves earlier turns out"):
        shown_before(mistral(), tmp_path / "last", template=last)
    with pytest.raises(Unsupported, match=r"^with examples, the chat template .* one turn"):
        shown_before(mistral(), tmp_path / "one", template=one)
    with pytest.raises(Unsupported, match="no scorer"):
        shown_before(chatml(), tmp_path / "loss", template=FAMILIES["chatml"].template, scorer=None)
