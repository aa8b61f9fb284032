"""Conversations as rows of the task: what is too long, what is cut, and what scoring needs."""

import json
from collections import Counter
from typing import Any

import pytest

from helpers.chat_families import (
    FAMILIES,
    ONE,
    TWO,
    T,
    chatml,
    example,
    messages,
    mistral,
    of,
    roles,
)
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.task import make_task
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system.errors import UserError

# Length


@pytest.mark.parametrize("name", ["chatml", "llama 3", "gemma", "zephyr", "alpaca", "plain"])
@pytest.mark.parametrize("loss_on", ["answers", "all"])
@pytest.mark.parametrize("contents", [ONE, TWO])
def test_a_prompt_is_cut_at_the_front_and_an_answer_never(
    name: str, loss_on: str, contents: tuple[str, ...]
) -> None:
    """BOS stays, a token of the prompt too, and all that is learnt; where that is too long the row
    is dropped.

    Unless prompts may be cut, any that is too long is dropped. A text is an answer from its first
    token on.
    """
    full = example(of(name), *contents)
    bos = FAMILIES[name].tokenizer().bos_token_id
    front = int(full.ids[0] == bos)
    first = next(place for place, label in enumerate(full.labels) if label != IGNORE_INDEX)
    for length in range(1, len(full.ids) + 1):
        writer = of(name, max_length=length, too_long="cut_prompt", loss_on=loss_on)
        found = writer.example(roles(*contents), contents)
        cut, dropping = len(full.ids) - length, of(name, max_length=length)
        assert dropping.example(roles(*contents), contents) == (None if cut else full)
        assert dropping.counts["dropped tokens"] == (len(full.ids) if cut else 0)
        if cut and cut >= first - front:
            assert found is None
            assert writer.counts["dropped rows"] == 1
            assert writer.counts["dropped tokens"] == len(full.ids)
            continue
        assert found.ids == full.ids[:front] + full.ids[front + cut :]
        assert found.ids[found.prompt :] == full.ids[full.prompt :]
        assert (found.cut, writer.counts["cut rows"], writer.counts["cut tokens"]) == (
            cut,
            int(cut > 0),
            cut,
        )
        learnt = [label for label in found.labels if label != IGNORE_INDEX]
        answers = [label for label in full.labels if label != IGNORE_INDEX]
        assert learnt == (answers if loss_on == "answers" else list(found.ids[1:]))
        assert found.ids.count(bos) == front
    writer = of(name, max_length=4, too_long="cut_prompt", loss_on=loss_on)
    assert writer.example(["assistant"], ["Paris is the capital of France."]) is None
    assert writer.counts["dropped rows"] == 1


# The task


def encode(
    tokenizer: Any, rows: dict[str, list[Any]], max_length: int = 200, **options: Any
) -> tuple[Any, Counter[str]]:
    encoder = Encoder(tokenizer, max_length, None, "path:model")
    task = make_task(TaskSpec(name="causal_lm", options=options))
    return task.encode({"choices": [[] for _ in rows["roles"]]} | rows, encoder), encoder.counts


def test_rows_become_ids_labels_and_what_scoring_needs() -> None:
    """One entry a row that is kept, in every column; weights and tools are heeded as the data
    set loads them.
    """
    rows = {
        "roles": [roles(*ONE), roles(*TWO), ["assistant"]],
        "contents": [[*ONE], [*TWO], ["Paris is"]],
    }
    found, counts = encode(chatml(), rows, template=T.CHATML, max_length=40)
    assert {len(column) for column in found.values()} == {2}
    assert found["input_ids"][0] == list(example(of("chatml"), *ONE).ids)
    assert (found["question"], found["expected"]) == ([ONE[0], ""], [ONE[1], "Paris is"])
    assert (counts["rows"], counts["dropped rows"]) == (3, 1)
    rows = {
        "roles": [roles(*TWO)] * 2,
        "contents": [[*TWO]] * 2,
        "weights": [[1.0, 0.0, 1.0, 1.0], []],
        "tools": ['[{"name": "add"}]', ""],
    }
    found, _ = encode(
        chatml(), rows, template="{% if tools %}{{ tools | tojson }}{% endif %}" + T.CHATML
    )
    learnt = [
        chatml().decode([label for label in labels if label != IGNORE_INDEX])
        for labels in found["label"]
    ]
    assert [TWO[1] in text for text in learnt] == [False, True]
    assert ["add" in chatml().decode(ids) for ids in found["input_ids"]] == [True, False]


@pytest.mark.parametrize("template", [T.QWEN_3, T.DEEPSEEK_R1, T.CHATML])
def test_each_answer_can_be_an_example_of_its_own(template: str) -> None:
    """Behind the prompt of `apply_chat_template`, also of templates that drop earlier thoughts;
    none of weight 0.
    """
    tokenizer = mistral() if template == T.DEEPSEEK_R1 else chatml()
    rows = {
        "roles": [roles(*TWO), roles(*ONE), roles("Hi", *ONE, first="assistant"), ["assistant"]],
        "contents": [[*TWO], [*ONE], ["Hi", *ONE], ["A text."]],
        "weights": [[1, 1, 1, 1], [], [], []],
    }
    found, counts = encode(tokenizer, rows, template=template, loss_on="each")
    assert found["kept"] == [0, 0, 1, 2, 3]
    assert found["expected"] == [TWO[1], TWO[3], ONE[1], ONE[1], "A text."]
    for place, contents in enumerate((TWO[:1], TWO[:3], ONE[:1])):
        asked = tokenizer.apply_chat_template(
            messages(*contents), chat_template=template, add_generation_prompt=True
        )
        assert found["input_ids"][place][: found["prompt"][place]] == asked["input_ids"]
        assert set(found["label"][place][: found["prompt"][place]]) == {IGNORE_INDEX}
    assert counts["examples made of rows of several answers, one of each answer"] == 2
    rows["weights"][0] = [1, 0, 1, 1]
    assert encode(tokenizer, rows, template=template, loss_on="each")[0]["kept"] == [0, 1, 2, 3]
    rows["weights"][0] = [1, 0, 1, 0]
    left, counts = encode(tokenizer, rows, template=template, loss_on="each")
    assert (left["kept"], counts["rows whose text has no token to learn, left out"]) == (
        [1, 2, 3],
        1,
    )


@pytest.mark.parametrize("too_long", ["drop", "cut_prompt"])
def test_every_choice_fits_behind_the_prompt(too_long: str) -> None:
    """A choice longer than the right answer makes the row too long, or its prompt shorter:
    counted, never cut.
    """
    long = "the answer to a question is a short text"
    rows = {
        "roles": [roles(*ONE)],
        "contents": [["What is the capital of France?", "yes"]],
        "choices": [["yes", long]],
    }
    whole = len(example(of("chatml"), rows["contents"][0][0], long).ids)
    found, counts = encode(
        chatml(), rows, whole - 2, template=T.CHATML, scorer="choice", too_long=too_long
    )
    assert counts["rows"] == 1
    if too_long == "drop":
        assert found["input_ids"] == []
        assert counts["dropped rows"] == 1
        return
    assert counts["cut tokens"] == 2
    assert [chatml().decode(ids) for ids in found["choice_ids"][0]] == ["yes", long]
    assert found["prompt"][0] + len(found["choice_ids"][0][1]) + 2 == whole - 2


@pytest.mark.parametrize("thinking", [True, False])
def test_choices_begin_behind_what_the_template_begins_an_answer_with(thinking: bool) -> None:
    """An empty thought is a part of the prompt of all choices, so that it weighs none of them."""
    rows = {
        "roles": [roles(*ONE)],
        "contents": [[ONE[0], "yes"]],
        "choices": [["yes", "no and no"]],
    }
    options = {} if thinking else {"template_options": {"enable_thinking": False}}
    found, _ = encode(chatml(), rows, template=T.QWEN_3, scorer="choice", **options)
    assert [chatml().decode(ids) for ids in found["choice_ids"][0]] == ["yes", "no and no"]
    assert (
        chatml()
        .decode(found["input_ids"][0][: found["prompt"][0]])
        .endswith("assistant\n<think>\n\n</think>\n\n")
    )
    asked, _ = encode(chatml(), rows, template=T.QWEN_3, scorer="exact", **options)
    prompt = chatml().decode(asked["input_ids"][0][: asked["prompt"][0]])
    assert prompt.endswith("assistant\n" if thinking else "</think>\n\n")


@pytest.mark.parametrize(("closing", "unread"), [("</think>", 0), ("<|im_end|><think>", 1)])
def test_answers_that_can_not_be_read_are_counted(closing: str, unread: int) -> None:
    """As where a template ends the thought before a tool call otherwise than before a text;
    never equal to nothing.
    """
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning %}<think>{{ "
        "m.reasoning }}{% if m.tool_calls %}CLOSING{% else %}</think>{% endif %}{% endif %}{{ "
        "m.content }}{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor "
        "%}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ).replace("CLOSING", closing)
    keys = json.dumps({"reasoning": "So.", "tool_calls": [{"function": {"name": "add"}}]})
    rows = {"roles": [roles(*ONE)], "contents": [[ONE[0], ""]], "fields": [["", keys]]}
    found, counts = encode(chatml(), rows, template=template, scorer="exact")
    assert "add" in found["expected"][0]
    lost = (
        "rows that lose points even for the right answer, as its tokens decode to another text; "
        "check tokenizer and template"
    )
    assert counts[lost] == unread


def test_answers_that_their_scorer_can_not_read_are_named() -> None:
    """The row scores 0 whatever a model writes: a note says how many do, with the first one's place
    and reason; training rows aren't scored.
    """
    task = make_task(TaskSpec(name="causal_lm", options={"scorer": "number"}))
    answers = ["7", "11,5", "3 May 2023"]
    rows = {
        "roles": [roles(*ONE)] * 3,
        "contents": [[ONE[0], answer] for answer in answers],
        "place": ["rows.csv: row 1", "rows.csv: row 2", "rows.csv: row 3"],
    }
    _, counts = encode(chatml(), rows, scorer="number")
    notes = task.length_notes(0, {"train": counts, "test": counts})
    (note,) = [note for name, note in notes.items() if "can't read" in name]
    assert note == (
        "2 test, the first rows.csv: row 2: '11,5' has '11,5', which isn't one number with "
        "a decimal point; with task.options.decimal_mark: comma it is one"
    )
    assert not any("can't read" in name for name in task.length_notes(0, {"train": counts}))


def test_what_decides_what_is_scored_is_part_of_the_datas_digest() -> None:
    """End tokens that only the model names, and what the template begins an answer with; of
    other models nothing.
    """
    tokenizer = chatml()
    (end,) = tokenizer.convert_tokens_to_ids(["<|im_start|>"])
    for template, ends, options, more in (
        (T.CHATML, (), {"scorer": "exact"}, {}),
        (T.CHATML, (tokenizer.eos_token_id,), {}, {}),
        (T.CHATML, (tokenizer.eos_token_id, end), {}, {"end tokens of the model": "<|im_start|>"}),
        (T.QWEN_3, (), {}, {}),
        (
            T.QWEN_3,
            (),
            {"scorer": "exact"},
            {"the template begins an answer with, not scored": repr("<think>\n\n</think>\n\n")},
        ),
    ):
        task = make_task(TaskSpec(name="causal_lm", options={"template": template, **options}))
        encoder = Encoder(tokenizer, 200, None, "path:model", ends=ends)
        assert task.sources(encoder) == {"template": template, **more}


def test_rows_that_a_template_refuses_are_named_or_dropped_and_counted_on_request() -> None:
    """By place and beginning, on one line. The others are kept; a template that doesn't fit at
    all is refused.
    """
    rows = {
        "roles": [roles(*ONE), ["user", "user", "assistant"]],
        "contents": [[*ONE], ["Hi\nthere", "a", "b"]],
        "place": ["f: row 1", "f: row 2"],
    }
    says = (
        r"^f: row 2: the chat template of path:model refuses .*roles must .* \(the row begins "
        r"with 'Hi there'\)$"
    )
    with pytest.raises(UserError, match=says):
        encode(mistral(), rows, template=T.MISTRAL)
    found, counts = encode(mistral(), rows, template=T.MISTRAL, bad_rows="drop")
    assert found["expected"] == [ONE[1]]
    assert counts["bad rows left out, which the chat template refuses"] == 1
    with pytest.raises(UserError, match=r"set task\.options\.loss_on to each"):
        encode(
            chatml(),
            {"roles": [roles(*TWO)], "contents": [[*TWO]]},
            template=T.QWEN_3,
            bad_rows="drop",
        )


@pytest.mark.parametrize(
    ("messages", "options", "told"),
    [(True, {}, 1), (True, {"template": "plain"}, 0), (None, {}, 0)],
)
def test_turns_without_a_template_are_told(
    messages: bool | None, options: dict[str, Any], told: int
) -> None:
    """Rows of messages; not of prompts and completions, nor where the suite says how they are
    written.
    """
    rows = {"roles": [roles(*ONE)], "contents": [[*ONE]], "messages": [messages]}
    _, counts = encode(chatml(), rows, **options)
    assert (
        counts["rows whose turns stand one after the other, as the tokenizer has no chat template"]
        == told
    )


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt", "a b"])
def test_options_that_a_template_is_given_already_are_refused(name: str) -> None:
    """One sentence with the name."""
    with pytest.raises(
        UserError, match=rf"task.options: template_options.*{name} can't be given to a template"
    ):
        make_task(TaskSpec(name="causal_lm", options={"template_options": {name: 1}}))
