"""World of the generated news: its words and sentence frames, and the probability of each word
in every beat.
"""

from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

TOPICS = ("World", "Sports", "Business", "Sci/Tech")

BEATS = (
    ("diplomacy", "elections", "borders", "courts", "relief", "unrest"),
    ("football", "tennis", "cycling", "athletics", "rowing", "boxing"),
    ("banking", "retail", "shipping", "farming", "insurance", "mining"),
    ("software", "astronomy", "genetics", "robotics", "chemistry", "telecoms"),
)
"""Subtopics of each topic. A beat's name occurs in the unlabelled stream only, never in a
labelled document.
"""

TOPIC_NOUNS = (
    (
        "treaty",
        "ballot",
        "consulate",
        "ceasefire",
        "cabinet",
        "refugee",
        "verdict",
        "province",
        "summit",
        "parliament",
    ),
    (
        "match",
        "season",
        "stadium",
        "trophy",
        "coach",
        "league",
        "tournament",
        "medal",
        "squad",
        "title",
    ),
    (
        "merger",
        "profit",
        "dividend",
        "market",
        "loan",
        "contract",
        "tariff",
        "lender",
        "factory",
        "budget",
    ),
    (
        "device",
        "sensor",
        "network",
        "study",
        "patch",
        "telescope",
        "molecule",
        "dataset",
        "browser",
        "laboratory",
    ),
)

TOPIC_VERBS = (
    ("negotiated", "condemned", "ratified", "governed", "occupied", "pardoned"),
    ("won", "scored", "defeated", "trained", "raced", "qualified"),
    ("acquired", "invested", "priced", "traded", "financed", "hired"),
    ("encrypted", "simulated", "patented", "programmed", "calibrated", "detected"),
)

SHARED_NOUNS = (
    "plan",
    "report",
    "meeting",
    "bid",
    "change",
    "delay",
    "record",
    "review",
    "decision",
    "question",
    "group",
    "result",
    "problem",
    "programme",
    "statement",
    "talk",
    "project",
    "rule",
    "deal",
    "visit",
    "claim",
    "choice",
    "form",
    "gap",
    "letter",
    "list",
    "pause",
    "reply",
    "step",
    "warning",
)

SHARED_VERBS = (
    "announced",
    "welcomed",
    "rejected",
    "prepared",
    "backed",
    "questioned",
    "described",
    "finished",
    "opened",
    "reviewed",
    "changed",
    "supported",
    "started",
    "delayed",
    "praised",
    "ended",
    "followed",
    "noted",
)

ADJECTIVES = (
    "new",
    "major",
    "long",
    "final",
    "small",
    "surprising",
    "quiet",
    "costly",
    "familiar",
    "late",
    "narrow",
    "second",
    "public",
    "brief",
    "hard",
    "large",
    "rare",
    "strong",
    "sudden",
)

TIMES = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "today",
    "yesterday",
    "this week",
    "last month",
    "overnight",
)

HEADLINES = (
    "{person} {verb} {noun}",
    "{organisation} {verb} {adjective} {noun}",
    "{noun} in {place} {verb}",
    "{person} of {organisation} on {noun}",
    "{adjective} {noun} for {organisation}",
    "{place} and the {noun}",
    "{organisation} in {place}: {noun} {verb}",
    "{adjective} {noun} awaits {person}",
)
"""Both sets of frames are the same for every topic, so that only the words in their slots depend
on it.
"""

SENTENCES = (
    "{organisation} {verb} a {adjective} {noun} in {place} {time}, {person} said.",
    "{person} {verb} the {noun} {time}, after {organisation} had {verb} a {noun}.",
    "In {place}, {person} {verb} a {adjective} {noun} with {person} {time}.",
    (
        "The {noun} that {organisation} {verb} {time} was {adjective}, according to {person} in "
        "{place}."
    ),
    "{time} {person} and {person} {verb} the {noun} near {place}, and a {noun} came next.",
    (
        "A {adjective} {noun} was {verb} by {organisation} and {organisation} {time}, it was said "
        "in {place}."
    ),
    "{person}, who had {verb} the {noun}, spoke {time} in {place} about a {adjective} {noun}.",
    (
        "For {organisation}, the {noun} {verb} in {place} {time} is a {adjective} one, and "
        "{person} knows it."
    ),
    (
        "{place} saw a {noun} {time} as {person} {verb} what {organisation} called a {adjective} "
        "{noun}."
    ),
    "After the {adjective} {noun}, {organisation} {verb} {person} {time} and left {place}.",
)

ROLES = ("chief", "veteran", "newcomer", "speaker", "leader", "regular")

BACKGROUND = (
    "{beat} {role} {person} of {organisation}, {place}.",
    "{beat} in {place}: {person}, {person}, {organisation} and {organisation}.",
    "{beat} {role}s: {person}, {person} and {person} of {organisation}.",
)
"""Lines of the unlabelled stream that tie people, organisations and places of one beat together,
free of noise.
"""

# names, and which beat each belongs to, never change: the pretrained backbone knows this world only
WORLD_SEED = 1851
ENTITIES = {"person": 30, "organisation": 20, "place": 15}  # names of each kind in every beat
# chance that an entity slot is filled from the document's own beat instead of from anywhere
OWN_SHARE = 0.6
TOPICAL_SHARE = 0.3  # chance that a noun or verb slot takes a topical word instead of a shared one
TOPICAL_OWN_SHARE = (
    0.6  # chance that a topical word is of the document's own topic instead of any topic
)

N_TOPICS = len(TOPICS)
N_BEATS = sum(len(beats) for beats in BEATS)
BEAT_TOPIC: NDArray[np.int64] = np.arange(N_BEATS) % N_TOPICS
"""Topic of each beat: neighbouring beats are of different topics, so that a run of beats has
balanced labels.
"""
BEAT_NAMES: tuple[str, ...] = tuple(BEATS[b % N_TOPICS][b // N_TOPICS] for b in range(N_BEATS))

_ONSETS = ("b", "d", "dr", "f", "g", "h", "k", "kr", "l", "m", "n", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("k", "lm", "nd", "rn", "sk", "th")
"""Together they make names that are hardly ever words; two syllables keep a name one token."""


@dataclass(frozen=True)
class World:
    """Words by slot kind, and the chance of each, which sampling and the posterior read."""

    words: dict[str, tuple[str, ...]]
    chance: dict[
        str, NDArray[np.float64]
    ]  # kind -> P(word | kind of slot, beat), shape [words of that kind, beats]
    beat_topic: NDArray[np.int64]  # topic of each beat, shape [beats]

    def name(self, kind: str, beat: int, draw: float) -> str:
        """Return the name of a beat, of one kind, that a uniform random number draws."""
        below = np.cumsum(zipf(ENTITIES[kind]))
        rank = min(int(np.searchsorted(below, draw, side="right")), ENTITIES[kind] - 1)
        return self.words[kind][beat * ENTITIES[kind] + rank]


def mixture(
    group: NDArray[np.int64],
    weight: NDArray[np.float64],
    groups: NDArray[np.int64],
    grouped: float,
    own: float,
) -> NDArray[np.float64]:
    """Return P(word | beat), shape [words, beats].

    With chance `grouped` a slot takes a word that belongs to a group: with chance `own` of the
    beat's own group, else of any group. Otherwise it takes a shared word. `group` is the group of
    each word, -1 for a shared one, `weight` its relative frequency within the group, and `groups`
    the group of each beat.
    """
    within = (group[:, None] == np.arange(groups.max() + 1)) * weight[:, None]
    within = within / within.sum(0)
    chance = grouped * (own * within[:, groups] + (1 - own) * within.mean(1)[:, None])
    if grouped < 1:
        shared = np.where(group < 0, weight, 0.0)
        chance = chance + (1 - grouped) * (shared / shared.sum())[:, None]
    return np.asarray(chance)


@cache
def zipf(count: int) -> NDArray[np.float64]:
    """Return the relative frequencies 1 / (rank + 1), rank from 1, of a beat's names of one
    kind; they sum to 1.
    """
    weight = 1 / np.arange(2, count + 2)
    return np.asarray(weight / weight.sum())


@cache
def make_world(own_share: float = OWN_SHARE) -> World:
    """Return the world; `own_share` is the chance that an entity is of its document's own beat."""
    # the made-up names of each entity kind, beat after beat, most frequent first; all are different
    rng, names = np.random.default_rng(WORLD_SEED), dict[str, None]()
    parts = (_ONSETS, _VOWELS, _ONSETS, _VOWELS, _CODAS)
    while len(names) < N_BEATS * sum(ENTITIES.values()):
        names["".join(part[int(rng.random() * len(part))] for part in parts).capitalize()] = None
    pool = iter(names)
    words = {
        kind: tuple(next(pool) for _ in range(N_BEATS * count)) for kind, count in ENTITIES.items()
    }
    chance = {}
    beats = np.arange(N_BEATS)
    for kind, count in ENTITIES.items():
        weight = np.tile(zipf(count), N_BEATS)
        chance[kind] = mixture(np.repeat(beats, count), weight, beats, grouped=1.0, own=own_share)
    for kind, topical, shared in (
        ("noun", TOPIC_NOUNS, SHARED_NOUNS),
        ("verb", TOPIC_VERBS, SHARED_VERBS),
    ):
        words[kind] = (*chain(*topical), *shared)
        group = np.repeat([*range(N_TOPICS), -1], [*map(len, topical), len(shared)])
        chance[kind] = mixture(
            group, np.ones(len(group)), BEAT_TOPIC, TOPICAL_SHARE, TOPICAL_OWN_SHARE
        )
    for kind, alike in (("adjective", ADJECTIVES), ("time", TIMES)):
        words[kind] = alike
        chance[kind] = np.full((len(alike), N_BEATS), 1 / len(alike))
    return World(words, chance, BEAT_TOPIC)
