"""Conversations as token ids: what the model reads is what transformers renders, and only
answers are learnt.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.chat_families import (
    FAMILIES,
    ONE,
    SYSTEM,
    TWO,
    T,
    by_hand,
    byte_level,
    chatml,
    conversations,
    decoded,
    example,
    gpt2,
    messages,
    mistral,
    names,
    of,
    roles,
    runs,
)
from hpml_bench.data.chat_template import PLAIN, chat_template, standing_template
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.system.errors import UserError

# Against transformers


@names
@pytest.mark.parametrize("contents", [ONE, TWO, SYSTEM])
def test_the_ids_are_those_of_transformers(name: str, contents: tuple[str, ...]) -> None:
    """Those of `apply_chat_template`, also of the prompt, and an end token only where the
    template writes none.
    """
    family, writer = FAMILIES[name], of(name)
    first = "system" if contents is SYSTEM else "user"
    if (first == "system" and not family.system) or (len(contents) > 2 and not family.several):
        return
    found = example(writer, *contents, first=first)
    tokenizer = family.tokenizer()
    expected = tokenizer.apply_chat_template(
        messages(*contents, first=first), chat_template=family.template
    )
    ids = list(found.ids)
    if family.template == PLAIN and tokenizer.bos_token_id is not None:
        assert (
            ids.pop(0) == tokenizer.bos_token_id
        )  # bare text begins as the tokenizer begins a text
    if family.template in {T.ALPACA, PLAIN}:
        assert ids.pop() == tokenizer.eos_token_id
    asked = tokenizer.apply_chat_template(
        messages(*contents, first=first)[:-1],
        chat_template=family.template,
        add_generation_prompt=True,
    )["input_ids"]
    prompt = ids[
        : len(ids) - len(found.ids[found.prompt :]) + (family.template in {T.ALPACA, PLAIN})
    ]
    if name == "plain" and contents is not ONE:  # words of two turns that would be one token
        assert decoded(writer, ids) == tokenizer.decode(expected["input_ids"])
        assert decoded(writer, prompt) == decoded(writer, asked)
    else:
        assert (ids, prompt) == (expected["input_ids"], asked)


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("chatml", T.CHATML_MARKED),
        ("llama 3", T.LLAMA_3_MARKED),
        ("mistral", T.MISTRAL_MARKED),
        ("mistral old", T.MISTRAL_MARKED),
        ("gemma", T.GEMMA_MARKED),
    ],
)
@pytest.mark.parametrize("contents", [ONE, TWO])
def test_what_is_learnt_is_the_mask_of_transformers(
    name: str, marked: str, contents: tuple[str, ...]
) -> None:
    """Told by prefixes, and by marks: both are `return_assistant_tokens_mask` of the marked
    template.
    """
    tokenizer = FAMILIES[name].tokenizer()
    reference = tokenizer.apply_chat_template(
        messages(*contents),
        chat_template=marked,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert sum(reference["assistant_masks"])
    for writer in (of(name), conversations(tokenizer, marked)):
        found = example(writer, *contents)
        assert list(found.ids) == reference["input_ids"]
        assert [int(label != IGNORE_INDEX) for label in found.labels] == reference[
            "assistant_masks"
        ]


def test_ids_and_labels_by_hand() -> None:
    """BOS once; each answer and the end of its turn are learnt; the line break after that is
    not.
    """
    writer = conversations(by_hand(), T.HAND_TEMPLATE)
    found = example(writer, "two and two ?", "is four", "and so ?", "five")
    user = [3, 6, 7, 6, 11, 5, 12]
    assert list(found.ids) == [1, *user, 4, 8, 9, 5, 12, 3, 7, 13, 11, 5, 12, 4, 10, 5, 12]
    learnt = {9: 8, 10: 9, 11: 5, 20: 10, 21: 5}
    assert list(found.labels) == [learnt.get(place, IGNORE_INDEX) for place in range(23)]
    assert found.prompt == 20
    assert (found.question, found.expected, found.cut) == ("and so ?", "five", 0)
    assert writer.counts == {"rows": 1}
    assert writer.stop_ids == (2, 5)
    assert writer.answer_of(found) == [10]


def test_a_text_without_a_prompt_is_learnt_as_a_whole() -> None:
    """No template and no system prompt, but BOS and the end token; the template isn't asked."""
    writer = of("llama 3", system="Be short.")
    found = example(writer, "Paris is the capital.", first="assistant")
    assert runs(writer, found) == [
        ("<|begin_of_text|>", False),
        ("Paris is the capital.<|end_of_text|>", True),
    ]
    assert found.prompt == 1
    of_gemma = example(
        of("gemma", system="Be short."), "Paris is the capital.", first="assistant"
    )  # it would refuse
    assert of_gemma.expected == "Paris is the capital."
    bare = of("alpaca")
    first, *rest = runs(bare, example(bare, "Paris is", first="assistant"))
    assert (first[1], rest) == (False, [("Paris is<|endoftext|>"[len(first[0]) :], True)])


@pytest.mark.parametrize("begun", ["", "\n", "  ", "\n {{ bos_token }}", "{{ bos_token }}"])
@pytest.mark.parametrize(
    "name", ["llama 3", "mistral", "mistral old", "gemma", "zephyr", "alpaca old", "chatml"]
)
def test_bos_is_as_the_template_writes_it(name: str, begun: str) -> None:
    """None where it writes none, one behind white space, two: as `apply_chat_template`; a cut
    keeps the first.
    """
    tokenizer, template = FAMILIES[name].tokenizer(), begun + FAMILIES[name].template
    whole = tokenizer.apply_chat_template(messages(*ONE), chat_template=template)["input_ids"]
    asked = tokenizer.apply_chat_template(
        messages(*ONE)[:1], chat_template=template, add_generation_prompt=True
    )
    writer = conversations(tokenizer, template)
    found = example(writer, *ONE)
    assert list(found.ids[: len(whole)]) == whole
    assert list(found.ids[: found.prompt]) == asked["input_ids"]
    assert writer.counts == {"rows": 1}
    cut = example(
        conversations(tokenizer, template, len(found.ids) - 3, too_long="cut_prompt"), *ONE
    )
    bos = [place for place, token in enumerate(found.ids[:2]) if token == tokenizer.bos_token_id][
        :1
    ]
    kept = bos[0] + 1 if bos else 0
    assert cut.ids == found.ids[:kept] + found.ids[kept + 3 :]


# What is learnt


def test_an_answer_goes_on_from_a_thought_that_its_prompt_opens() -> None:
    """R1's: the thought is closed, and one in the row is kept, which the template would drop."""
    writer = conversations(mistral(), T.DEEPSEEK_R1)
    for thought, kept in (("", "\n"), ("<think>\n2 and 2\n</think>\n\n", "2 and 2\n")):
        found = example(writer, "What is 2+2?", f"{thought}It is 4.")
        learnt = f"{kept}</think>\n\nIt is 4.</s>"
        assert runs(writer, found) == [
            ("<s><User>What is 2+2?<Assistant><think>\n", False),
            (learnt, True),
        ]
        assert found.expected == "It is 4."


OTHER = (
    "{% for m in messages %}{{ m.role if not add_generation_prompt else '' }}: {{ m.content }}\n{% "
    "endfor %}{% if add_generation_prompt %}Bot:{% endif %}"
)
SILENT = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
PARTS = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
UNMARKED = "{% for m in messages %}{% generation %}{% endgeneration %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("tokenizer", "template", "contents", "says"),
    [
        (gpt2, OTHER, ONE, r"doesn't continue its generation prompt \("),
        (mistral, T.MISTRAL_03, ("Be short.", *ONE), r"doesn't continue its generation prompt \("),
        (gpt2, SILENT, ONE, "leaves out an answer's content; give"),
        (gpt2, PARTS, ONE, "leaves out an answer's content; give"),
        (chatml, UNMARKED, ONE, "marks no part of an answer with {% gen"),
    ],
)
def test_a_template_that_writes_no_answer_behind_its_prompt_is_refused(
    tokenizer: Callable[[], Any], template: str, contents: tuple[str, ...], says: str
) -> None:
    """One sentence with what the prompt ends with, and what to do."""
    with pytest.raises(UserError, match=rf"^the chat template of path:model {says}"):
        example(
            conversations(tokenizer(), template),
            *contents,
            first="user" if contents is ONE else "system",
        )


END_APART = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% "
    "generation %}{{ m.content + '<|im_end|>\n' }}{% endgeneration %}{% else %}{{ '<|im_start|>' + "
    "m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if "
    "add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% else %}{% generation %}{{ "
    "'<|endoftext|>' }}{% endgeneration %}{% endif %}"
)
HEADER_INSIDE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ "
    "'<|im_start|>assistant\n' + m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ "
    "'<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor "
    "%}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


LEFT_OUT = T.CHATML_MARKED.replace(
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}",
    "{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
)
BEGUN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role }}{% if m.role == 'assistant' %}{{ BEGUN "
    "}}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ '\n' + "
    "m.content + '<|im_end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant' }}{% endif %}"
)


@pytest.mark.parametrize("contents", [ONE, TWO])
@pytest.mark.parametrize(
    ("template", "begun", "behind", "last"),
    [
        (END_APART, "", "\n", "<|endoftext|>"),
        (HEADER_INSIDE, "", "", ""),
        (LEFT_OUT, "", "", ""),
        *(
            (BEGUN.replace("BEGUN", repr(text)), text, "", "")
            for text in ("\n<think>\n\n</think>\n\n", "\n", " ")
        ),
    ],
)
def test_marks_say_where_an_answer_ends_and_not_where_it_begins(
    contents: tuple[str, ...], template: str, begun: str, behind: str, last: str
) -> None:
    """A model is given the generation prompt and writes the rest itself: what stands before a mark
    is learnt too.

    Ids and prompt are those without marks, with the header in them, or a final token of their own.
    They say which text behind the end is learnt; an end of the turn that they leave out is learnt
    all the same.
    """
    writer = conversations(chatml(), template)
    bare = conversations(chatml(), re.sub(r"\{% (end)?generation %\}", "", template))
    found, unmarked = example(writer, *contents), example(bare, *contents)
    turns = messages(*contents)[:-1]
    asked = chatml().apply_chat_template(turns, chat_template=template, add_generation_prompt=True)
    assert list(found.ids[: found.prompt]) == asked["input_ids"]
    assert (found.ids, found.prompt) == (unmarked.ids, unmarked.prompt)
    learnt = [f"{begun}{said}<|im_end|>{behind}" for said in contents[1::2]]
    assert [text for text, one in runs(writer, found) if one] == [*learnt[:-1], learnt[-1] + last]
    assert decoded(writer, writer.answer_of(found)).strip() == contents[-1]
    assert writer.stop_ids == of("chatml").stop_ids
    assert writer.scaffold.before == begun


def test_a_standing_template_needs_no_options() -> None:
    """It writes by itself what another does with options, a system prompt of any letters and our
    date.
    """
    template = "\n  {{ mode }}{{ strftime_now('%Y') }}\n" + T.CHATML
    system = 'It\'s "so":\n{{ 7 * 7 }} {% x %} é\\n'
    standing = standing_template(template, {"mode": ["it's", None, True, 2.5]}, system)
    turns = messages(*ONE)
    dated = template.replace("{{ strftime_now('%Y') }}", "2024")
    whole = [{"role": "system", "content": system}, *turns]
    expected = chatml().apply_chat_template(
        whole, chat_template=dated, tokenize=False, mode=["it's", None, True, 2.5]
    )
    assert chatml().apply_chat_template(turns, chat_template=standing, tokenize=False) == expected
    own = [{"role": "system", "content": "Own."}, *turns]
    assert "Own." in chatml().apply_chat_template(own, chat_template=standing, tokenize=False)
    assert system not in chatml().apply_chat_template(own, chat_template=standing, tokenize=False)
    assert standing_template(T.CHATML, {}, None) == T.CHATML


def test_turns_of_weight_0_are_not_learnt() -> None:
    """Wherever a system prompt of the suite comes in front; the last answer is still what is
    asked for.
    """
    for system in (None, "Be short."):
        writer = of("chatml", system=system)
        for weights, learnt in {
            (1, 0, 1, 1): [3],
            (1, 1, 1, 0): [1],
            (1, 1, 1, 1): [1, 3],
            (): [1, 3],
        }.items():
            found = writer.example(roles(*TWO), TWO, weights=weights)
            assert [text for text, one in runs(writer, found) if one] == [
                f"{TWO[place]}<|im_end|>" for place in learnt
            ]
            assert found.expected == TWO[3]
        assert writer.example(roles(*TWO), TWO, weights=(1, 0, 1, 0)) is None
    whole = of(
        "chatml", loss_on="all", system="Be short."
    )  # every token is learnt: one of both would have to give way
    with pytest.raises(
        UserError,
        match=r"^turn 2 has weight 0, .* set task.options.loss_on to answers, or leave the",
    ):
        whole.example(roles(*TWO), TWO, weights=(1, 0, 1, 1))
    assert whole.example(roles(*TWO), TWO, weights=(1, 1, 1, 1)) == whole.example(roles(*TWO), TWO)


def test_tools_are_given_to_a_template_that_writes_them() -> None:
    """One that doesn't is refused."""
    template = "{% if tools %}{{ tools | tojson }}{% endif %}" + T.CHATML
    writer = conversations(chatml(), template)
    tools = [{"type": "function", "function": {"name": "add"}}]
    found = writer.example(roles(*ONE), ONE, tools=tools)
    assert decoded(writer, found.ids).startswith(
        '[{"type": "function", "function": {"name": "add"}}]<|im_start|>'
    )
    with pytest.raises(
        UserError,
        match=r"^the chat template of path:model writes no tools, and a row has some; remov",
    ):
        of("chatml").example(roles(*ONE), ONE, tools=tools)
    special = [
        {"type": "function", "function": {"name": "add", "description": "Ends at <|im_end|>."}}
    ]
    marked = writer.example(roles(*ONE), ONE, tools=special)
    assert "Ends at <|im_end|>." in decoded(writer, marked.ids)
    assert marked.ids.count(chatml().convert_tokens_to_ids("<|im_end|>")) == 2


CALLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning %}<think>{{ m.reasoning "
    "}}</think>{% endif %}"
    "{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": "<|im_end|>"}}}


def test_calls_are_learnt_and_special_tokens_in_them_are_text() -> None:
    """Names and values of arguments, reasoning too; the answer that is asked for is the call as
    it is written.
    """
    writer = conversations(chatml(), CALLS)
    said_, who = ("Add.", "", "5", ""), ("user", "assistant", "tool", "assistant")
    thought = {"tool_calls": [CALL], "reasoning": "So <|im_start|>."}
    found = writer.example(
        who, said_, fields=[{}, thought, {"name": "add"}, {"tool_calls": [CALL]}]
    )
    call = '{"name": "add", "arguments": {"a": "<|im_end|>"}}'
    learnt = [text for text, one in runs(writer, found) if one]
    assert learnt == [f"<think>So <|im_start|>.</think>{call}<|im_end|>", f"{call}<|im_end|>"]
    (end,) = chatml().convert_tokens_to_ids(["<|im_end|>"])
    assert found.ids.count(end) == 4
    assert (found.question, found.expected) == ("Add.", call)
    assert writer.counts["special tokens in turns, kept as text"] == 3


def test_what_a_template_does_not_write_is_told() -> None:
    """Calls that it leaves out, reasoning where its prompt has closed the thought; reasoning
    left out is counted.
    """
    thought, closed = (
        {"reasoning_content": "So."},
        T.QWEN_3.replace("is defined and", "is not defined or"),
    )
    for template, fields, says in (
        (
            T.CHATML,
            {"tool_calls": [CALL]},
            "writes no tool calls, and a row has some; remove them, or give another",
        ),
        (
            closed,
            thought,
            r"set task.options.template_options to \{enable_thinking: true\}, or give",
        ),
    ):
        with pytest.raises(UserError, match=says):
            conversations(chatml(), template).example(roles(*ONE), ONE, fields=[{}, fields])
    writer = of("chatml")
    assert writer.example(roles(*ONE), ONE, fields=[{}, thought]) is not None
    assert writer.counts["rows whose reasoning the template leaves out"] == 1


# The template


def test_the_tokenizers_template_is_taken_unless_one_is_given(tmp_path: Path) -> None:
    """Empty: its own, of several the default, or `plain` where it has none; else a file's text,
    or the one given.
    """
    tokenizer, file = byte_level("<|endoftext|>", eos_token="<|endoftext|>"), tmp_path / "own.jinja"
    encoder = Encoder(tokenizer, 100, None, "path:model")
    several = {"default": T.CHATML, "tool_use": T.ZEPHYR}
    for own, template in ((None, PLAIN), (several, T.CHATML), (T.CHATML, T.CHATML)):
        tokenizer.chat_template = own
        assert chat_template(encoder, None) == template
    file.write_text("{{ 'é' }}\n", encoding="utf-8")
    for asked, template in (
        ("plain", PLAIN),
        (T.ALPACA, T.ALPACA),
        (f"path:{file}", "{{ 'é' }}\n"),
    ):
        assert chat_template(encoder, asked) == template
    for asked, says in {
        f"path:{tmp_path / 'none'}": "task.options.template: path:.* can't be read: .*No such file",
        "chatml": "task.options.template is 'chatml': give plain, path:FILE or a jinja template",
        "Answer in one sentence, politely, " * 3: (
            "is 'Answer in one sentence, politely, Answer in one sentence,…': give plain"
        ),
    }.items():
        with pytest.raises(UserError, match=says):
            chat_template(encoder, asked)


def test_a_system_prompt_is_put_before_a_chat_that_has_none() -> None:
    """A row's own stays; a template that knows none refuses it."""
    writer = of("qwen 2.5", system="Be short.")
    begun = "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>us"
    assert runs(writer, example(writer, *ONE))[0][0].startswith(begun)
    own = runs(writer, example(writer, *SYSTEM, first="system"))[0][0]
    assert "You are a helpful assistant." in own
    assert "Be short." not in own
    with pytest.raises(UserError, match="refuses a conversation: System role not supported"):
        example(of("gemma", system="Be short."), *ONE)


# Bytes


@names
def test_bytes_are_those_of_the_learnt_text(name: str) -> None:
    """The same for all tokenizers: the answers' own in UTF-8, the end of a turn left out."""
    family, writer = FAMILIES[name], of(name)
    answers = ["É is <s> so\u05d0", " the\x00 2+2\n😀."]
    contents = ["What?", answers[0], "So?", answers[1]] if family.several else ["What?", answers[1]]
    found = example(writer, *contents)
    trims = family.template in {T.LLAMA_3, T.GEMMA}
    expected = sum(len((text.strip() if trims else text).encode()) for text in contents[1::2])
    thought = "<think>\n\n</think>\n\n" if family.template == T.QWEN_3 else ""
    assert found.target_bytes == expected + len(thought)
