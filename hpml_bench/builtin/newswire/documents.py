"""A made-up news world: labelled documents, an unlabelled stream, and the exact posterior. Numpy
alone.

Four topics have six beats each; every beat has its own people, organisations and places, whose
names say nothing about it. A labelled document of a beat mentions mostly, but not only, its
entities, so classes overlap; since all probabilities are known, so is the best possible accuracy.
The unlabelled stream shows which beat each name belongs to: a model pretrained on it needs few
labels.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hpml_bench.builtin.newswire.world import (
    BACKGROUND,
    BEAT_NAMES,
    BEAT_TOPIC,
    ENTITIES,
    HEADLINES,
    N_BEATS,
    N_TOPICS,
    OWN_SHARE,
    ROLES,
    SENTENCES,
    WORLD_SEED,
    World,
)
from hpml_bench.suite.base import Frozen

SPLITS = ("train", "validation", "test", "stream", "check")  # each with its own random generator


class WorldOptions(Frozen):
    """Options of the generator."""

    own_share: float = Field(default=OWN_SHARE, ge=0, le=1)
    """Chance that a name in a document belongs to the document's own subtopic: lower makes
    subtopics overlap more. The embedded backbone was pretrained at the default.
    """


@dataclass(frozen=True)
class Documents:
    """N documents: a headline frame and a sentence frame each, and the words in their slots (-1:
    no slot).
    """

    frames: NDArray[np.int64]  # shape [N, 2]: index into HEADLINES and SENTENCES
    words: NDArray[np.int64]  # shape [N, slots]: index into the words of the slot's kind
    kinds: NDArray[np.int64]  # shape [N, slots]: index of the slot's kind in the world's `words`
    topic: NDArray[np.int64]  # shape [N]: the label


def slots(frame: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", frame)


def split_rng(seed: int, split: str) -> np.random.Generator:
    return np.random.default_rng([WORLD_SEED, SPLITS.index(split), seed])


def generate(world: World, n: int, seed: int, split: str) -> Documents:
    rng = split_rng(seed, split)
    return sample(world, balanced_beats(n, rng), rng)


def balanced_beats(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return `n` beats as balanced as `n` allows, in random order."""
    return np.asarray(np.arange(n)[np.argsort(rng.random(n), kind="stable")] % N_BEATS)


def sample(world: World, beats: NDArray[np.int64], rng: np.random.Generator) -> Documents:
    """Draw one document of each given beat; only `rng.random()` is used, whose values numpy
    keeps stable.
    """
    parts, names = (HEADLINES, SENTENCES), list(world.words)
    frames = np.stack(
        [(rng.random(len(beats)) * len(part)).astype(np.int64) for part in parts], axis=1
    )
    tables = [[[names.index(kind) for kind in slots(frame)] for frame in part] for part in parts]
    padded = [
        np.array([row + [-1] * (max(map(len, table)) - len(row)) for row in table])
        for table in tables
    ]
    kinds = np.concatenate([table[frames[:, i]] for i, table in enumerate(padded)], axis=1)
    uniform = rng.random(kinds.shape)
    words = np.full(kinds.shape, -1)
    for k, name in enumerate(names):
        below = np.cumsum(world.chance[name], axis=0)
        for beat in range(below.shape[1]):
            where = (kinds == k) & (beats == beat)[:, None]
            drawn = np.searchsorted(below[:, beat], uniform[where], side="right")
            words[where] = np.minimum(drawn, len(below) - 1)  # the last sum can be 1 - 1e-16
    return Documents(frames, words, kinds, world.beat_topic[beats])


def render(world: World, documents: Documents) -> list[str]:
    """Return the texts: headline, full stop, sentence."""
    words, _ = tagged(world, documents, np.full(documents.kinds.shape, -1))
    return list(map(" ".join, words))


def posterior(world: World, documents: Documents) -> NDArray[np.float64]:
    """Return P(topic | document), exact, shape [N, topics]: the sum over the topic's beats."""
    return np.asarray(
        beat_posterior(world, documents) @ np.eye(world.beat_topic.max() + 1)[world.beat_topic]
    )


def beat_posterior(world: World, documents: Documents) -> NDArray[np.float64]:
    """Return P(beat | document), exact, shape [N, beats].

    Beats are equally likely, frames don't depend on them, and slots are independent: a product of
    P(word | beat).
    """
    log_likelihood = np.zeros((len(documents.words), len(world.beat_topic)))
    for k, name in enumerate(world.words):
        log_chance = np.log(np.maximum(world.chance[name], 1e-300))
        for slot in range(documents.words.shape[1]):
            where = documents.kinds[:, slot] == k
            log_likelihood[where] += log_chance[documents.words[where, slot]]
    likelihood = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    return np.asarray(likelihood / likelihood.sum(1, keepdims=True))


def best_accuracy(world: World, documents: Documents) -> tuple[float, float]:
    """Return the best possible accuracy: on these rows, and expected over all documents (mean
    largest posterior).
    """
    belief = posterior(world, documents)
    return float((belief.argmax(1) == documents.topic).mean()), float(belief.max(1).mean())


# Entities


TAG_OF_KIND = {"person": "PER", "organisation": "ORG", "place": "LOC"}
TAGS = ("O", *(f"{part}-{tag}" for tag in TAG_OF_KIND.values() for part in "BI"))
TWO_WORDS = 0.3  # share of the names that have a second word
Tagged = tuple[str, str]


def second_words(
    world: World, documents: Documents, seed: int, split: str, share: float = TWO_WORDS
) -> NDArray[np.int64]:
    """Return the second word of each name, of any beat: an index into the names of its kind, or
    -1; [N, slots].
    """
    rng = np.random.default_rng([WORLD_SEED, SPLITS.index(split), seed, 1])
    longer, drawn = rng.random(documents.kinds.shape), rng.random(documents.kinds.shape)
    second = np.full(documents.kinds.shape, -1)
    for kind, name in enumerate(world.words):
        if name in ENTITIES:
            where = (documents.kinds == kind) & (longer < share)
            second[where] = (drawn[where] * len(world.words[name])).astype(np.int64)
    return second


def tagged(
    world: World, documents: Documents, second: NDArray[np.int64]
) -> tuple[list[list[str]], list[list[int]]]:
    """Return each document's words, punctuation left on them, and their tags, indices into TAGS."""
    rows, names = [], list(world.words)

    def filled(kind: int, *chosen: int) -> list[Tagged]:
        entity = TAG_OF_KIND.get(names[kind])
        words = " ".join(
            world.words[names[kind]][index] for index in chosen if index >= 0
        ).split()  # two of `time`
        return [
            (word, f"{'I' if place else 'B'}-{entity}" if entity else "O")
            for place, word in enumerate(words)
        ]

    chosen = zip(documents.kinds.tolist(), documents.words.tolist(), second.tolist(), strict=True)
    for (headline, sentence), of_slots in zip(documents.frames.tolist(), chosen, strict=True):
        words = (filled(*slot) for slot in zip(*of_slots, strict=True) if slot[0] >= 0)
        rows.append(
            [*_part(HEADLINES[headline], words, "."), *_part(SENTENCES[sentence], words, "")]
        )
    return [[word for word, _ in row] for row in rows], [
        [TAGS.index(tag) for _, tag in row] for row in rows
    ]


def _part(frame: str, filled: Iterator[list[Tagged]], end: str) -> list[Tagged]:
    """Return the words of a headline or sentence, the first one with a capital."""
    row: list[Tagged] = []
    for word in frame.split():
        before, *behind = re.split(r"\{\w+\}", word)
        words = next(filled) if behind else [("", "O")]
        words[0] = (before + words[0][0], words[0][1])
        words[-1] = (words[-1][0] + "".join(behind), words[-1][1])
        row += words
    row[0] = (row[0][0][0].upper() + row[0][0][1:], row[0][1])
    row[-1] = (row[-1][0] + end, row[-1][1])
    return row


# Numbers


NOISE = 0.25  # standard deviation of the noise, which no text reveals
LEVELS: NDArray[np.float64] = 2.0 * BEAT_TOPIC + (np.arange(N_BEATS) // N_TOPICS) / 5
"""Level of each beat: 2 apart from topic to topic, and from 0 to 1 over the beats of a topic."""


def noisy_levels(
    beats: NDArray[np.int64], seed: int, split: str, noise: float = NOISE
) -> NDArray[np.float64]:
    """Return a number for each document, [N]: its beat's level plus normal noise, by Box and Muller
    (1958).

    It is made of `rng.random()`, whose values numpy keeps stable, and rounded, as a logarithm's
    last bits aren't.
    """
    rng = np.random.default_rng([WORLD_SEED, SPLITS.index(split), seed, 2])
    radius, angle = rng.random(len(beats)), rng.random(len(beats))
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return np.asarray(np.round(LEVELS[beats] + noise * normal, 4))


def best_rmse(
    world: World, documents: Documents, numbers: NDArray[np.float64], noise: float = NOISE
) -> tuple[float, float]:
    """Return the RMSE of the best possible guess, the posterior mean: on these rows, and expected
    over all documents.

    Its expected squared error is the posterior variance plus the noise's.
    """
    belief = beat_posterior(world, documents)
    mean = belief @ LEVELS
    variance = belief @ LEVELS**2 - mean**2
    return float(np.sqrt(np.mean((numbers - mean) ** 2))), float(
        np.sqrt(variance.mean() + noise**2)
    )


# The unlabelled stream


def stream(
    world: World, n: int, rng: np.random.Generator, *, stay: float = 0.1, background: float = 0.6
) -> list[str]:
    """Return `n` texts in order: a share of `background` lines, the others like the labelled
    documents.

    `stay` is the chance that a text keeps the beat of the one before it. It makes the state at the
    end of a text useful for the next one: with 0 a frozen backbone's last state predicts little,
    and with 0.25 much.
    """
    beats = beat_chain(n, rng, stay)
    is_background = rng.random(n) < background
    frames = [(slots(frame), re.sub(r"\{\w+\}", "%s", frame)) for frame in BACKGROUND]
    own = beats[is_background]  # of a line in the background, which has names of that beat only
    which = (rng.random(len(own)) * len(frames)).astype(np.int64)
    uniform = rng.random((len(own), max(len(kinds) for kinds, _ in frames)))

    def filled(kind: str, beat: int, draw: float) -> str:
        if kind in ENTITIES:
            return world.name(kind, beat, draw)
        return BEAT_NAMES[beat] if kind == "beat" else ROLES[int(draw * len(ROLES))]

    texts = []
    for beat, (kinds, text), draws in zip(
        own.tolist(), (frames[at] for at in which), uniform.tolist(), strict=True
    ):
        line = text % tuple(
            filled(kind, beat, draw) for kind, draw in zip(kinds, draws, strict=False)
        )
        texts.append(line[0].upper() + line[1:])
    lines = iter(texts)
    documents = iter(render(world, sample(world, beats[~is_background], rng)))
    return [next(lines if line else documents) for line in is_background]


def beat_chain(n: int, rng: np.random.Generator, stay: float) -> NDArray[np.int64]:
    """Return beats that stay with chance `stay` and else are drawn anew, shape [n]."""
    fresh = (rng.random(n) * N_BEATS).astype(np.int64)
    moves = rng.random(n) >= stay
    moves[:1] = True
    latest = np.maximum.accumulate(np.where(moves, np.arange(n), 0))
    return fresh[latest]
