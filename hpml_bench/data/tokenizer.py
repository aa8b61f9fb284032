"""The backbone's own tokenizer, and how it ends and pads a text."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hpml_bench.errors import UserError
from hpml_bench.system.hashing import digest


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the fast tokenizer that lies beside a model, padding and cutting on the right.

    Raises:
        UserError: there is none.

    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: holds no tokenizer that can be read (tokenizer.json): {reason}") from None
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: the tokenizer is not a fast one; save it with a tokenizer.json")
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:  # what transformers makes up where no file is
        raise UserError(f"{folder}: holds no tokenizer (tokenizer.json) that knows any token")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    # What the file says of padding and cutting is no part of its digest: we say that ourselves.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def end_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the end token that must be appended to each text; None where the tokenizer ends texts itself.

    BERT's ends with [SEP]; GPT-2's and Llama's add nothing at the end.
    """
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    ends_itself = tokenizer("a")["input_ids"][-len(bare) :] != bare
    return None if ends_itself else tokenizer.eos_token_id


def pad_id(tokenizer: PreTrainedTokenizerFast, vocabulary: int | None) -> int:
    """Return the padding token, else the end token: masked everywhere, it only has to have an embedding."""
    known = (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None)
    return next((i for i in known if vocabulary is None or i < vocabulary), 0)


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the SHA-256 of all that decides which ids a text becomes."""
    return digest([tokenizer.backend_tokenizer.to_str(), end_id(tokenizer)], 64)
