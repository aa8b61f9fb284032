"""Worlds of methods: what is true of them, and how their answers to test rows and their costs
are drawn.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from hpml_bench.sweep.request import methods_of_seed

Floats = NDArray[np.float64]
Random = np.random.Generator
ROWS = 500
EACH = np.arange(ROWS)  # each test row by itself
MARGIN, MARGIN_COST = 0.01, 0.05
EASE, SEED_SD, LIKING_SD, OWN_SD = 0.9, 0.05, 0.5, 0.3
"""Mean ease of a row, and sd of a seed's skill, of a method's liking of a row, and of a run's
own errors, in standard deviations of the rows' ease.
"""
# by how much the methods at most differ in each row, where they change places from row to row
GIFT = 1.2
COST_SD = 0.02  # standard deviation of the logarithm of a cost, of a method with spread 1
NOISE: Mapping[str, Callable[[Random, tuple[int, ...]], Floats]] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "t3": lambda random, shape: random.standard_t(3, shape) / math.sqrt(3),
    "skewed": lambda random, shape: random.standard_exponential(shape) - 1,
    "tied": lambda random, shape: np.round(random.standard_normal(shape)),
    "two states": lambda random, shape: (
        0.995 * (2.0 * random.integers(2, size=shape) - 1) + 0.1 * random.standard_normal(shape)
    ),
}
"""Noise of mean 0 and, but for `tied` (a grid of one sd, as accuracies of a small test set are),
of variance 1.
"""


def _autoregressive(random: Random, pages: int, runs: int) -> Floats:
    """Return stationary AR(1) noise with coefficient 0.8 and three times a run's own sd."""
    values = random.standard_normal((pages, runs))
    for run in range(1, runs):
        values[:, run] = 0.8 * values[:, run - 1] + 0.6 * values[:, run]
    return 3 * COST_SD * values


def sinusoid(first: float, last: float) -> Callable[[Random, int, int], Floats]:
    """Return a draw of sinusoids of 10 % with a period between two numbers of runs."""

    def drawn(random: Random, pages: int, runs: int) -> Floats:
        period, phase = random.uniform(first, last, (pages, 1)), random.random((pages, 1))
        return np.asarray(0.1 * np.sin(2 * np.pi * (np.arange(runs) / period + phase)))

    return drawn


PERIODS = ((2, 12), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12))
DISTURBANCES: Mapping[str, Callable[[Random, int, int], Floats]] = {
    "drift of 10 % over the sweep": lambda _, pages, runs: np.tile(
        np.linspace(0, 0.1, runs), (pages, 1)
    ),
    "bursts": lambda random, pages, runs: np.where(random.random((pages, runs)) < 0.1, 0.2, 0.0),
    "AR(0.8)": _autoregressive,
    **{
        f"sinusoid of 10 %, period {low} to {high} runs": sinusoid(low, high)
        for low, high in PERIODS
    },
    "sinusoid of 10 %, period near 4 runs": sinusoid(3.9, 4.1),
}
"""What the machine does to the logarithm of a time, [pages, runs], over the runs of a sweep in
their order.
"""


@dataclass(frozen=True)
class World:
    """True scores of the methods, and the noise of each."""

    noise: str = "normal"
    spreads: tuple[float, ...] = (
        1.0,
    ) * 5  # spread over seeds of each method, of its score and its costs
    score: tuple[float, ...] | None = None
    """True differences of the methods' accuracies; None: answers change places, and all are
    equal.
    """
    cost: tuple[float, ...] | None = (
        None  # true logarithms of the first cost, a time; None: all are equal
    )
    second: tuple[float, ...] | None = None  # the same of the second cost
    cost_sd: float = COST_SD
    disturbance: str | None = None  # of the first cost
    cost_noise: str = ""  # noise of the costs; that of the score where empty

    @property
    def methods(self) -> int:
        return len(self.spreads)


def answers(
    world: World,
    n: int,
    pages: int,
    random: Random,
    group: NDArray[np.int64] = EACH,
    factor: Floats | None = None,
) -> NDArray[np.bool_]:
    """Return which rows are right, [pages, methods, seeds, rows].

    A row is right where its ease + the method's own liking of it + the seed's skill + noise exceed
    a threshold. Rows of one `group` share the first two, as the questions of one document may.
    `factor`, [pages]: of each page's skills.
    """
    return _drawn(world, n, pages, random, group, factor)[0]


def checkpoint_scores(
    world: World, n: int, pages: int, random: Random, rows: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Return which rows are right, and the true mean of each method's checkpoints over all rows,
    [pages, methods].

    The methods of the world must have scores.
    """
    right, at = _drawn(world, n, pages, random, np.arange(rows))
    scale = math.sqrt(1 + LIKING_SD**2 + OWN_SD**2)
    return right, np.asarray(special.ndtr(at[..., 0].astype(np.float64) / scale).mean(axis=2))


def _drawn(
    world: World,
    n: int,
    pages: int,
    random: Random,
    group: NDArray[np.int64],
    factor: Floats | None = None,
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return which rows are right, and the threshold and skill of each run, [pages, methods,
    seeds, 1].
    """
    k, groups = world.methods, group.max() + 1
    ease = random.standard_normal((pages, 1, 1, groups), dtype=np.float32)
    liking = LIKING_SD * random.standard_normal((pages, k, groups), dtype=np.float32)
    if world.score is None:  # the methods' unequal gifts change places within each row
        places = np.argsort(random.random((pages, k, groups), dtype=np.float32), axis=1)
        liking = np.take_along_axis(
            _gifts(k).astype(np.float32)[None, :, None] + liking, places, axis=1
        )
    skill = (
        SEED_SD
        * np.array(world.spreads)[:, None, None]
        * NOISE[world.noise](random, (pages, k, n, 1))
    )
    skill = skill if factor is None else factor[:, None, None, None] * skill
    own = OWN_SD * random.standard_normal((pages, k, n, len(group)), dtype=np.float32)
    at = (np.array(thresholds(world))[:, None, None] + skill).astype(np.float32)
    return np.asarray(ease[..., group] + liking[:, :, None, group] + own + at > 0), at


def _gifts(methods: int) -> Floats:
    return np.linspace(0, GIFT, methods)


@cache
def thresholds(world: World) -> tuple[float, ...]:
    """Return what makes each method right in the share of all rows and seeds that the world
    says, by integration.
    """
    scale = math.sqrt(1 + LIKING_SD**2 + OWN_SD**2)
    base = float(special.ndtr(EASE / scale))
    gifts = _gifts(world.methods) if world.score is None else np.zeros(1)

    def threshold(spread: float, more: float) -> float:
        skill = SEED_SD * spread * NOISE[world.noise](np.random.default_rng(6), (100_000, 1))
        share = lambda at: float(special.ndtr((at + gifts + skill) / scale).mean()) - base - more  # noqa: E731
        return float(optimize.brentq(share, -20, 20))

    found = cache(threshold)
    return tuple(
        found(*one)
        for one in zip(world.spreads, world.score or (0.0,) * world.methods, strict=True)
    )


def cost_logs(world: World, n: int, pages: int, random: Random, *, second: bool = False) -> Floats:
    """Return the logarithms of a cost, [pages, methods, seeds], of runs in the order of a sweep."""
    k = world.methods
    truth = (world.second if second else world.cost) or (0.0,) * k
    drawn = NOISE[world.cost_noise or world.noise](random, (pages, k, n))
    logs = np.array(truth)[:, None] + world.cost_sd * np.array(world.spreads)[:, None] * drawn
    if world.disturbance is None or second:
        return logs
    along = DISTURBANCES[world.disturbance](random, pages, n * k).reshape(pages, n, k)
    for page, lot in enumerate(random.integers(2**60, size=pages)):
        for seed in range(n):
            logs[page, list(methods_of_seed(k, seed, str(lot))), seed] += along[page, seed]
    return logs
