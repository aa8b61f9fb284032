"""Conversations as token ids: what the model reads is what transformers renders, and only answers are learnt.

The templates are those of the families' own model cards, without their parts on tools. The tokenizers are small ones of
the families' kinds: byte-level BPE, and BPE over ▁ with bytes for what it doesn't know.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hpml_bench.config.settings import TaskSpec
from hpml_bench.data.chat import Conversations, Example
from hpml_bench.data.chat_template import BARRIER, PLAIN, STAND_INS, chat_template
from hpml_bench.data.tokenizer import Encoder
from hpml_bench.errors import UserError
from hpml_bench.plugins.task import IGNORE_INDEX, make_task

# Templates

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_3_MARKED = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
)
LLAMA_32 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_MARKED = MISTRAL.replace(
    "{{ message['content'] + eos_token}}", "{% generation %}{{ message['content'] + eos_token}}{% endgeneration %}"
)
MISTRAL_03 = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
GEMMA_MARKED = GEMMA.replace(
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}",
    "{{ '<start_of_turn>' + role + '\n' }}{% if role == 'model' %}{% generation %}{{ message['content'] | trim + "
    "'<end_of_turn>' }}{% endgeneration %}{% else %}{{ message['content'] | trim + '<end_of_turn>' }}{% endif %}"
    "{{ '\n' }}",
)
QWEN_25 = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""  # noqa: E501
QWEN_3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""  # noqa: E501
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}"
    "\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
ALPACA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] + "
    "'\n\n' }}{% else %}{{ '### Response:\n' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<User>' + message['content'] }}"
    "{% else %}{{ '<Assistant>' + message['content'].split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<Assistant><think>\n' }}{% endif %}"
)

# Tokenizers

CORPUS = [
    "The answer to a question is a short text, and the question is asked by a user. Hi there, yes and no.",
    "user assistant system model [INST] [/INST] ### Instruction: ### Response: <|user|> <|assistant|> hello world",
    "Paris is the capital of France. What is 2+2? It is 4. You are a helpful assistant.",
]
LLAMA_3_WORDS = "|".join([
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])  # fmt: skip


def finished(backend: Any, special: Sequence[str], plain: Sequence[str], bos: str | None, **names: Any) -> Any:
    """Return a tokenizer with its special tokens, other added ones, and a BOS that it puts before a text."""
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    if bos:
        of_bos = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, backend.token_to_id(bos))]
        )
        own = backend.post_processor
        backend.post_processor = of_bos if own is None else processors.Sequence([own, of_bos])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, **names)


def byte_level(
    *special: str,
    plain: Sequence[str] = (),
    bos: str | None = None,
    words: str | None = None,
    trim: bool = False,
    normalizer: Any = None,
    **names: Any,
) -> Any:
    """Return a byte-level BPE tokenizer: GPT-2's rule for words, or one given."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if words:
        split = pre_tokenizers.Split(Regex(words), "isolated", False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    if normalizer:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=450, min_frequency=1, initial_alphabet=letters, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.ByteLevel(trim_offsets=trim)
    return finished(backend, special, plain, bos, **names)


def sentence_piece(kind: str, *special: str, plain: Sequence[str] = (), bos: str | None = "<s>", **names: Any) -> Any:
    """Return a BPE tokenizer over ▁ with bytes: `old` as Llama 2's file, `first` as Mistral's, `bare` as Gemma's."""
    words = [piece for text in CORPUS for word in text.split(" ") for piece in (word, f"▁{word}")]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    known = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    trainer = trainers.BpeTrainer(vocab_size=500, min_frequency=1, special_tokens=known, show_progress=False)
    trained.train_from_iterator(words, trainer)
    learnt = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    backend = Tokenizer(models.BPE(learnt["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    if kind == "first":
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    else:
        old = [normalizers.Prepend("▁"), spaces]
        backend.normalizer = normalizers.Sequence(old) if kind == "old" else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(parts if kind == "bare" else [*parts, decoders.Strip(" ", 1, 0)])
    return finished(backend, ("<unk>", "<s>", "</s>", *special), plain, bos, unk_token="<unk>", **names)


@cache
def gpt2() -> Any:
    """GPT-2's kind: offsets without the space before a word, one special token."""
    return byte_level("<|endoftext|>", trim=True, eos_token="<|endoftext|>")


@cache
def chatml() -> Any:
    """Qwen's kind: no BOS, a turn's end that is not the end of text, NFC."""
    return byte_level(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        plain=("<think>", "</think>", "<tool_response>", "</tool_response>"),
        words=LLAMA_3_WORDS,
        normalizer=normalizers.NFC(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


@cache
def llama_3() -> Any:
    """Llama 3's kind: BOS by the tokenizer and by the template."""
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return byte_level(*names, bos="<|begin_of_text|>", words=LLAMA_3_WORDS, eos_token="<|end_of_text|>")


@cache
def llama_2() -> Any:
    """Llama 2's kind: a space before every text."""
    return sentence_piece("old", eos_token="</s>")


@cache
def mistral() -> Any:
    """Mistral's kind: a space before the first text."""
    return sentence_piece("first", eos_token="</s>")


@cache
def gemma() -> Any:
    """Gemma's kind: no space put before a text; a turn's end that is not the end of text."""
    return sentence_piece("bare", "<start_of_turn>", "<end_of_turn>", eos_token="</s>")


@cache
def unigram() -> Any:
    """A tokenizer whose vocabulary itself holds its special tokens, as T5's."""
    pieces = [(token, 0.0) for token in ("<unk>", "<s>", "</s>")] + [(letter, -3.0) for letter in "▁abcdefgh</s>"]
    backend = Tokenizer(models.Unigram(pieces, 0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    backend.decoder = decoders.Metaspace("▁", "always")
    return finished(backend, ("<unk>", "<s>", "</s>"), (), None, eos_token="</s>", unk_token="<unk>")


class Family(NamedTuple):
    """A template with a tokenizer of its kind."""

    template: str
    tokenizer: Callable[[], Any]
    end: str
    """What ends an answer."""
    turns: bool = True
    """Whether it lets the answers of longer conversations be told."""
    system: bool = True


FAMILIES = {
    "chatml": Family(CHATML, chatml, "<|im_end|>"),
    "chatml marked": Family(CHATML_MARKED, chatml, "<|im_end|>"),
    "llama 3": Family(LLAMA_3, llama_3, "<|eot_id|>"),
    "mistral": Family(MISTRAL, mistral, "</s>", system=False),
    "mistral old": Family(MISTRAL, llama_2, "</s>", system=False),
    "gemma": Family(GEMMA, gemma, "<end_of_turn>", system=False),
    "qwen 2.5": Family(QWEN_25, chatml, "<|im_end|>"),
    "qwen 3": Family(QWEN_3, chatml, "<|im_end|>", turns=False),
    "zephyr": Family(ZEPHYR, llama_2, "</s>"),
    "zephyr first": Family(ZEPHYR, mistral, "</s>"),
    "alpaca": Family(ALPACA, gpt2, "<|endoftext|>", system=False),
    "alpaca old": Family(ALPACA, llama_2, "</s>", system=False),
    "plain": Family(PLAIN, gpt2, "<|endoftext|>", system=False),
}
names = pytest.mark.parametrize("name", FAMILIES)


def conversations(tokenizer: Any, template: str, max_length: int = 10_000, **rules: Any) -> Conversations:
    """Return what writes conversations as token ids."""
    return Conversations(Encoder(tokenizer, max_length, None, "path:model"), template, **rules)


def of(name: str, **rules: Any) -> Conversations:
    """Return the conversations of a family."""
    return conversations(FAMILIES[name].tokenizer(), FAMILIES[name].template, **rules)


def example(writer: Conversations, *contents: str, first: str = "user") -> Example:
    """Return turns that alternate as the model sees them."""
    found = writer.example(roles(*contents, first=first), contents)
    assert found is not None
    return found


def roles(*contents: str, first: str = "user") -> list[str]:
    """Return who says what: by turns, after a system prompt where that is first."""
    front = ["system"] if first == "system" else []
    pair = ["assistant", "user"] if first == "assistant" else ["user", "assistant"]
    return (front + pair * len(contents))[: len(contents)]


def runs(writer: Conversations, found: Example) -> list[tuple[str, bool]]:
    """Return a row's text in parts, each with whether it is learnt."""
    parts: list[tuple[list[int], bool]] = []
    for token, label in zip(found.ids, found.labels, strict=True):
        assert label in {token, IGNORE_INDEX}
        learnt = label != IGNORE_INDEX
        if not parts or parts[-1][1] != learnt:
            parts.append(([], learnt))
        parts[-1][0].append(token)
    return [(decoded(writer, ids), learnt) for ids, learnt in parts]


def decoded(writer: Conversations, ids: Sequence[int]) -> str:
    """Return the text of token ids, special ones too."""
    return str(writer.encoder.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def messages(*contents: str, first: str = "user") -> list[dict[str, str]]:
    """Return turns as transformers takes them."""
    return [{"role": r, "content": c} for r, c in zip(roles(*contents, first=first), contents, strict=True)]


ONE = ("What is 2+2?", "It is 4.")
TWO = ("Hi there, é world", "hello user", "What is the capital?  ", "Paris is\nthe capital.")
SYSTEM = ("You are a helpful assistant.", *TWO)

# Against transformers


@names
@pytest.mark.parametrize("contents", [ONE, TWO, SYSTEM])
def test_the_ids_are_those_of_transformers(name: str, contents: tuple[str, ...]) -> None:
    """Those of `apply_chat_template`, and after them an end token only where the template writes none."""
    family, writer = FAMILIES[name], of(name)
    first = "system" if contents is SYSTEM else "user"
    if (first == "system" and not family.system) or (len(contents) > 2 and not family.turns):
        return
    found = example(writer, *contents, first=first)
    tokenizer = family.tokenizer()
    expected = tokenizer.apply_chat_template(messages(*contents, first=first), chat_template=family.template)
    ids = list(found.ids)
    if family.template in {ZEPHYR, ALPACA, PLAIN} and tokenizer.bos_token_id is not None:
        assert ids.pop(0) == tokenizer.bos_token_id  # the tokenizer's own, which such a template leaves to it
    if family.template in {ALPACA, PLAIN}:
        assert ids.pop() == tokenizer.eos_token_id
    if name == "plain" and contents is not ONE:  # words of two turns that would be one token
        assert decoded(writer, ids) == tokenizer.decode(expected["input_ids"])
    else:
        assert ids == expected["input_ids"]


@pytest.mark.parametrize(
    ("name", "marked"), [("chatml", CHATML_MARKED), ("llama 3", LLAMA_3_MARKED), ("mistral", MISTRAL_MARKED),
                         ("mistral old", MISTRAL_MARKED), ("gemma", GEMMA_MARKED)],
)  # fmt: skip
@pytest.mark.parametrize("contents", [ONE, TWO])
def test_what_is_learnt_is_the_mask_of_transformers(name: str, marked: str, contents: tuple[str, ...]) -> None:
    """Told by prefixes, and by marks: both are `return_assistant_tokens_mask` of the marked template."""
    tokenizer = FAMILIES[name].tokenizer()
    reference = tokenizer.apply_chat_template(
        messages(*contents), chat_template=marked, return_dict=True, return_assistant_tokens_mask=True
    )
    assert sum(reference["assistant_masks"])
    for writer in (of(name), conversations(tokenizer, marked)):
        found = example(writer, *contents)
        assert list(found.ids) == reference["input_ids"]
        assert [int(label != IGNORE_INDEX) for label in found.labels] == reference["assistant_masks"]


@names
def test_the_prompt_is_what_a_model_is_given_to_answer(name: str) -> None:
    """The tokens before the last answer are those of the turns before it with the generation prompt."""
    family, writer = FAMILIES[name], of(name)
    contents = TWO if family.turns else ONE
    found = example(writer, *contents)
    asked = family.tokenizer().apply_chat_template(
        messages(*contents)[:-1], chat_template=family.template, add_generation_prompt=True
    )["input_ids"]
    prompt = list(found.ids[: found.prompt])
    if prompt[0] == family.tokenizer().bos_token_id != asked[0]:  # the tokenizer's own
        prompt = prompt[1:]
    if name == "plain":
        assert decoded(writer, prompt) == decoded(writer, asked)
    else:
        assert prompt == asked


# By hand

HAND = ["<unk>", "<s>", "</s>", "<user>", "<bot>", "<end>", "two", "and", "is", "four", "five", "?", "\n", "so"]
HAND_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<user> ' if m.role == 'user' else '<bot> ' }}{{ m.content }} <end> \n "
    "{% endfor %}{% if add_generation_prompt %}<bot> {% endif %}"
)


@cache
def by_hand() -> Any:
    """Whole words, whose ids stand in a list."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(HAND)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return finished(backend, ("<unk>", "<s>", "</s>", "<user>", "<bot>", "<end>"), (), "<s>", eos_token="</s>")


def test_ids_and_labels_by_hand() -> None:
    """BOS once; each answer and the end of its turn are learnt; the line break after that is not."""
    writer = conversations(by_hand(), HAND_TEMPLATE)
    found = example(writer, "two and two ?", "is four", "and so ?", "five")
    user = [3, 6, 7, 6, 11, 5, 12]
    assert list(found.ids) == [1, *user, 4, 8, 9, 5, 12, 3, 7, 13, 11, 5, 12, 4, 10, 5, 12]
    learnt = {9: 8, 10: 9, 11: 5, 20: 10, 21: 5}
    assert list(found.labels) == [learnt.get(place, IGNORE_INDEX) for place in range(23)]
    assert found.prompt == 20
    assert (found.question, found.expected, found.escaped, found.cut) == ("and so ?", "five", 0, 0)
    assert writer.counts == {"rows": 1}
    assert writer.stop_ids == (2, 5)
    assert writer.answer_of(found) == [10]


def test_every_token_can_be_learnt() -> None:
    """With `loss_on: all`: all but the first, which nothing comes before; the ids are the same."""
    told, writer = (conversations(by_hand(), HAND_TEMPLATE, loss_on=kind) for kind in ("answers", "all"))
    found = example(writer, "two ?", "is four")
    assert found.ids == example(told, "two ?", "is four").ids
    assert found.labels == (IGNORE_INDEX, *found.ids[1:])
    assert writer.stop_ids == told.stop_ids == (2, 5)
    assert writer.answer_of(found) == [8, 9]


def test_a_text_without_a_prompt_is_learnt_as_a_whole() -> None:
    """No template and no system prompt, but BOS and the end token; the template isn't asked."""
    writer = of("llama 3", system="Be short.")
    found = example(writer, "Paris is the capital.", first="assistant")
    assert runs(writer, found) == [("<|begin_of_text|>", False), ("Paris is the capital.<|end_of_text|>", True)]
    assert found.prompt == 1
    bare = of("alpaca")
    first, *rest = runs(bare, example(bare, "Paris is", first="assistant"))
    assert (first[1], rest) == (False, [("Paris is<|endoftext|>"[len(first[0]) :], True)])


# What is learnt


@names
def test_answers_and_their_ends_are_learnt_and_nothing_else(name: str) -> None:
    """All answers of a conversation, each with what ends it, where the template writes one."""
    family, writer = FAMILIES[name], of(name)
    if not family.turns:
        return
    found = example(writer, *TWO)
    learnt = [text for text, one in runs(writer, found) if one]
    ends = "" if family.template in {ALPACA, PLAIN} else family.end
    assert [text.strip(" ") for text in learnt] == [f"hello user{ends}", f"Paris is\nthe capital.{family.end}"]
    assert found.expected == TWO[-1]
    assert decoded(writer, writer.answer_of(found)).strip(" ") == TWO[-1]


@names
def test_the_end_of_a_turn_ends_an_answer(name: str) -> None:
    """The stop tokens are the tokenizer's end token and the template's, whatever is learnt."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    ends = {tokenizer.eos_token, family.end}
    for rules in ({}, {"loss_on": "all"}, {"too_long": "cut_prompt"}):
        assert {tokenizer.convert_ids_to_tokens(token) for token in of(name, **rules).stop_ids} == ends


def test_bos_comes_once() -> None:
    """Whether template and tokenizer write it, or only one of them."""
    for name, count in {"llama 3": 1, "mistral": 1, "gemma": 1, "zephyr": 1, "alpaca old": 1, "chatml": 0}.items():
        writer = of(name)
        found = example(writer, *ONE)
        assert found.ids.count(FAMILIES[name].tokenizer().bos_token_id) == count
        assert writer.counts == {"rows": 1}


def test_marks_may_leave_the_end_of_the_turn_out() -> None:
    """It is learnt all the same, and no end token is put in its place."""
    template = CHATML_MARKED.replace(
        "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}",
        "{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
    )
    found = example(conversations(chatml(), template), *ONE)
    assert found == example(of("chatml marked"), *ONE)


def test_a_template_whose_marks_are_empty_is_refused() -> None:
    """By name; nothing would be learnt."""
    template = "{% for m in messages %}{% generation %}{% endgeneration %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match=r"^the chat template of path:model marks no part of an answer with {% gen"):
        example(conversations(chatml(), template), *ONE)


def test_thinking_is_learnt_with_the_answer() -> None:
    """Qwen 3 writes an empty thought before an answer without one; a thought in an answer is of its own tokens."""
    writer = of("qwen 3")
    begin = "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"
    for answer, learnt in {
        "It is 4.": "<think>\n\n</think>\n\nIt is 4.<|im_end|>",
        "<think>\n2 and 2\n</think>\n\nIt is 4.": "<think>\n2 and 2\n</think>\n\nIt is 4.<|im_end|>",
    }.items():
        found = example(writer, "What is 2+2?", answer)
        assert runs(writer, found) == [(begin, False), (learnt, True), ("\n", False)]
        assert {chatml().convert_tokens_to_ids(token) for token in ("<think>", "</think>")} < set(found.ids)
    assert writer.counts == {"rows": 2}


@pytest.mark.parametrize(
    ("template", "tokenizer", "contents", "answer"),
    [(QWEN_3, chatml, TWO, 1), (MISTRAL_03, mistral, ("Be short.", *ONE), 1), (DEEPSEEK_R1, mistral, ONE, 1)],
)
def test_a_template_whose_prefixes_are_none_is_refused(
    template: str, tokenizer: Callable[[], Any], contents: tuple[str, ...], answer: int
) -> None:
    """Qwen 3 drops thoughts of earlier turns, Mistral 0.3 a system prompt before an answer, R1 prompts a thought."""
    writer = conversations(tokenizer(), template)
    with pytest.raises(UserError, match=rf"the chat template of path:model writes the turns before answer {answer} ot"):
        example(writer, *contents, first="system" if len(contents) == 3 else "user")


def test_a_conversation_may_begin_with_an_answer() -> None:
    """What the template writes before it is not learnt, a system prompt of its own among it."""
    writer = of("qwen 2.5")
    found = example(writer, "Hi there", "What is 2+2?", "It is 4.", first="assistant")
    assert [text for text, learnt in runs(writer, found) if learnt] == ["Hi there<|im_end|>", "It is 4.<|im_end|>"]
    with pytest.raises(UserError, match=r"refuses a conversation: Conversation roles must alternate"):
        example(of("gemma"), "Hi there", "What is 2+2?", "It is 4.", first="assistant")


# The template


def test_the_tokenizers_template_is_taken_unless_one_is_given(tmp_path: Path) -> None:
    """Empty: its own, of several the default, or `plain` where it has none; else a file's text, or the one given."""
    tokenizer = byte_level("<|endoftext|>", eos_token="<|endoftext|>")
    encoder = Encoder(tokenizer, 100, None, "path:model")
    assert chat_template(encoder, None) == PLAIN
    tokenizer.chat_template = {"default": CHATML, "tool_use": ZEPHYR}
    assert chat_template(encoder, None) == CHATML
    tokenizer.chat_template = CHATML
    assert chat_template(encoder, None) == CHATML
    assert chat_template(encoder, "plain") == PLAIN
    assert chat_template(encoder, ALPACA) == ALPACA
    (tmp_path / "own.jinja").write_text("{{ 'é' }}\n", encoding="utf-8")
    assert chat_template(encoder, f"path:{tmp_path / 'own.jinja'}") == "{{ 'é' }}\n"
    for given_, says in {
        f"path:{tmp_path / 'none'}": "task.options.template: path:.* can't be read: .*No such file",
        "chatml": "task.options.template is 'chatml': give plain, path:FILE or a jinja template",
    }.items():
        with pytest.raises(UserError, match=says):
            chat_template(encoder, given_)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('No such role') }}", "No such role"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[9]['content'] }}", "has no element 9"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{% set _ = messages.append(1) %}", "unsafe"),
        ("{{ 1 // 0 }}", "division"),
    ],
)
def test_a_template_that_raises_is_one_sentence(template: str, says: str) -> None:
    """With the model's name and what it raised."""
    with pytest.raises(
        UserError, match=rf"^the chat template of path:model refuses a conversation: .*{says}"
    ) as raised:
        example(conversations(chatml(), template), *ONE)
    assert "\n" not in str(raised.value)


def test_a_system_prompt_is_put_before_a_chat_that_has_none() -> None:
    """A row's own stays; a template that knows none refuses it."""
    writer = of("qwen 2.5", system="Be short.")
    assert runs(writer, example(writer, *ONE))[0][0].startswith(
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>us"
    )
    own = runs(writer, example(writer, *SYSTEM, first="system"))[0][0]
    assert "You are a helpful assistant." in own
    assert "Be short." not in own
    with pytest.raises(UserError, match="refuses a conversation: System role not supported"):
        example(of("gemma", system="Be short."), *ONE)


def test_the_date_is_the_same_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that asks for today's is given the one that Llama's fall back on; nothing else in it changes."""
    writer = conversations(llama_3(), LLAMA_32)
    text = decoded(writer, example(writer, *ONE).ids)
    fixed = LLAMA_32.replace("strftime_now is defined", "false")
    assert "Today Date: 26 Jul 2024\n\n<|eot_id|>" in text
    assert text == llama_3().apply_chat_template(messages(*ONE), chat_template=fixed, tokenize=False)
    dated = conversations(gpt2(), "\n  {{ strftime_now('%Y-%m-%d, %B') }}" + PLAIN)
    assert decoded(dated, example(dated, "a", "b").ids) == "\n  2024-07-26, Julyab<|endoftext|>"


# Borders of answers

SHARED = "rows whose prompt and answer share a token, split there"


def test_no_token_is_of_prompt_and_answer_both() -> None:
    """Words that would be one token are two, so that a prompt has the same tokens whatever is answered."""
    writer = of("plain")
    found = example(writer, "What is the cap", "ital", "user", " is")
    assert runs(writer, found) == [
        ("What is the cap", False),
        ("ital", True),
        ("user", False),
        (" is<|endoftext|>", True),
    ]
    assert writer.counts == {"rows": 1, SHARED: 1}
    colon = conversations(gpt2(), "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
                                  "{% if add_generation_prompt %}assistant: {% endif %}")  # fmt: skip
    assert [text for text, learnt in runs(colon, example(colon, "is", "the", "is", "hello")) if learnt] == [
        "the",
        "hello<|endoftext|>",
    ]


@pytest.mark.parametrize("tokenizer", [llama_2, mistral, gemma])
def test_an_answer_read_apart_gets_no_space(tokenizer: Callable[[], Any]) -> None:
    """A tokenizer that begins a text with a space puts none into the middle of it."""
    writer = conversations(tokenizer(), PLAIN)
    found = example(writer, "What is the cap", "ital")
    assert decoded(writer, found.ids).removeprefix("<s>").lstrip() == "What is the capital</s>"
    assert writer.counts == {"rows": 1, SHARED: 1}


# Special tokens in turns

KEPT = "special tokens in turns, kept as text"
CHANGED = "rows whose text the template or the tokenizer changes"


def skeleton(writer: Conversations, found: Example) -> list[int]:
    """Return the special tokens of a row, in order."""
    special = {number for number, token in writer.encoder.tokenizer.added_tokens_decoder.items() if token.special}
    return [token for token in found.ids if token in special - {writer.encoder.tokenizer.unk_token_id}]


@names
def test_a_special_token_in_a_turn_stays_text(name: str) -> None:
    """It adds no control token, the text comes back letter by letter, and it is counted."""
    family, writer = FAMILIES[name], of(name)
    question, answer = f"a{family.end}b {family.end}", f"x{family.end}{family.end}y"
    found = example(writer, question, answer)
    assert skeleton(writer, found) == skeleton(writer, example(of(name), "a", "b"))
    text = decoded(writer, found.ids)
    assert question in text
    assert answer in text
    assert found.escaped == writer.counts[KEPT] == 4
    assert CHANGED not in writer.counts
    assert answer in "".join(part for part, learnt in runs(writer, found) if learnt)


FRAGMENTS = [
    "<|im_start|>", "<|im_end|>", "<|im_", "start|>", "end|>", "<s>", "</s>", "</", "s>", "<", "/s>", "<unk>", "|>",
    "<|", "<|endoftext|>", "<|eot_id|>", "<|eot", "_id|>", "<start_of_turn>", "<end_of_turn>", "<end_", "of_turn>",
    "user", "\n", "assistant", "system", " ", "a", "é", "e\u0301", "\u05d0\u05d1", "\u202e", "\x00", "😀", "\ue000",
    "\U000f0000", "{{", "▁", "[INST]", "[/INST]", "<think>", "{% generation %}", "<0x41>",
]  # fmt: skip
WORDS = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=5).map("".join).filter(str.strip)


@names
@given(contents=st.lists(WORDS, min_size=2, max_size=4).filter(lambda found: len(found) % 2 == 0))
def test_no_text_adds_a_control_token_or_is_lost(name: str, contents: list[str]) -> None:
    """Whatever is written in turns: the special tokens are the template's, and every turn is in the decoded text.

    A text that doesn't come back as it was (a template trims it, a tokenizer composes letters) is counted.
    """
    family, writer = FAMILIES[name], of(name)
    contents = contents if family.turns else contents[:2]
    found = example(writer, *contents)
    neutral = of(name)
    assert skeleton(writer, found) == skeleton(neutral, example(neutral, *["a"] * len(contents)))
    text = decoded(writer, found.ids)
    assert writer.counts[CHANGED] == any(content not in text for content in contents)
    if not writer.counts[CHANGED]:
        return
    composed = unicodedata.normalize("NFC", text).replace("▁", " ")  # as a space is written in some vocabularies
    if name != "qwen 3" or "</think>" not in contents[1]:
        assert all(unicodedata.normalize("NFC", c.strip()).replace("▁", " ").strip() in composed for c in contents)


@pytest.mark.parametrize("tokenizer", [gpt2, chatml, llama_3, llama_2, mistral, gemma])
@given(text=st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("<s>/|im_end "))))
def test_any_text_comes_back(tokenizer: Callable[[], Any], text: str) -> None:
    """NUL, right-to-left and private letters too; only a tokenizer that composes letters changes any."""
    content = f"x{text}x"
    writer = conversations(tokenizer(), CHATML)
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
    assert system is not None
    assert skeleton(writer, system) == [gpt2().eos_token_id]


def test_a_text_that_becomes_a_special_token_is_refused() -> None:
    """As where a tokenizer looks for its special tokens in lower case."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "<end>": 2}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken("<end>", special=True, normalized=True)])
    writer = conversations(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>"), PLAIN)
    assert skeleton(writer, example(writer, "a <end>", " a")) == [2]
    with pytest.raises(UserError, match=r"^path:model: the tokenizer makes a special token of what a turn holds"):
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


def test_a_padding_token_of_one_letter_is_text() -> None:
    """A tokenizer that pads with `!` takes nothing from a text that has one."""
    tokenizer = byte_level("<|endoftext|>", eos_token="<|endoftext|>", pad_token="!")
    writer = conversations(tokenizer, PLAIN)
    found = example(writer, "Hi!", " yes!")
    assert runs(writer, found) == [("Hi!", False), (" yes!<|endoftext|>", True)]
    assert writer.counts == {"rows": 1}


def test_many_special_tokens_in_a_row_are_kept() -> None:
    """As in a corpus that writes <unk> for what it leaves out: more of them than there are private characters."""
    writer = conversations(llama_2(), ZEPHYR, 10**6)
    found = example(writer, "<unk>" * 70_000, "yes")
    assert (found.escaped, writer.counts[KEPT]) == (70_000, 70_000)


def test_what_a_template_or_tokenizer_changes_is_counted() -> None:
    """Llama 3's trims the turns; Qwen's tokenizer composes letters; a vocabulary of words lacks some."""
    for writer, text in (
        (of("llama 3"), "line\n"),
        (of("chatml"), "e\u0301"),
        (conversations(by_hand(), HAND_TEMPLATE), "seven"),
    ):
        example(writer, text, "is")
        assert writer.counts[CHANGED] == 1
        example(writer, "two", "is")
        assert writer.counts == {"rows": 2, CHANGED: 1}


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


# Tokenizers without an end, and nothing to learn


def test_a_tokenizer_without_an_end_token_is_counted() -> None:
    """Nothing is put behind an answer; the rows whose answers don't end are told."""
    writer = conversations(byte_level("<|im_start|>", "<|im_end|>"), ALPACA)
    found = example(writer, *ONE)
    assert runs(writer, found)[-1] == ("It is 4.", True)
    assert writer.stop_ids == ()
    assert writer.answer_of(found) == list(found.ids[found.prompt :])
    assert writer.counts == {"rows": 1, "rows whose answer has no end token, as the tokenizer has none": 1}
    ended = conversations(writer.encoder.tokenizer, CHATML)
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
    writer = Conversations(Encoder(chatml(), 100, 10, "path:model"), CHATML)
    with pytest.raises(UserError, match=r"path:model: the tokenizer gives token .*, but the model has 10; they don't"):
        example(writer, *ONE)


# Bytes


@names
def test_bytes_are_those_of_the_learnt_text(name: str) -> None:
    """The same for all tokenizers: the answers' own in UTF-8, the end of a turn left out."""
    family, writer = FAMILIES[name], of(name)
    answers = ["É is <s> so\u05d0", " the\x00 2+2\n😀."]
    contents = ["What?", answers[0], "So?", answers[1]] if family.turns else ["What?", answers[1]]
    found = example(writer, *contents)
    trims = family.template in {LLAMA_3, GEMMA}
    expected = sum(len((text.strip() if trims else text).encode()) for text in contents[1::2])
    thought = "<think>\n\n</think>\n\n" if family.template == QWEN_3 else ""
    assert found.target_bytes == expected + len(thought)


def test_bytes_with_every_token_learnt_are_of_all_text_but_the_first_token() -> None:
    """Special tokens have none, and what is cut isn't counted."""
    writer = of("alpaca", loss_on="all")
    found = example(writer, "What is it?", "It is <s>.")
    text = "### Instruction:\nWhat is it?\n\n### Response:\nIt is <s>."
    assert found.target_bytes == len(text.encode()) - len(decoded(writer, found.ids[:1]).encode())
    cut = of("alpaca", loss_on="all", too_long="cut_prompt", max_length=len(found.ids) - 3)
    rest = example(cut, "What is it?", "It is <s>.")
    assert rest.target_bytes == len(decoded(cut, rest.ids[1:-1]).encode())


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


def test_the_private_characters_are_no_letters() -> None:
    """What stands in for special tokens is of the planes that no text should use."""
    assert {unicodedata.category(chr(code)) for code in (STAND_INS[0], STAND_INS[-1])} == {"Co"}
    assert unicodedata.category(BARRIER) == "Co"
