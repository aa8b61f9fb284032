"""Templates and tokenizers of families of models, and conversations as token ids with them.

Templates of files/chat_families.json are those of the families' model cards, without their parts on
tools; files in `data/templates/` are unchanged copies (see its README). The tokenizers are small
ones of the families' kinds.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from hpml_bench.data.chat import Conversations, Example
from hpml_bench.data.chat_template import PLAIN
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.tokenizer import Encoder

TABLE = json.loads(
    (Path(__file__).parents[1] / "files/chat_families.json").read_text(encoding="utf-8")
)
T = SimpleNamespace(PLAIN=PLAIN, **TABLE["templates"])  # templates by name

# Tokenizers

CORPUS = [
    (
        "The answer to a question is a short text, and the question is asked by a user. Hi there, "
        "yes and no."
    ),
    (
        "user assistant system model [INST] [/INST] ### Instruction: ### Response: <|user|> "
        "<|assistant|> hello world"
    ),
    "Paris is the capital of France. What is 2+2? It is 4. You are a helpful assistant.",
]
LLAMA_3_WORDS = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def finished(
    backend: Any, special: Sequence[str], plain: Sequence[str], bos: str | None, **names: Any
) -> Any:
    """Return a tokenizer with its special tokens, other added ones, and a BOS that it puts
    before a text.
    """
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    if bos:
        of_bos = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, backend.token_to_id(bos))],
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
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
    if normalizer:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=450, min_frequency=1, initial_alphabet=letters, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.ByteLevel(trim_offsets=trim)
    return finished(backend, special, plain, bos, **names)


def sentence_piece(
    kind: str, *special: str, plain: Sequence[str] = (), bos: str | None = "<s>", **names: Any
) -> Any:
    """Return a BPE tokenizer over ▁ with bytes: `old` as Llama 2's file, `first` as Mistral's,
    `bare` as Gemma's.
    """
    words = [piece for text in CORPUS for word in text.split(" ") for piece in (word, f"▁{word}")]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    known = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, min_frequency=1, special_tokens=known, show_progress=False
    )
    trained.train_from_iterator(words, trainer)
    learnt = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    backend = Tokenizer(
        models.BPE(learnt["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", "▁")
    if kind == "first":
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    else:
        old = [normalizers.Prepend("▁"), spaces]
        backend.normalizer = normalizers.Sequence(old) if kind == "old" else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(
        parts if kind == "bare" else [*parts, decoders.Strip(" ", 1, 0)]
    )
    return finished(
        backend, ("<unk>", "<s>", "</s>", *special), plain, bos, unk_token="<unk>", **names
    )


@cache
def gpt2() -> Any:
    """GPT-2's kind: offsets without the space before a word, one special token."""
    return byte_level("<|endoftext|>", trim=True, eos_token="<|endoftext|>")


@cache
def chatml() -> Any:
    """Qwen's kind: no BOS, a turn's end that is not the end of text, NFC."""
    plain = ("<think>", "</think>", "<tool_response>", "</tool_response>")
    return byte_level(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        plain=plain,
        words=LLAMA_3_WORDS,
        normalizer=normalizers.NFC(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


@cache
def llama_3() -> Any:
    names = (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    )
    return byte_level(
        *names, bos="<|begin_of_text|>", words=LLAMA_3_WORDS, eos_token="<|end_of_text|>"
    )


@cache
def llama_2() -> Any:
    return sentence_piece("old", eos_token="</s>")


@cache
def mistral() -> Any:
    return sentence_piece("first", eos_token="</s>")


@cache
def gemma() -> Any:
    """Gemma's kind: no space put before a text; a turn's end that is not the end of text."""
    return sentence_piece("bare", "<start_of_turn>", "<end_of_turn>", eos_token="</s>")


@cache
def unigram() -> Any:
    """A tokenizer whose vocabulary itself holds its special tokens, as T5's."""
    pieces = [(token, 0.0) for token in ("<unk>", "<s>", "</s>")] + [
        (letter, -3.0) for letter in "▁abcdefgh</s>"
    ]
    backend = Tokenizer(models.Unigram(pieces, 0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    backend.decoder = decoders.Metaspace("▁", "always")
    return finished(
        backend, ("<unk>", "<s>", "</s>"), (), None, eos_token="</s>", unk_token="<unk>"
    )


FOLDER = Path(__file__).parents[1] / "data/templates"
THOUGHTS = re.compile(r"</?(?:think|tool_call|tool_response|seed:think)>")
"""Added tokens that are not special: a text may hold them."""
SPECIAL = re.compile(
    r"<\|[^|<>'\"{}\s]{1,40}\|>|<\|[a-z_]{2,20}>|<[a-z_]{2,20}\|>|<｜[^｜<>]{1,40}｜>|<(?:start|end)_of_turn>|\[gMASK\]|<sop>|"
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK|ARGS|IMG)\]"
)


@cache
def knowing(template: str, *ends: str) -> Any:
    """Return a small tokenizer that knows the special tokens of a template."""
    special, plain = {*SPECIAL.findall(template), *ends, "<|bos|>"}, {*THOUGHTS.findall(template)}
    return byte_level(
        *sorted(special), plain=sorted(plain), bos="<|bos|>", words=LLAMA_3_WORDS, eos_token=ends[0]
    )


class Family(NamedTuple):
    """A template with a small tokenizer of its kind."""

    models: str  # whose it is
    template: str
    end: str  # the tokenizer's end token
    # name of the function that makes the tokenizer; empty: one that knows the template's tokens
    kind: str = ""
    ends: Sequence[str] = ()  # further end tokens, of generation_config.json
    several: bool = True  # whether all answers of a conversation can be learnt; else the last one
    system: bool = True  # whether it knows system prompts
    system_last: bool = False
    """Whether it writes a system prompt into the last question, so that only the last answer can
    be learnt with one.
    """

    def tokenizer(self) -> Any:
        return globals()[self.kind]() if self.kind else knowing(self.template, self.end, *self.ends)


def published(file: str) -> str:
    return (FOLDER / f"{file}.jinja").read_text(encoding="utf-8")


FAMILIES = {
    of: Family(of, **row | {"template": getattr(T, row["template"])})
    for of, row in TABLE["families"].items()
}
PUBLISHED = [
    Family(
        template=published(row["file"]),
        **{key: value for key, value in row.items() if key != "file"},
    )
    for row in TABLE["published"]
]
"""Templates as families of models publish them."""
names = pytest.mark.parametrize("name", FAMILIES)


def conversations(
    tokenizer: Any,
    template: str,
    max_length: int = 10_000,
    ends: tuple[int, ...] = (),
    **rules: Any,
) -> Conversations:
    return Conversations(
        Encoder(tokenizer, max_length, None, "path:model", ends=ends), template, **rules
    )


def of(name: str, **rules: Any) -> Conversations:
    return conversations(FAMILIES[name].tokenizer(), FAMILIES[name].template, **rules)


def example(writer: Conversations, *contents: str, first: str = "user") -> Example:
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
    return str(writer.encoder.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def messages(*contents: str, first: str = "user") -> list[dict[str, str]]:
    return [
        {"role": r, "content": c}
        for r, c in zip(roles(*contents, first=first), contents, strict=True)
    ]


ONE = ("What is 2+2?", "It is 4.")
TWO = ("Hi there, é world", "hello user", "What is the capital?  ", "Paris is\nthe capital.")
SYSTEM = ("You are a helpful assistant.", *TWO)


# By hand

HAND = [
    "<unk>",
    "<s>",
    "</s>",
    "<user>",
    "<bot>",
    "<end>",
    "two",
    "and",
    "is",
    "four",
    "five",
    "?",
    "\n",
    "so",
]


@cache
def by_hand() -> Any:
    backend = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(HAND)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return finished(
        backend, ("<unk>", "<s>", "</s>", "<user>", "<bot>", "<end>"), (), "<s>", eos_token="</s>"
    )
