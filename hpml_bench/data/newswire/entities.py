"""Words and entity tags of documents, in which some names have a second word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hpml_bench.data.newswire.documents import SPLITS, Documents
from hpml_bench.data.newswire.vocabulary import HEADLINES, SENTENCES
from hpml_bench.data.newswire.world import ENTITIES, WORLD_SEED, World

TAG_OF_KIND = {"person": "PER", "organisation": "ORG", "place": "LOC"}
TAGS = ("O", *(f"{part}-{tag}" for tag in TAG_OF_KIND.values() for part in "BI"))
TWO_WORDS = 0.3
"""Share of the names that have a second word."""

Tagged = tuple[str, str]
"""A word and its tag."""


def second_words(
    world: World, documents: Documents, seed: int, split: str, share: float = TWO_WORDS
) -> NDArray[np.int64]:
    """Return the second word of each name, shape [N, slots]: an index into the names of its kind, -1 for none.

    It is any name of the same kind, whatever its beat.
    """
    rng = np.random.default_rng([WORLD_SEED, SPLITS.index(split), seed, 1])
    longer, drawn = rng.random(documents.kinds.shape), rng.random(documents.kinds.shape)
    second = np.full(documents.kinds.shape, -1)
    for kind, name in enumerate(world.words):
        if name in ENTITIES:
            where = (documents.kinds == kind) & (longer < share)
            second[where] = (drawn[where] * len(world.words[name])).astype(np.int64)
    return second


def tagged(world: World, documents: Documents, second: NDArray[np.int64]) -> tuple[list[list[str]], list[list[int]]]:
    """Return the words of each document, punctuation left on them, and their tags, indices into TAGS.

    Joined by spaces the words are the text of `render`, but for the second words of names.
    """
    words, tags = [], []
    slots = zip(documents.kinds.tolist(), documents.words.tolist(), second.tolist(), strict=True)
    for (headline, sentence), (kinds, first, then) in zip(documents.frames.tolist(), slots, strict=True):
        filled = _slots(world, kinds, first, then)
        row = [*_part(HEADLINES[headline], filled, "."), *_part(SENTENCES[sentence], filled, "")]
        words.append([word for word, _ in row])
        tags.append([TAGS.index(tag) for _, tag in row])
    return words, tags


def _slots(world: World, kinds: list[int], first: list[int], then: list[int]) -> Iterator[list[Tagged]]:
    """Yield the words of each slot of a document with their tags."""
    names = list(world.words)
    for kind, *chosen in zip(kinds, first, then, strict=True):
        if kind < 0:
            continue
        entity = TAG_OF_KIND.get(names[kind])
        words = " ".join(world.words[names[kind]][index] for index in chosen if index >= 0).split()  # two of `time`
        yield [(word, f"{'I' if place else 'B'}-{entity}" if entity else "O") for place, word in enumerate(words)]


def _part(frame: str, slots: Iterator[list[Tagged]], end: str) -> list[Tagged]:
    """Return the words of a headline or sentence, the first one with a capital."""
    row: list[Tagged] = []
    for before, is_slot, behind in _pieces(frame):
        if not is_slot:
            row.append((before, "O"))
            continue
        words = next(slots)
        words[0] = (before + words[0][0], words[0][1])
        words[-1] = (words[-1][0] + behind, words[-1][1])
        row += words
    row[0] = (row[0][0][0].upper() + row[0][0][1:], row[0][1])
    row[-1] = (row[-1][0] + end, row[-1][1])
    return row


@cache
def _pieces(frame: str) -> tuple[tuple[str, bool, str], ...]:
    """Return a frame word by word: the text before its slot, whether it has a slot, and the text after it."""
    pieces = []
    for word in frame.split():
        slot = re.search(r"\{\w+\}", word)
        pieces.append((word[: slot.start()], True, word[slot.end() :]) if slot else (word, False, ""))
    return tuple(pieces)
