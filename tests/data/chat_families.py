"""Templates and tokenizers of families of models, and conversations as token ids with them.

The templates are those of the families' own model cards, without their parts on tools. The tokenizers are small ones of
the families' kinds: byte-level BPE, and BPE over ▁ with bytes for what it doesn't know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hpml_bench.data.chat import Conversations, Example
from hpml_bench.data.chat_template import PLAIN
from hpml_bench.plugins.task import IGNORE_INDEX
from hpml_bench.plugins.tokenizer import Encoder

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
