"""Pages simulated as arrays: the tests of `hpml_bench.statistics` written once more, for thousands of pages at a time.

tests/benchmarks/test_power.py holds them to the package's own: equal p to 1e-9 on 1,000 pages. A page has a score over
seeds and 500 test rows, right or wrong, and two costs, by the worlds of benchmarks/calibration.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from calibration import EASE, LIKING_SD, MARGIN_COST, MARGIN_QUALITY, NOISE, OWN_SD, SEED_SD
from numpy.typing import NDArray
from scipy import optimize, special

from hpml_bench.statistics.evidence import LEAST_FACTOR, PRIOR
from hpml_bench.statistics.paired_tests import most_equal
from hpml_bench.statistics.verdicts import FIRST_LOOK, FOR_DIFFERENCES, FOR_EQUIVALENCES, OF_SCORE

Floats = NDArray[np.float64]
ROWS = 500
COST_SD = 0.02
CHUNK = 20_000_000
"""Answers that are drawn at a time."""


@dataclass(frozen=True)
class World:
    """What is true of the methods, and how noisy each is."""

    noise: str
    spreads: tuple[float, ...]
    """Spread over seeds of each method, of its score and its costs."""
    score: tuple[float, ...] | None = None
    """True differences of the methods' accuracies; None: answers change places, and all are equal."""
    cost: tuple[float, ...] | None = None
    """True logarithms of the first cost; None: all are equal."""
    second: tuple[float, ...] | None = None
    """The same of the second cost."""
    cost_sd: float = COST_SD

    @property
    def methods(self) -> int:
        """Number of methods."""
        return len(self.spreads)


@dataclass(frozen=True)
class Rule:
    """How pairs are decided."""

    prior: float = PRIOR
    """Degrees of freedom of the variance that five methods or more share."""
    step_down: bool = True
    """Shaffer's procedure with shares for the metrics; else Holm's over all."""
    floor: float = LEAST_FACTOR
    """Least factor of p as a share of the pairs."""
    larger: bool = False
    """Take the pair's own variance where it is larger than the shared one."""


BEFORE, AFTER = Rule(0.0, step_down=False), Rule()


@dataclass(frozen=True)
class Squares:
    """Pairs of pages by one metric, each [pages, pairs]; `rows` and on are of a score alone."""

    n: int
    methods: int
    mean: Floats
    variance: Floats
    """Of the differences over seeds."""
    rows: Floats | None = None
    """Mean square of rows."""
    rest: Floats | None = None
    """Mean square of the interaction of rows and seeds."""
    opposed: Floats | None = None
    """Rows against the mean by more than half the range."""


def pairs_of(methods: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and second method of every pair."""
    first, second = np.triu_indices(methods, 1)
    return first, second


def scores(world: World, n: int, pages: int, random: np.random.Generator) -> Squares:
    """Return the pairs of pages by the score over n seeds."""
    at_once = max(1, CHUNK // (world.methods * n * ROWS))
    parts = [_score(answers(world, n, min(at_once, pages - done), random)) for done in range(0, pages, at_once)]
    return Squares(n, world.methods, *(np.concatenate(of) for of in zip(*parts, strict=True)))


def answers(world: World, n: int, pages: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return which rows are right, [pages, methods, seeds, rows], as `calibration.answers` draws them."""
    k = world.methods
    ease = random.standard_normal((pages, 1, 1, ROWS), dtype=np.float32)
    liking = LIKING_SD * random.standard_normal((pages, k, ROWS), dtype=np.float32)
    if world.score is None:
        places = np.argsort(random.random((pages, k, ROWS), dtype=np.float32), axis=1)
        liking = np.take_along_axis(_gifts(k).astype(np.float32)[None, :, None] + liking, places, axis=1)
    skill = SEED_SD * np.array(world.spreads)[:, None, None] * NOISE[world.noise](random, (pages, k, n, 1))
    own = OWN_SD * random.standard_normal((pages, k, n, ROWS), dtype=np.float32)
    at = (np.array(_thresholds(world))[:, None, None] + skill).astype(np.float32)
    return np.asarray(ease + liking[:, :, None] + own + at > 0)


def _gifts(methods: int) -> Floats:
    return np.linspace(0, 1.2, methods)


@cache
def _thresholds(world: World) -> tuple[float, ...]:
    """Return what makes each method right in the share of all rows and seeds that the world says, by integration."""
    scale = math.sqrt(1 + LIKING_SD**2 + OWN_SD**2)
    base = float(special.ndtr(EASE / scale))
    gifts = _gifts(world.methods) if world.score is None else np.zeros(1)

    def threshold(spread: float, more: float) -> float:
        skill = SEED_SD * spread * NOISE[world.noise](np.random.default_rng(6), (100_000, 1))
        share = lambda at: float(special.ndtr((at + gifts + skill) / scale).mean()) - base - more  # noqa: E731
        return float(optimize.brentq(share, -20, 20))

    found = cache(threshold)
    return tuple(found(*one) for one in zip(world.spreads, world.score or (0.0,) * world.methods, strict=True))


def _score(right: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return mean, variance over seeds, mean squares of rows and interaction, and opposed rows of every pair."""
    pages, k, n, m = right.shape
    first, second = pairs_of(k)
    flat = right.reshape(pages, k, n * m).astype(np.float32)
    both = (flat @ flat.transpose(0, 2, 1)).astype(np.float64)  # rows that both get right, counted exactly
    count = np.einsum("pkk->pk", both)
    by_seed, by_row = right.mean(axis=3), right.sum(axis=2, dtype=np.int16)
    seeds = by_seed[:, first] - by_seed[:, second]
    mean, variance = seeds.mean(axis=-1), seeds.var(axis=-1, ddof=1)
    differ = count[:, first] + count[:, second] - 2 * both[:, first, second]
    rows, opposed = np.empty_like(mean), np.empty_like(mean)
    for at, (a, b) in enumerate(zip(first, second, strict=True)):
        counts = by_row[:, a] - by_row[:, b]
        rows[:, at] = counts.var(axis=-1, ddof=1, dtype=np.float64) / n
        opposed[:, at] = (2 * counts * np.where(mean[:, at] < 0, -1, 1)[:, None] < -n).sum(axis=-1)
    rest = (differ - n * m * mean**2 - (n - 1) * m * variance - (m - 1) * rows) / ((n - 1) * (m - 1))
    return mean, variance, rows, rest, opposed


def costs(world: World, n: int, pages: int, random: np.random.Generator, *, second: bool = False) -> Squares:
    """Return the pairs of pages by the first cost over n seeds, or by the second."""
    logs = cost_logs(world, n, pages, random, second=second)
    one, other = pairs_of(world.methods)
    differences = logs[:, one] - logs[:, other]
    return Squares(n, world.methods, differences.mean(axis=-1), differences.var(axis=-1, ddof=1))


def cost_logs(world: World, n: int, pages: int, random: np.random.Generator, *, second: bool = False) -> Floats:
    """Return the logarithms of a cost, [pages, methods, seeds]."""
    truth = (world.second if second else world.cost) or (0.0,) * world.methods
    drawn = NOISE[world.noise](random, (pages, world.methods, n))
    return np.array(truth)[:, None] + world.cost_sd * np.array(world.spreads)[:, None] * drawn


def _shared(variance: Floats, of: Squares, rule: Rule) -> tuple[Floats, Floats]:
    """Return the variances as a rule shrinks them, and their degrees of freedom."""
    own, k = of.n - 1.0, of.methods
    first, second = pairs_of(k)
    has = (first == np.arange(k)[:, None]) | (second == np.arange(k)[:, None])  # [methods, pairs]
    sums = variance @ has.T  # over the pairs that have a method
    shared = (sums[:, first] + sums[:, second] - variance) / (2 * k - 3)
    ratio = np.minimum(sums[:, first], sums[:, second]) / np.maximum(sums[:, first], sums[:, second])
    prior = rule.prior * min(1.0, max(0, k - 2) / 3) * ratio
    shrunk = (own * variance + prior * shared) / (own + prior)
    return np.maximum(shrunk, variance) if rule.larger else shrunk, own + prior


def p_values(of: Squares, rule: Rule) -> tuple[Floats, Floats]:
    """Return the p of no difference, and of a difference of the margin, [pages, pairs] each."""
    size = np.abs(of.mean)
    if of.rows is None or of.rest is None or of.opposed is None:
        variance, freedom = _shared(of.variance, of, rule)
        error = np.sqrt(variance / of.n)
        near = math.log1p(MARGIN_COST) - size
        return 2 * special.stdtr(freedom, -size / error), special.stdtr(freedom, -near / error)
    n, m = of.n, ROWS
    variance, freedom = _shared(of.variance, of, rule)
    seeds, rows, rest = variance / n, of.rows / (n * m), of.rest / (n * m)
    squared = np.maximum.reduce([seeds + rows - rest, seeds, rows, np.full_like(seeds, 1 / m**2)])
    spread = seeds**2 / freedom + rows**2 / (m - 1) + rest**2 / ((n - 1) * (m - 1))
    both = np.maximum(freedom, squared**2 / np.maximum(spread, 1e-300))
    gridded, alone_freedom = _shared(of.variance + 1 / m**2 / 12, of, rule)
    alone = np.sqrt(gridded / n)
    rare = np.minimum(1, 2 * special.bdtr(of.opposed, m, (of.opposed / m + size) / (1 + size)))
    different = np.maximum.reduce(
        [2 * special.stdtr(both, -size / np.sqrt(squared)), 2 * special.stdtr(alone_freedom, -size / alone), rare]
    )
    near, of_rare = MARGIN_QUALITY - size, math.sqrt(MARGIN_QUALITY * (1 - MARGIN_QUALITY) / m)
    equal = np.maximum(
        special.stdtr(both, -near / np.maximum(np.sqrt(squared), of_rare)), special.stdtr(alone_freedom, -near / alone)
    )
    return different, equal


def decided(metrics: Sequence[Squares], rule: Rule) -> tuple[list[Floats], list[Floats]]:
    """Return adjusted p of no difference and of the margin by metric, the score first; below 5 % is a claim."""
    found = [p_values(of, rule) for of in metrics]
    k = metrics[0].methods
    pairs = k * (k - 1) // 2
    every = len(found) * pairs
    holm = np.arange(every, 0, -1)
    near = _step_down(np.concatenate([p for _, p in found], axis=-1), holm) / (FIRST_LOOK * FOR_EQUIVALENCES)
    near = np.minimum(1, near)
    if not rule.step_down or k < 3:
        all_p = np.concatenate([p for p, _ in found], axis=-1)
        whole = np.minimum(1, _step_down(all_p, holm) / (FIRST_LOOK * FOR_DIFFERENCES))
        return np.split(whole, len(found), axis=-1), np.split(near, len(found), axis=-1)
    most = np.maximum([most_equal(k, at, pairs) for at in range(pairs)], rule.floor * pairs)
    shares = [OF_SCORE, *[(1 - OF_SCORE) / (len(found) - 1)] * (len(found) - 1)] if len(found) > 1 else [1.0]
    different = [
        np.minimum(1, _step_down(p, most) / (FIRST_LOOK * FOR_DIFFERENCES * of))
        for (p, _), of in zip(found, shares, strict=True)
    ]
    return different, np.split(near, len(found), axis=-1)


def _step_down(p: Floats, factors: NDArray[Any]) -> Floats:
    """Return p times the factors in their order, the largest so far, [pages, p]; at most 1."""
    order = np.argsort(p, axis=-1)
    ranked = np.minimum(1, np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * factors, axis=-1))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, ranked, axis=-1)
    return adjusted


def false_pages(world: World, metrics: Sequence[Squares], rule: Rule) -> NDArray[np.bool_]:
    """Return which pages hold a false claim: a difference, or the wrong direction, or a margin that is exceeded.

    Ranks and fronts follow from claims, and are false only where one is.
    """
    first, second = pairs_of(world.methods)
    wrong = np.zeros(len(metrics[0].mean), dtype=bool)
    truths = [world.score, world.cost, world.second][: len(metrics)]
    margins = [MARGIN_QUALITY, *[math.log1p(MARGIN_COST)] * (len(metrics) - 1)]
    for of, truth, margin, different, near in zip(metrics, truths, margins, *decided(metrics, rule), strict=True):
        gap = np.subtract.outer(truth or (0.0,) * world.methods, truth or (0.0,) * world.methods)[first, second]
        wrong |= ((different < 0.05) & (np.sign(of.mean) * gap <= 0)).any(axis=-1)
        wrong |= ((near < 0.05) & (np.abs(gap) >= margin * (1 - 1e-9))).any(axis=-1)
    return wrong


def page_metrics(world: World, n: int, pages: int, random: np.random.Generator) -> list[Squares]:
    """Return the three metrics of pages: a score and two costs."""
    return [
        scores(world, n, pages, random),
        costs(world, n, pages, random),
        costs(world, n, pages, random, second=True),
    ]
