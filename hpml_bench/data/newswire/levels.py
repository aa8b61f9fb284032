"""A number for every document: the level of its beat plus noise, and the best possible guess of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpml_bench.data.newswire.documents import SPLITS, Documents, beat_posterior
from hpml_bench.data.newswire.world import BEAT_TOPIC, N_BEATS, N_TOPICS, WORLD_SEED, World

NOISE = 0.25
"""Standard deviation of the noise, which no text reveals."""
LEVELS: NDArray[np.float64] = 2.0 * BEAT_TOPIC + (np.arange(N_BEATS) // N_TOPICS) / 5
"""Level of each beat: 2 apart from topic to topic, and from 0 to 1 over the beats of a topic."""


def noisy_levels(beats: NDArray[np.int64], seed: int, split: str, noise: float = NOISE) -> NDArray[np.float64]:
    """Return a number for each document, [N]: its beat's level plus normal noise.

    The noise is by Box and Muller (1958) from `rng.random()`, whose values numpy keeps stable. Rounded to four
    decimals, since the last bits of a logarithm differ between machines.
    """
    rng = np.random.default_rng([WORLD_SEED, SPLITS.index(split), seed, 2])
    radius, angle = rng.random(len(beats)), rng.random(len(beats))
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return np.asarray(np.round(LEVELS[beats] + noise * normal, 4))


def best_rmse(
    world: World, documents: Documents, numbers: NDArray[np.float64], noise: float = NOISE
) -> tuple[float, float]:
    """Return the RMSE of the best possible guess: on these rows, and expected over all documents.

    The best guess is the posterior mean of the level; its expected squared error is the posterior variance plus
    the noise's.
    """
    belief = beat_posterior(world, documents)
    mean = belief @ LEVELS
    variance = belief @ LEVELS**2 - mean**2
    on_rows = np.sqrt(np.mean((numbers - mean) ** 2))
    return float(on_rows), float(np.sqrt(variance.mean() + noise**2))
