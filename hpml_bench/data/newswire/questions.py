"""Questions about names of the world, with the subtopic as the answer."""

from __future__ import annotations

import numpy as np

from hpml_bench.data.newswire.world import BEAT_NAMES, ENTITIES, N_BEATS, World, zipf

KINDS = 3
"""Kinds of questions in equal parts: on one name, on three names, on a document."""


def ask_of_names(world: World, n: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return `n` questions and answers, on one name and on three in turn; only `rng.random()` is used."""
    below = {kind: np.cumsum(zipf(count)) for kind, count in ENTITIES.items()}

    def name(kind: str, beat: int, draw: float) -> str:
        rank = min(int(np.searchsorted(below[kind], draw, side="right")), ENTITIES[kind] - 1)
        return world.words[kind][beat * ENTITIES[kind] + rank]

    pairs = []
    for number, draws in enumerate(rng.random((n, 2 + len(ENTITIES))).tolist()):
        beat = int(draws[0] * N_BEATS)
        names = [name(kind, beat, draw) for kind, draw in zip(ENTITIES, draws[2:], strict=True)]
        if number % 2:
            person, organisation, place = names
            question = f"{person} of {organisation}, {place}: which desk?"
        else:
            question = f"Which desk covers {names[int(draws[1] * len(names))]}?"
        pairs.append((question, desk(beat)))
    return pairs


def desk(beat: int) -> str:
    """Return a subtopic's name as an answer: with a capital, as in the stream."""
    return f" {BEAT_NAMES[beat].capitalize()}"
