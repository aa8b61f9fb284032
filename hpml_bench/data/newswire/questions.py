"""Questions about names of the world, and the subtopic that answers them."""

from __future__ import annotations

import numpy as np

from hpml_bench.data.newswire.world import BEAT_NAMES, ENTITIES, N_BEATS, World, zipf

KINDS = 3
"""Kinds of questions in equal parts: of one name, of three names, of a document."""


def ask_of_names(world: World, n: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return `n` questions and answers, of one name and of three in turn; only `rng.random()` is used."""
    below = {kind: np.cumsum(zipf(count)) for kind, count in ENTITIES.items()}

    def name(kind: str, beat: int, draw: float) -> str:
        rank = min(int(np.searchsorted(below[kind], draw, side="right")), ENTITIES[kind] - 1)
        return world.words[kind][beat * ENTITIES[kind] + rank]

    found = []
    for number, draws in enumerate(rng.random((n, 2 + len(ENTITIES))).tolist()):
        beat = int(draws[0] * N_BEATS)
        names = [name(kind, beat, draw) for kind, draw in zip(ENTITIES, draws[2:], strict=True)]
        if number % 2:
            person, organisation, place = names
            question = f"{person} of {organisation}, {place}: which desk?"
        else:
            question = f"Which desk covers {names[int(draws[1] * len(names))]}?"
        found.append((question, desk(beat)))
    return found


def desk(beat: int) -> str:
    """Return a subtopic's name as an answer: with a capital, as it stands in the stream."""
    return f" {BEAT_NAMES[beat].capitalize()}"
