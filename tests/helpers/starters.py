"""Small models and files of rows from which `hpml-bench init` starts: an encoder, and a language
model that chats.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import tiny
from hpml_bench.starter import estimates
from hpml_bench.starter.estimates import Memory

if TYPE_CHECKING:
    import pytest

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = (
    "the",
    "bank",
    "goal",
    "rates",
    "match",
    "won",
    "rose",
    "team",
    "market",
    "player",
    "share",
    "cup",
)


def _tokenizer(folder: Path, template: str | None) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*WORDS, *(f"w{number}" for number in range(100)), "[UNK]", "[PAD]", "<|end|>"]
    known += ["<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(known)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "<|end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.add_special_tokens(
        {"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|system|>"]}
    )
    fast.chat_template = template
    fast.save_pretrained(folder)


SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def bert(folder: Path) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(
        BertConfig(vocab_size=tiny.VOCABULARY, max_position_embeddings=128, **SHAPE)
    ).save_pretrained(folder)
    _tokenizer(folder, None)
    return folder


def llama(folder: Path, template: str | None = CHAT) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=tiny.VOCABULARY, max_position_embeddings=256, **SHAPE)
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(folder, template)
    return folder


def leave_out_estimates(patch: pytest.MonkeyPatch) -> None:
    """Let `init` predict no memory and time no product, which take most of its time."""
    patch.setattr(estimates, "predict_memory", lambda *_: Memory("Memory: not predicted."))
    patch.setattr(estimates, "time_in_words", lambda *_: "Time: not estimated.")


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    lengths = random.integers(4, 13, count)
    return [
        f"{' '.join(random.choice(WORDS, length))} w{row % 100}"
        for row, length in enumerate(lengths)
    ]


def jsonl(file: Path, rows: Sequence[Any]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def classes(file: Path, count: int = 120) -> Path:
    rows = [
        f'"{text}",{("sport", "business", "world")[row % 3]}'
        for row, text in enumerate(texts(count))
    ]
    file.write_text("\n".join(["text,label", *rows]) + "\n")
    return file


def numbers(file: Path, count: int = 120) -> Path:
    """Write a csv of texts and numbers, whose column is found by its cells alone, beside numbers
    of the rows.
    """
    rows = [f'{row},"{text}",{len(text) / 7:.3f}' for row, text in enumerate(texts(count))]
    file.write_text("\n".join(["id,text,weight", *rows]) + "\n")
    return file


def tags(file: Path, count: int = 120) -> Path:
    rows = [text.split() for text in texts(count)]
    return jsonl(
        file,
        [
            {"tokens": row, "ner_tags": ["O" if len(word) < 5 else "B-X" for word in row]}
            for row in rows
        ],
    )


def messages(file: Path, count: int = 120) -> Path:
    rows = []
    for row, text in enumerate(texts(count)):
        turns = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": " ".join(text.split()[:2])},
        ]
        rows.append({"messages": turns * (1 + row % 2)})
    return jsonl(file, rows)
