"""The fixed world: its words, and the probability of each in a document of each beat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hpml_bench.data.newswire import vocabulary as v

WORLD_SEED = 1851
"""Names, and which beat each belongs to, never change: the pretrained backbone knows this world only."""
ENTITIES = {"person": 30, "organisation": 20, "place": 15}
"""Names of each kind in every beat."""
OWN_SHARE = 0.6
"""Chance that an entity slot is filled from the document's own beat instead of from anywhere."""
TOPICAL_SHARE = 0.3
"""Chance that a noun or verb slot takes a topical word instead of a shared one."""
TOPICAL_OWN_SHARE = 0.6
"""Chance that a topical word is of the document's own topic instead of any topic."""

N_TOPICS = len(v.TOPICS)
N_BEATS = sum(len(beats) for beats in v.BEATS)
BEAT_TOPIC: NDArray[np.int64] = np.arange(N_BEATS) % N_TOPICS
"""Topic of each beat: neighbouring beats are of different topics, so that a run of beats has balanced labels."""
BEAT_NAMES: tuple[str, ...] = tuple(v.BEATS[b % N_TOPICS][b // N_TOPICS] for b in range(N_BEATS))

_ONSETS = ("b", "d", "dr", "f", "g", "h", "k", "kr", "l", "m", "n", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("k", "lm", "nd", "rn", "sk", "th")
"""Together they make names that are hardly ever words; two syllables keep a name one token."""


@dataclass(frozen=True)
class World:
    """Words by slot kind, and the chance of each.

    `chance[kind]` has shape [words of that kind, beats]; each column sums to 1: P(word | kind of slot, beat). Sampling
    and the posterior read the same numbers; apart from its words a document has frames alone.
    """

    words: dict[str, tuple[str, ...]]
    chance: dict[str, NDArray[np.float64]]
    beat_topic: NDArray[np.int64]
    """Topic of each beat, shape [beats]."""

    def name(self, kind: str, beat: int, draw: float) -> str:
        """Return the name of a beat, of one kind, that a uniform random number draws."""
        rank = min(int(np.searchsorted(_below(kind), draw, side="right")), ENTITIES[kind] - 1)
        return self.words[kind][beat * ENTITIES[kind] + rank]


def mixture(
    group: NDArray[np.int64], weight: NDArray[np.float64], groups: NDArray[np.int64], grouped: float, own: float
) -> NDArray[np.float64]:
    """Return P(word | beat), shape [words, beats].

    With chance `grouped` a slot takes a word that belongs to a group: with chance `own` of the beat's own group, else
    of any group. Otherwise it takes a shared word. `group` is the group of each word, -1 for a shared one, `weight` its
    relative frequency within the group, and `groups` the group of each beat.
    """
    every = np.unique(group[group >= 0])
    member = group[:, None] == every[None, :]
    within = member * weight[:, None]
    within = within / np.maximum(within.sum(0), 1e-300)
    chance = np.zeros((len(group), len(groups)))
    if grouped > 0:
        anywhere = within.mean(1)
        mine = within[:, np.searchsorted(every, groups)]
        chance += grouped * (own * mine + (1 - own) * anywhere[:, None])
    if grouped < 1:
        shared = np.where(group < 0, weight, 0.0)
        chance += (1 - grouped) * (shared / shared.sum())[:, None]
    return chance


def zipf(count: int) -> NDArray[np.float64]:
    """Return the relative frequencies 1 / (rank + 1), rank from 1, of a beat's names of one kind; they sum to 1."""
    weight = 1 / np.arange(2, count + 2)
    return np.asarray(weight / weight.sum())


@cache
def _below(kind: str) -> NDArray[np.float64]:
    """Return the cumulative frequencies of a beat's names of one kind."""
    return np.cumsum(zipf(ENTITIES[kind]))


@cache
def entity_names() -> dict[str, tuple[str, ...]]:
    """Return the made-up names of each entity kind, beat after beat, most frequent first; all are different."""
    rng = np.random.default_rng(WORLD_SEED)
    need = N_BEATS * sum(ENTITIES.values())
    names: dict[str, None] = {}
    while len(names) < need:
        names[_name(rng)] = None
    pool = iter(names)
    return {kind: tuple(next(pool) for _ in range(N_BEATS * count)) for kind, count in ENTITIES.items()}


def _name(rng: np.random.Generator) -> str:
    parts = (_ONSETS, _VOWELS, _ONSETS, _VOWELS, _CODAS)
    return "".join(part[int(rng.random() * len(part))] for part in parts).capitalize()


@cache
def make_world(own_share: float = OWN_SHARE) -> World:
    """Return the world; `own_share` is the chance that an entity is of its document's own beat."""
    words: dict[str, tuple[str, ...]] = dict(entity_names())
    chance = {}
    beats = np.arange(N_BEATS)
    for kind, count in ENTITIES.items():
        weight = np.tile(zipf(count), N_BEATS)
        chance[kind] = mixture(np.repeat(beats, count), weight, beats, grouped=1.0, own=own_share)
    for kind, topical, shared in (("noun", v.TOPIC_NOUNS, v.SHARED_NOUNS), ("verb", v.TOPIC_VERBS, v.SHARED_VERBS)):
        words[kind] = (*chain(*topical), *shared)
        group = np.repeat([*range(N_TOPICS), -1], [*map(len, topical), len(shared)])
        chance[kind] = mixture(group, np.ones(len(group)), BEAT_TOPIC, TOPICAL_SHARE, TOPICAL_OWN_SHARE)
    for kind, alike in (("adjective", v.ADJECTIVES), ("time", v.TIMES)):
        words[kind] = alike
        chance[kind] = np.full((len(alike), N_BEATS), 1 / len(alike))
    return World(words, chance, BEAT_TOPIC)
