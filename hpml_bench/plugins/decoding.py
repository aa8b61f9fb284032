"""Generation of answers: its options, the text that a template writes around answers, and texts
from token ids.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_bench.suite.base import Frozen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Decoding:
    """Rule by which answers are generated, token by token."""

    max_new_tokens: int
    stop: tuple[str, ...] = ()  # texts that end an answer, and are no part of it
    temperature: float = 0.0  # 0: the likeliest token; above 0: sampling
    top_p: float = 1.0  # share of the probability from which tokens are sampled


Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class Generator:
    """Generation of a run's answers: its options, and the decoding of token ids."""

    decoding: Decoding
    stop_ids: tuple[int, ...]
    # function from an answer's token ids to its text: special ones, scaffold and reasoning left out
    decode: Decode
    pad_id: int
    batch: int  # number of prompts in a batch
    seed: int  # seed of the sampling


class Scaffold(Frozen):
    """Text that a chat template writes around the content of an answer, besides its end; it is
    not scored.
    """

    before: str = ""
    """Text between the prompt and the content, such as empty reasoning."""
    after: str = ""
    """Text between the content and the end token; special tokens left out."""
    opening: str = "<think>"
    """Text that begins reasoning after the prompt; white space where the prompt has begun it."""
    closing: str = "</think>"
    """Text that ends reasoning and begins the content."""

    def begin(self, text: str) -> int:
        """Return where the content of a text, with special tokens, begins after reasoning and
        scaffold.

        That is its end where reasoning doesn't end.
        """
        before, opening, closing = self.before.strip(), self.opening.strip(), self.closing.strip()
        if closing in text:
            return text.rindex(closing) + len(closing)
        space = len(text) - len(text.lstrip())
        if before and text.startswith(before, space):
            return space + len(before)
        begun = before.startswith(closing)  # by the prompt
        return len(text) if begun or (opening and text.startswith(opening, space)) else 0

    def content(self, text: str) -> str:
        """Return the content of an answer as it is written in a row: without its reasoning."""
        _, ended, content = text.rpartition(self.closing.strip())
        return content.lstrip() if ended else text


def decoder(tokenizer: PreTrainedTokenizerFast, scaffold: Scaffold) -> Decode:
    """Return a function from an answer's token ids to its text, without special tokens, scaffold
    and reasoning.
    """

    def read(tokens: list[int], *, skip: bool = True) -> str:
        return str(
            tokenizer.decode(tokens, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        )

    def decode(tokens: list[int]) -> str:
        text, begin = read(tokens), scaffold.begin(read(tokens, skip=False))
        if begin:
            place = bisect_left(
                range(len(tokens)), begin, key=lambda count: len(read(tokens[:count], skip=False))
            )
            text = text[len(read(tokens[:place])) :].lstrip()
        return text.partition(scaffold.after)[0] if scaffold.after else text

    return decode
