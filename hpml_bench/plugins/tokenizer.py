"""The backbone's own tokenizer: how it encodes, cuts, ends and pads a text."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hpml_bench.plugins.dataset import SEGMENTS
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_bytes
from hpml_bench.system.text import digest, first_line

SPACES = "▁Ġ"  # signs of a space in tokens: of SentencePiece, and of byte-level BPE


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the fast tokenizer that lies beside a model, padding and cutting on the right.

    Raises UserError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise UserError(
            f"{folder}: holds no tokenizer that can be read (tokenizer.json): {first_line(error)}"
        ) from None
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: the tokenizer is not a fast one; save it with a tokenizer.json")
    if not tokenizer("a", add_special_tokens=False)[
        "input_ids"
    ]:  # transformers makes one up where there is no file
        raise UserError(f"{folder}: holds no tokenizer (tokenizer.json) that knows any token")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    # The file's padding and truncation must not be part of its digest: both are set here.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with the limits of a suite: texts become token ids of at most `max_length`,
    end token included.
    """

    tokenizer: PreTrainedTokenizerFast
    max_length: int
    vocabulary: int | None  # rows of the model's token embeddings, where they are known
    backbone: str  # name of the model in errors
    counts: Counter[str] = field(
        default_factory=Counter
    )  # counts that a task makes of the rows it encodes, by name
    ends: tuple[
        int, ...
    ] = ()  # tokens at which the model's own generation_config.json ends an answer
    segments: bool = (
        False  # whether the model tells the two texts of a pair apart by `token_type_ids`
    )

    def texts(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text; longer ones are cut at the end.

        Raises UserError: tokenizer and model don't belong together, or an empty text gives no
        token.
        """
        ids, _ = self._encode(texts)
        return ids

    def pairs(self, texts: list[str], seconds: list[str]) -> dict[str, list[list[int]]]:
        """Return `input_ids` of pairs with what the tokenizer puts between, and `token_type_ids`
        with `segments`.

        Where it puts nothing there, a line break stands between. Of a pair that is too long the
        longer text is cut. Raises UserError: as `texts`.
        """
        if not separates_pairs(self.tokenizer):
            return {
                "input_ids": self.texts(
                    [f"{one}\n{other}" for one, other in zip(texts, seconds, strict=True)]
                )
            }
        ids, encoded = self._encode(texts, text_pair=seconds, return_token_type_ids=self.segments)
        if not self.segments:
            return {"input_ids": ids}
        types = zip(ids, encoded[SEGMENTS], strict=True)
        return {
            "input_ids": ids,
            SEGMENTS: [[*of, *of[-1:] * (len(row) - len(of))] for row, of in types],
        }

    def words(self, rows: list[list[str]]) -> tuple[list[list[int]], list[list[int]]]:
        """Return the token ids of each row of words, joined by spaces, and for each token the
        number of its word.

        A word's first token has its number; all other tokens, special ones too, have -1. Words
        beyond `max_length` have no token. Raises UserError: as `texts`.
        """
        texts = [" ".join(row) for row in rows]
        ids, encoded = self._encode(texts, return_offsets_mapping=True)
        tokenised = zip(rows, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        numbers = [
            _first_tokens(words, self._without_signs(text, tokens, offsets))
            for words, text, tokens, offsets in tokenised
        ]
        return ids, [
            [*own, *[-1] * (len(row) - len(own))] for row, own in zip(ids, numbers, strict=True)
        ]

    def _without_signs(
        self, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """Return the tokens' characters in a text, none for the bare sign of a space that the
        tokenizer put before a word.
        """
        places: list[tuple[int, int]] = []
        for token, (start, end) in zip(
            self.tokenizer.convert_ids_to_tokens(ids), offsets, strict=True
        ):
            # offsets of a sign that isn't in the text are those of the character behind it
            written = text[start:end].strip().strip(SPACES)
            is_bare_sign = not token.strip(SPACES)
            places.append((0, 0) if is_bare_sign and written else (start, end))
        return places

    def _encode(self, texts: list[str], **more: Any) -> tuple[list[list[int]], Any]:
        """Return the token ids of texts, with the end token, and what the tokenizer returned."""
        end = end_id(self.tokenizer)
        encoded = self.tokenizer(
            texts,
            truncation=True,
            max_length=self.max_length - (end is not None),
            return_attention_mask=False,
            **{"return_token_type_ids": False, **more},
        )
        ids = [row if end is None else [*row, end] for row in encoded["input_ids"]]
        largest = max((max(row, default=0) for row in ids), default=0)
        if self.vocabulary is not None and largest >= self.vocabulary:
            raise UserError(
                f"{self.backbone}: the tokenizer gives token {largest}, but the model has "
                f"{self.vocabulary}; they don't belong together"
            )
        if any(not row for row in ids):
            raise UserError(
                f"{self.backbone}: the tokenizer has no end token, and an empty text gives no "
                f"token at all"
            )
        return ids, encoded


def _first_tokens(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each token, by its characters' place in the words joined by spaces, its word if it
    is its first.

    A token of nothing but the space before a word is none of the word's; one of several words is
    the last one's.
    """
    of_character: list[int] = []
    for place, word in enumerate(words):
        # white space in front of a word is in a token of its own, or in one with what follows
        spaces = len(word) - len(word.lstrip()) if word.strip() else 0
        of_character += [-1] * spaces + [place] * (len(word) - spaces) + [-1]
    numbers, taken = [], -1
    for start, end in offsets:
        number = max(of_character[start:end], default=-1)
        numbers.append(number if number > taken else -1)
        taken = max(number, taken)
    return numbers


def separates_pairs(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Return whether the tokenizer puts a token between the two texts of a pair, as BERT's
    [SEP].
    """
    special = tokenizer.num_special_tokens_to_add
    return bool(special(pair=True) > special(pair=False))


def has_segments(tokenizer: PreTrainedTokenizerFast, config: Mapping[str, Any]) -> bool:
    """Return whether the texts of a pair have `token_type_ids`: the tokenizer gives them and the
    model has several.
    """
    named = SEGMENTS in tokenizer.model_input_names and (config.get("type_vocab_size") or 0) > 1
    return named and separates_pairs(tokenizer)


def end_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the end token that must be appended to each text; None where the tokenizer ends texts
    itself.

    BERT's ends with [SEP]; GPT-2's and Llama's add nothing at the end.
    """
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    ends_itself = tokenizer("a")["input_ids"][-len(bare) :] != bare
    return None if ends_itself else tokenizer.eos_token_id


def generation_ends(folder: Path, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Return the end tokens of a model's generation_config.json, where there is one.

    Ids that are no added tokens of the tokenizer are left out: they are defaults of a class of
    models, not this one's.
    """
    try:
        content = json.loads(read_bytes(folder / "generation_config.json", follow=True))
        value = content["eos_token_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    ids = value if isinstance(value, list) else [value]
    return tuple(token for token in ids if token in tokenizer.added_tokens_decoder)


def pad_id(tokenizer: PreTrainedTokenizerFast, vocabulary: int | None) -> int:
    """Return the padding token, else the end token: masked everywhere, it only has to have an
    embedding.
    """
    known = (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None)
    return next((i for i in known if vocabulary is None or i < vocabulary), 0)


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the SHA-256 of all that decides which ids a text becomes."""
    return digest([tokenizer.backend_tokenizer.to_str(), end_id(tokenizer)], 64)
