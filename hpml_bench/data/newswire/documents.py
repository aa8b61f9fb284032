"""Labelled documents: sampling, text, and the exact posterior over topics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpml_bench.data.newswire.vocabulary import HEADLINES, SENTENCES
from hpml_bench.data.newswire.world import N_BEATS, WORLD_SEED, World

SPLITS = ("train", "validation", "test", "stream", "check")
"""Splits; each draws its rows with its own random generator."""


@dataclass(frozen=True)
class Documents:
    """N documents: a headline frame and a sentence frame each, and the words in their slots."""

    frames: NDArray[np.int64]
    """Shape [N, 2]: index into HEADLINES and SENTENCES."""
    words: NDArray[np.int64]
    """Shape [N, slots]: index into the words of the slot's kind; -1 where a document has fewer slots."""
    kinds: NDArray[np.int64]
    """Shape [N, slots]: index of the slot's kind in the world's `words`; -1 where there is no slot."""
    topic: NDArray[np.int64]
    """Shape [N]: the label."""


def slots(frame: str) -> list[str]:
    """Return the slot kinds of a frame, in order."""
    return re.findall(r"\{(\w+)\}", frame)


def split_rng(seed: int, split: str) -> np.random.Generator:
    """Return the random generator of one split."""
    return np.random.default_rng([WORLD_SEED, SPLITS.index(split), seed])


def generate(world: World, n: int, seed: int, split: str) -> Documents:
    """Return `n` rows of a split with labels as balanced as `n` allows, in random order."""
    rng = split_rng(seed, split)
    return sample(world, balanced_beats(n, rng), rng)


def balanced_beats(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return `n` beats as balanced as `n` allows, in random order."""
    return np.asarray(np.arange(n)[np.argsort(rng.random(n), kind="stable")] % N_BEATS)


def sample(world: World, beats: NDArray[np.int64], rng: np.random.Generator) -> Documents:
    """Draw one document of each given beat; only `rng.random()` is used, whose values numpy keeps stable."""
    parts, names = (HEADLINES, SENTENCES), list(world.words)
    frames = np.stack([(rng.random(len(beats)) * len(part)).astype(np.int64) for part in parts], axis=1)
    kinds = np.concatenate([_slot_table(part, names)[frames[:, i]] for i, part in enumerate(parts)], axis=1)
    uniform = rng.random(kinds.shape)
    words = np.full(kinds.shape, -1)
    for k, name in enumerate(names):
        below = np.cumsum(world.chance[name], axis=0)
        for beat in range(below.shape[1]):
            where = (kinds == k) & (beats == beat)[:, None]
            drawn = np.searchsorted(below[:, beat], uniform[where], side="right")
            words[where] = np.minimum(drawn, len(below) - 1)  # the last sum can be 1 - 1e-16
    return Documents(frames, words, kinds, world.beat_topic[beats])


def _slot_table(frames: Sequence[str], kinds: list[str]) -> NDArray[np.int64]:
    """Return the slot kinds of every frame, padded with -1, shape [frames, most slots]."""
    rows = [[kinds.index(kind) for kind in slots(frame)] for frame in frames]
    width = max(map(len, rows))
    return np.array([row + [-1] * (width - len(row)) for row in rows])


def render(world: World, documents: Documents) -> list[str]:
    """Return the texts: headline, full stop, sentence."""
    names = list(world.words)
    fill_headline, fill_sentence = ([re.sub(r"\{\w+\}", "%s", f) for f in part] for part in (HEADLINES, SENTENCES))
    texts = []
    for (headline, sentence), kinds, words in zip(
        documents.frames.tolist(), documents.kinds.tolist(), documents.words.tolist(), strict=True
    ):
        filled = [world.words[names[k]][w] for k, w in zip(kinds, words, strict=True) if k >= 0]
        split = fill_headline[headline].count("%s")
        parts = fill_headline[headline] % tuple(filled[:split]), fill_sentence[sentence] % tuple(filled[split:])
        texts.append(". ".join(part[0].upper() + part[1:] for part in parts))
    return texts


def posterior(world: World, documents: Documents) -> NDArray[np.float64]:
    """Return P(topic | document), exact, shape [N, topics]: the sum over the topic's beats."""
    return _normalised(_likelihood(world, documents) @ np.eye(world.beat_topic.max() + 1)[world.beat_topic])


def beat_posterior(world: World, documents: Documents) -> NDArray[np.float64]:
    """Return P(beat | document), exact, shape [N, beats]."""
    return _normalised(_likelihood(world, documents))


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / rows.sum(1, keepdims=True))


def _likelihood(world: World, documents: Documents) -> NDArray[np.float64]:
    """Return P(document | beat) up to a factor per document, shape [N, beats].

    Frames don't depend on the beat and slots are independent given it, so with all beats equally likely P(beat |
    document) is proportional to the product of P(word | beat).
    """
    log_likelihood = np.zeros((len(documents.words), len(world.beat_topic)))
    for k, name in enumerate(world.words):
        log_chance = np.log(np.maximum(world.chance[name], 1e-300))
        for slot in range(documents.words.shape[1]):
            where = documents.kinds[:, slot] == k
            log_likelihood[where] += log_chance[documents.words[where, slot]]
    return np.asarray(np.exp(log_likelihood - log_likelihood.max(1, keepdims=True)))


def best_accuracy(world: World, documents: Documents) -> tuple[float, float]:
    """Return the best possible accuracy: on these rows, and expected over all documents (mean largest posterior)."""
    belief = posterior(world, documents)
    return float((belief.argmax(1) == documents.topic).mean()), float(belief.max(1).mean())
