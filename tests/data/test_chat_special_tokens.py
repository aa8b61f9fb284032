"""Borders of answers, special tokens in turns, and tokenizers that lack tokens: no text becomes
a control token.
"""

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers.chat_families import (
    FAMILIES,
    ONE,
    T,
    byte_level,
    chatml,
    conversations,
    decoded,
    example,
    gemma,
    gpt2,
    llama_2,
    llama_3,
    mistral,
    names,
    of,
    runs,
    unigram,
)
from hpml_bench.data.chat import Conversations, Example
from hpml_bench.data.chat_template import PLAIN, STAND_INS
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.system.errors import UserError

# Borders of answers

SHARED = "rows whose prompt and answer share a token, split there"


def test_no_token_is_of_prompt_and_answer_both() -> None:
    """Words that would be one token are two, so that a prompt has the same tokens whatever is
    answered.
    """
    writer = of("plain")
    found = example(writer, "What is the cap", "ital", "user", " is")
    parts = ("What is the cap", "ital", "user", " is<|endoftext|>")
    assert runs(writer, found) == [*zip(parts, (False, True) * 2, strict=True)]
    assert writer.counts == {"rows": 1, SHARED: 1, UNENDED: 1}
    colon = conversations(
        gpt2(),
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )
    learnt = [text for text, one in runs(colon, example(colon, "is", "the", "is", "hello")) if one]
    assert learnt == ["the", "hello<|endoftext|>"]


@pytest.mark.parametrize("tokenizer", [llama_2, mistral, gemma])
def test_an_answer_read_apart_gets_no_space(tokenizer: Callable[[], Any]) -> None:
    """A tokenizer that begins a text with a space puts none into the middle of it."""
    writer = conversations(tokenizer(), PLAIN)
    found = example(writer, "What is the cap", "ital")
    assert decoded(writer, found.ids).removeprefix("<s>").lstrip() == "What is the capital</s>"
    assert writer.counts == {"rows": 1, SHARED: 1}


@pytest.mark.parametrize("tokenizer", [llama_2, mistral, gemma, unigram])
@pytest.mark.parametrize(("question", "answer"), [("ab", " cd"), ("ab ", "cd")])
def test_a_bare_space_belongs_to_the_turn_that_has_it(
    tokenizer: Callable[[], Any], question: str, answer: str
) -> None:
    """Where the space between two turns is a token of its own, it's the answer's first or the
    prompt's last.
    """
    writer = conversations(tokenizer(), PLAIN)
    found = example(writer, question, answer)
    tokens = writer.encoder.tokenizer.convert_ids_to_tokens(list(found.ids))
    bare = tokens.index("▁", tokens.index("b"))
    first_target = next(place for place, label in enumerate(found.labels) if label != IGNORE_INDEX)
    assert first_target == found.prompt == (bare if answer.startswith(" ") else bare + 1)
    assert "".join(tokens[first_target:-1]).replace("▁", " ") == answer


# Special tokens in turns

UNENDED = (
    "answers before the last whose end is not learnt, as the template writes no end token there"
)
KEPT = "special tokens in turns, kept as text"
CHANGED = "rows whose text the template or the tokenizer changes"


def skeleton(writer: Conversations, found: Example) -> list[int]:
    special = {
        number
        for number, token in writer.encoder.tokenizer.added_tokens_decoder.items()
        if token.special
    }
    return [
        token for token in found.ids if token in special - {writer.encoder.tokenizer.unk_token_id}
    ]


FRAGMENTS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_",
    "start|>",
    "end|>",
    "<s>",
    "</s>",
    "</",
    "s>",
    "<",
    "/s>",
    "<unk>",
    "|>",
    "<|",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eot",
    "_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<end_",
    "of_turn>",
    "user",
    "\n",
    "assistant",
    "system",
    " ",
    "a",
    "é",
    "e\u0301",
    "\u05d0\u05d1",
    "\u202e",
    "\x00",
    "😀",
    "\ue000",
    "\U000f0000",
    "{{",
    "▁",
    "[INST]",
    "[/INST]",
    "<think>",
    "{% generation %}",
    "<0x41>",
]
WORDS = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=5).map("".join).filter(str.strip)


@names
@given(contents=st.lists(WORDS, min_size=2, max_size=4).filter(lambda found: len(found) % 2 == 0))
def test_no_text_adds_a_control_token_or_is_lost(name: str, contents: list[str]) -> None:
    """Whatever is written in turns: the special tokens are the template's, and every turn is in the
    decoded text.

    A text that doesn't come back as it was (a template trims it, a tokenizer composes letters) is
    counted.
    """
    family, writer = FAMILIES[name], of(name)
    contents = contents if family.several else contents[:2]
    found = example(writer, *contents)
    neutral = of(name)
    assert skeleton(writer, found) == skeleton(neutral, example(neutral, *["a"] * len(contents)))
    text = decoded(writer, found.ids)
    assert writer.counts[CHANGED] == any(content not in text for content in contents)
    if not writer.counts[CHANGED]:
        return
    composed = unicodedata.normalize("NFC", text).replace(
        "▁", " "
    )  # as a space is written in some vocabularies
    if name != "qwen 3" or "</think>" not in contents[1]:
        assert all(
            unicodedata.normalize("NFC", c.strip()).replace("▁", " ").strip() in composed
            for c in contents
        )


@pytest.mark.parametrize("tokenizer", [gpt2, chatml, llama_3, llama_2, mistral, gemma])
@given(
    text=st.text(
        alphabet=st.one_of(
            st.characters(exclude_categories=["Cs"]), st.sampled_from("<s>/|im_end ")
        )
    )
)
def test_any_text_comes_back(tokenizer: Callable[[], Any], text: str) -> None:
    """NUL, right-to-left and private letters too; only a tokenizer that composes letters changes
    any.
    """
    content = f"x{text}x"
    writer = conversations(tokenizer(), T.CHATML)
    found = example(writer, content, content)
    body = unicodedata.normalize("NFC", content) if tokenizer is chatml else content
    assert decoded(writer, found.ids).count(body) >= 2
    assert (CHANGED in writer.counts) == (body != content)


def test_a_special_token_of_two_turns_stays_text() -> None:
    """Half in the question and half in the answer, written one after the other."""
    writer = of("plain")
    found = example(writer, "a<|endof", "text|>b", "<|end", "oftext|>")
    assert decoded(writer, found.ids) == "a<|endoftext|>b<|endoftext|><|endoftext|>"
    assert skeleton(writer, found) == [gpt2().eos_token_id]
    assert writer.counts[KEPT] == 2
    system = writer.example(["system", "user", "assistant"], ["<|endof", "text|>", "a"])
    assert skeleton(writer, system) == [gpt2().eos_token_id]


def test_a_text_that_becomes_a_special_token_is_refused() -> None:
    """As where a tokenizer looks for its special tokens in lower case."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "<end>": 2}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken("<end>", special=True, normalized=True)])
    writer = conversations(
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>"), PLAIN
    )
    assert skeleton(writer, example(writer, "a <end>", " a")) == [2]
    with pytest.raises(
        UserError, match=r"^path:model: the tokenizer makes a special token of a turn's text"
    ):
        example(writer, "a <END>", " a")


def test_added_tokens_of_the_template_are_no_control_tokens_in_a_question() -> None:
    """`<think>`, which a template writes, is text in a question, and a token in an answer."""
    writer = of("qwen 3")
    found = example(writer, "<think>what</think>", "<think>\nso\n</think>\n\nIt is 4.")
    ids = [chatml().convert_tokens_to_ids(token) for token in ("<think>", "</think>")]
    assert [found.ids.count(token) for token in ids] == [1, 1]
    assert "<think>what</think>" in decoded(writer, found.ids)
    assert writer.counts[KEPT] == 2


def test_a_vocabulary_that_holds_its_special_tokens_keeps_them_as_text() -> None:
    """Unigram vocabularies know `</s>` as a piece: it is read letter by letter."""
    writer = conversations(unigram(), PLAIN)
    found = example(writer, "ab</s>cd", "ef</s></s>")
    assert decoded(writer, found.ids) == "ab</s>cdef</s></s></s>"
    assert skeleton(writer, found) == [unigram().eos_token_id]
    assert writer.counts[KEPT] == 3


def test_a_padding_token_of_one_letter_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that pads with `!` takes nothing from a text that has one.

    As many special tokens as a row has are kept, also more than there are private characters, as of
    <unk> in a corpus.
    """
    tokenizer = byte_level("<|endoftext|>", eos_token="<|endoftext|>", pad_token="!")
    writer = conversations(tokenizer, PLAIN)
    found = example(writer, "Hi!", " yes!")
    assert runs(writer, found) == [("Hi!", False), (" yes!<|endoftext|>", True)]
    assert writer.counts == {"rows": 1}
    monkeypatch.setattr("hpml_bench.data.chat_template.STAND_INS", STAND_INS[:9])
    writer = conversations(llama_2(), T.ZEPHYR)
    example(writer, "<unk>" * 70, "yes")
    assert writer.counts[KEPT] == 70


# Tokenizers without an end, and nothing to learn


def test_a_tokenizer_without_an_end_token_is_counted() -> None:
    """Nothing is put behind an answer; the rows whose answers don't end are told."""
    writer = conversations(byte_level("<|im_start|>", "<|im_end|>"), T.ALPACA)
    found = example(writer, *ONE)
    assert runs(writer, found)[-1] == ("It is 4.", True)
    assert writer.stop_ids == ()
    assert writer.answer_of(found) == list(found.ids[found.prompt :])
    assert writer.counts == {
        "rows": 1,
        "rows whose answer has no end token, as the tokenizer has none": 1,
    }
    ended = conversations(writer.encoder.tokenizer, T.CHATML)
    assert runs(ended, example(ended, *ONE))[-2] == ("It is 4.<|im_end|>", True)
    assert ended.stop_ids == (ended.encoder.tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_a_text_of_one_token_teaches_nothing() -> None:
    """Without BOS and end token there is nothing to tell: the row is left out and counted."""
    for rules in ({}, {"loss_on": "all"}):
        writer = conversations(byte_level("<|im_start|>"), PLAIN, **rules)
        assert writer.example(["assistant"], ["a"]) is None
        assert writer.counts["rows whose text has no token to learn, left out"] == 1


def test_a_token_that_the_model_does_not_have_is_refused() -> None:
    """Tokenizer and model don't belong together."""
    writer = Conversations(Encoder(chatml(), 100, 10, "path:model"), T.CHATML)
    with pytest.raises(
        UserError,
        match=r"path:model: the tokenizer gives token .*, but the model has 10; they don't",
    ):
        example(writer, *ONE)
