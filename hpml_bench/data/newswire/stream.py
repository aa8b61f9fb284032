"""The unlabelled stream a backbone is pretrained on: documents and background lines, no labels."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from hpml_bench.data.newswire.documents import render, sample, slots
from hpml_bench.data.newswire.vocabulary import BACKGROUND, ROLES
from hpml_bench.data.newswire.world import BEAT_NAMES, ENTITIES, N_BEATS, World


def stream(world: World, n: int, rng: np.random.Generator, *, stay: float = 0.1, background: float = 0.6) -> list[str]:
    """Return `n` texts in order.

    Args:
        world: the world that the texts are about.
        n: number of texts.
        rng: the random generator.
        stay: chance that a text keeps the beat of the one before it. It makes the state at the end of a text useful
            for the next one: with 0 a frozen backbone's last state predicts little, and with 0.25 much.
        background: share of background lines; the others are like the labelled documents.

    """
    beats = beat_chain(n, rng, stay)
    is_background = rng.random(n) < background
    lines = iter(_background(world, beats[is_background], rng))
    documents = iter(render(world, sample(world, beats[~is_background], rng)))
    return [next(lines if line else documents) for line in is_background]


def beat_chain(n: int, rng: np.random.Generator, stay: float) -> NDArray[np.int64]:
    """Return beats that stay with chance `stay` and else are drawn anew, shape [n]."""
    fresh = (rng.random(n) * N_BEATS).astype(np.int64)
    moves = rng.random(n) >= stay
    moves[:1] = True
    latest = np.maximum.accumulate(np.where(moves, np.arange(n), 0))
    return fresh[latest]


def _background(world: World, beats: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    """Return one line of each given beat, with names of that beat only."""
    frames = [(slots(frame), re.sub(r"\{\w+\}", "%s", frame)) for frame in BACKGROUND]
    width = max(len(kinds) for kinds, _ in frames)
    which = (rng.random(len(beats)) * len(frames)).astype(np.int64)
    uniform = rng.random((len(beats), width))
    texts = []
    for beat, frame, draws in zip(beats.tolist(), which.tolist(), uniform, strict=True):
        kinds, text = frames[frame]
        filled = []
        for kind, u in zip(kinds, draws.tolist(), strict=False):
            if kind in ENTITIES:
                filled.append(world.name(kind, beat, u))
            else:
                filled.append(BEAT_NAMES[beat] if kind == "beat" else ROLES[int(u * len(ROLES))])
        line = text % tuple(filled)
        texts.append(line[0].upper() + line[1:])
    return texts
