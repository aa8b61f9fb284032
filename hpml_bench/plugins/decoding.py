"""Texts of generated answers, from their token ids."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hpml_bench.plugins.task import Decode, Scaffold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def decoder(tokenizer: PreTrainedTokenizerFast, scaffold: Scaffold) -> Decode:
    """Return a function from an answer's token ids to its text, without special tokens, scaffold and reasoning."""

    def read(tokens: list[int], *, skip: bool = True) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=skip, clean_up_tokenization_spaces=False))

    def decode(tokens: list[int]) -> str:
        text, begin = read(tokens), scaffold.begin(read(tokens, skip=False))
        if begin:
            place = bisect_left(range(len(tokens)), begin, key=lambda count: len(read(tokens[:count], skip=False)))
            text = text[len(read(tokens[:place])) :].lstrip()
        return text.partition(scaffold.after)[0] if scaffold.after else text

    return decode
