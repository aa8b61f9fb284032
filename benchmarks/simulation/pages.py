"""Pages as arrays: the tests of `hpml_bench.statistics` written once more, for thousands of pages at a time.

tests/benchmarks/test_calibration.py holds them to the package's own: equal p to 1e-9 on 1,000 pages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from hpml_bench.statistics.evidence import LEAST_FACTOR, PRIOR
from hpml_bench.statistics.intervals import most_equal
from hpml_bench.statistics.verdicts import FIRST_LOOK, FOR_DIFFERENCES, FOR_EQUIVALENCES, OF_SCORE
from simulation.worlds import MARGIN, MARGIN_COST, ROWS, Floats, Random, World, answers, cost_logs

Bools = NDArray[np.bool_]
CHUNK = 20_000_000  # answers that are drawn at a time


@dataclass(frozen=True)
class Rule:
    """Rule by which pairs are decided."""

    prior: float = PRIOR  # degrees of freedom of the variance that five methods or more share
    step_down: bool = True  # Shaffer's procedure with shares for the metrics; else Holm's over all
    floor: float = LEAST_FACTOR  # least factor of p as a share of the pairs


ALONE, PACKAGE = Rule(0.0, step_down=False), Rule()
"""Each pair by its own variance with Holm's procedure over all metrics, and the package's rule."""


@dataclass(frozen=True)
class Squares:
    """Pairs of pages by one metric, each [pages, pairs]; `rows` and on are of a score alone."""

    n: int
    methods: int
    mean: Floats
    variance: Floats  # of the differences over seeds
    rows: Floats | None = None  # mean square of rows
    rest: Floats | None = None  # mean square of the interaction of rows and seeds
    opposed: Floats | None = None  # rows against the mean by more than half the range
    earlier: Floats | None = None  # variance over seeds that earlier suites lend
    weight: Floats | None = None  # its degrees of freedom


def page_metrics(world: World, n: int, pages: int, random: Random) -> list[Squares]:
    """Return the three metrics of pages: a score and two costs."""
    at_once = max(1, CHUNK // (world.methods * n * ROWS))
    sizes = [min(at_once, pages - done) for done in range(0, pages, at_once)]
    parts = [answer_squares(answers(world, n, size, random)) for size in sizes]
    score = [np.concatenate(of) for of in zip(*parts, strict=True)]
    costs = [cost_squares(cost_logs(world, n, pages, random, second=second)) for second in (False, True)]
    return [Squares(n, world.methods, *score), *costs]


def answer_squares(right: Bools) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return mean, variance over seeds, mean squares of rows and interaction, and opposed rows of every pair."""
    pages, k, n, m = right.shape
    first, second = np.triu_indices(k, 1)
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


def cost_squares(logs: Floats) -> Squares:
    """Return the pairs by a cost, of its logarithms, [pages, methods, seeds]."""
    _, k, n = logs.shape
    first, second = np.triu_indices(k, 1)
    differences = logs[:, first] - logs[:, second]
    return Squares(n, k, differences.mean(axis=-1), differences.var(axis=-1, ddof=1))


def _shared(variance: Floats, of: Squares, prior: float) -> tuple[Floats, Floats]:
    """Return the variances, shrunk to those of the methods' pairs, and their degrees of freedom."""
    own, k = of.n - 1.0, of.methods
    first, second = np.triu_indices(k, 1)
    has = (first == np.arange(k)[:, None]) | (second == np.arange(k)[:, None])  # [methods, pairs]
    sums = variance @ has.T  # over the pairs that have a method
    shared = (sums[:, first] + sums[:, second] - variance) / (2 * k - 3)
    low, high = (of(sums[:, first], sums[:, second]) for of in (np.minimum, np.maximum))
    weight = prior * min(1.0, max(0, k - 2) / 3) * low / np.maximum(1e-300, high)
    if of.earlier is not None and of.weight is not None:  # the one with more degrees of freedom
        lent = of.weight > weight
        shared, weight = np.where(lent, of.earlier, shared), np.where(lent, of.weight, weight)
    return (own * variance + weight * shared) / (own + weight), own + weight


def p_values(of: Squares, prior: float = PRIOR) -> tuple[Floats, Floats]:
    """Return the p of no difference, and of a difference of the margin, [pages, pairs] each."""
    size, (variance, freedom) = np.abs(of.mean), _shared(of.variance, of, prior)
    if of.rows is None or of.rest is None or of.opposed is None:
        error = np.sqrt(variance / of.n)
        near = math.log1p(MARGIN_COST) - size
        return 2 * special.stdtr(freedom, -size / error), special.stdtr(freedom, -near / error)
    n, m = of.n, ROWS
    seeds, rows, rest = variance / n, of.rows / (n * m), of.rest / (n * m)
    squared = np.maximum.reduce([seeds + rows - rest, seeds, rows, np.full_like(seeds, 1 / m**2)])
    spread = seeds**2 / freedom + rows**2 / (m - 1) + rest**2 / ((n - 1) * (m - 1))
    both = np.maximum(freedom, squared**2 / np.maximum(spread, 1e-300))
    gridded, alone_freedom = _shared(of.variance + 1 / m**2 / 12, of, prior)
    alone = np.sqrt(gridded / n)
    rare = np.minimum(1, 2 * special.bdtr(of.opposed, m, (of.opposed / m + size) / (1 + size)))
    near, of_rare, error = MARGIN - size, math.sqrt(MARGIN * (1 - MARGIN) / m), np.sqrt(squared)
    by_rows, by_seeds = special.stdtr(both, -size / error), special.stdtr(alone_freedom, -size / alone)
    equal = special.stdtr(both, -near / np.maximum(error, of_rare)), special.stdtr(alone_freedom, -near / alone)
    return np.maximum.reduce([2 * by_rows, 2 * by_seeds, rare]), np.maximum(*equal)


def adjusted(
    p: Sequence[tuple[Floats, Floats]], k: int, rule: Rule = PACKAGE, spent: float = FIRST_LOOK
) -> tuple[list[Floats], list[Floats]]:
    """Return adjusted p of no difference and of the margin by metric, the score first; below 5 % is a claim."""
    pairs, every = k * (k - 1) // 2, len(p) * k * (k - 1) // 2
    holm = np.arange(every, 0, -1)

    def over_all(of: Sequence[Floats], share: float) -> list[Floats]:
        return np.split(np.minimum(1, step_down(np.concatenate(of, axis=-1), holm) / share), len(p), axis=-1)

    near = over_all([q for _, q in p], spent * FOR_EQUIVALENCES)
    if not rule.step_down or k < 3:
        return over_all([one for one, _ in p], spent * FOR_DIFFERENCES), near
    most = np.maximum([most_equal(k, at, pairs) for at in range(pairs)], rule.floor * pairs)
    shares = [OF_SCORE, *[(1 - OF_SCORE) / (len(p) - 1)] * (len(p) - 1)] if len(p) > 1 else [1.0]
    spends = [spent * FOR_DIFFERENCES * share for share in shares]
    return [np.minimum(1, step_down(one, most) / of) for (one, _), of in zip(p, spends, strict=True)], near


def decided(metrics: Sequence[Squares], rule: Rule = PACKAGE) -> tuple[list[Floats], list[Floats]]:
    """Return `adjusted` of these metrics at a first look."""
    return adjusted([p_values(of, rule.prior) for of in metrics], metrics[0].methods, rule)


def step_down(p: Floats, factors: NDArray[Any]) -> Floats:
    """Return p times the factors in their order, the largest so far, [pages, p]; at most 1."""
    order = np.argsort(p, axis=-1)
    ranked = np.minimum(1, np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * factors, axis=-1))
    found = np.empty_like(p)
    np.put_along_axis(found, order, ranked, axis=-1)
    return found


def wrong(world: World, different: Sequence[Bools], near: Sequence[Bools], signs: Sequence[Floats]) -> Bools:
    """Return which pages hold a false claim: a difference, or the wrong direction, or a margin that is exceeded.

    Claims are given by metric, [pages, pairs]. Ranks and fronts follow from them, and are false only where one is.
    """
    first, second = np.triu_indices(world.methods, 1)
    found = np.zeros(len(signs[0]), dtype=bool)
    margins = (MARGIN, *[math.log1p(MARGIN_COST)] * 2)
    for at, sign in enumerate(signs):
        values = (world.score, world.cost, world.second)[at] or (0.0,) * world.methods
        gap = np.subtract.outer(values, values)[first, second]
        found |= (different[at] & (np.sign(sign) * gap <= 0)).any(axis=-1)
        found |= (near[at] & (np.abs(gap) >= margins[at] * (1 - 1e-9))).any(axis=-1)
    return found


def false_pages(world: World, metrics: Sequence[Squares], rule: Rule = PACKAGE) -> float:
    different, near = ([p < 0.05 for p in of] for of in decided(metrics, rule))
    return float(wrong(world, different, near, [of.mean for of in metrics]).mean())
