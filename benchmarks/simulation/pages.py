"""Pages as arrays: the tests of `hpml_bench.statistics` written once more, for thousands of pages
at a time.

tests/benchmarks/test_calibration.py holds them to the package's own: equal p to 1e-9 on 1,000
pages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from hpml_bench.statistics.evidence import LEAST_FACTOR, LOSSES, POWER, PRIOR
from hpml_bench.statistics.intervals import most_equal
from hpml_bench.statistics.verdicts import FOR_DIFFERENCES, FOR_EQUIVALENCES, OF_SCORE, spent_at
from simulation.worlds import MARGIN, MARGIN_COST, ROWS, Floats, Random, World, answers, cost_logs

Bools = NDArray[np.bool_]
CHUNK = 20_000_000  # answers that are drawn at a time
FIRST_LOOK = spent_at(1)


@dataclass(frozen=True)
class Rule:
    """Rule by which pairs are decided."""

    prior: float = PRIOR  # degrees of freedom of the variance that five methods or more share
    step_down: bool = True  # Shaffer's procedure with shares for the metrics; else Holm's over all
    floor: float = LEAST_FACTOR  # least factor of p as a share of the pairs
    weighted: bool = True  # whether the score weighs more than costs where two methods are compared


ALONE, PACKAGE = Rule(0.0, step_down=False), Rule()
"""Each pair by its own variance with Holm's procedure over all metrics, and the package's rule."""
EVEN = Rule(weighted=False)
"""The package's rule, but that score and costs of two methods are decided by Holm's procedure
without weights.
"""


@dataclass(frozen=True)
class Squares:
    """Pairs of pages by one metric, each [pages, pairs]; `rows` and on are of a score alone."""

    n: int
    methods: int
    mean: Floats
    variance: Floats  # of the differences over seeds
    rows: Floats | None = None  # mean square of rows
    rest: Floats | None = None  # mean square of the interaction of rows and seeds
    opposed: Floats | None = (
        None  # [pages, pairs, losses], rows against the mean by more than half of each loss
    )
    m: int = ROWS  # test rows
    earlier: Floats | None = None  # variance over seeds that earlier suites lend
    weight: Floats | None = None  # its degrees of freedom


def page_metrics(world: World, n: int, pages: int, random: Random, m: int = ROWS) -> list[Squares]:
    """Return the three metrics of pages: a score over m rows and two costs."""
    at_once = max(1, CHUNK // (world.methods * n * m))
    sizes = [min(at_once, pages - done) for done in range(0, pages, at_once)]
    parts = [answer_squares(answers(world, n, size, random, np.arange(m))) for size in sizes]
    score = [np.concatenate(of) for of in zip(*parts, strict=True)]
    costs = [
        cost_squares(cost_logs(world, n, pages, random, second=second)) for second in (False, True)
    ]
    mean, variance, rows, rest, opposed = score
    return [Squares(n, world.methods, mean, variance, rows, rest, opposed, m), *costs]


def answer_squares(right: Bools) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return mean, variance over seeds, mean squares of rows and interaction, and opposed rows
    of every pair.
    """
    pages, k, n, m = right.shape
    first, second = np.triu_indices(k, 1)
    flat = right.reshape(pages, k, n * m).astype(np.float32)
    both = (flat @ flat.transpose(0, 2, 1)).astype(
        np.float64
    )  # rows that both get right, counted exactly
    count = np.einsum("pkk->pk", both)
    by_seed, by_row = right.mean(axis=3), right.sum(axis=2, dtype=np.int16)
    seeds = by_seed[:, first] - by_seed[:, second]
    mean, variance = seeds.mean(axis=-1), seeds.var(axis=-1, ddof=1)
    differ = count[:, first] + count[:, second] - 2 * both[:, first, second]
    rows, opposed = np.empty_like(mean), np.empty((*mean.shape, len(LOSSES)))
    for at, (a, b) in enumerate(zip(first, second, strict=True)):
        counts = by_row[:, a] - by_row[:, b]
        rows[:, at] = counts.var(axis=-1, ddof=1, dtype=np.float64) / n
        ahead = counts * np.where(mean[:, at] < 0, -1, 1)[:, None]
        for place, loss in enumerate(LOSSES):
            opposed[:, at, place] = (2 * ahead < -loss * n).sum(axis=-1)
    rest = (differ - n * m * mean**2 - (n - 1) * m * variance - (m - 1) * rows) / (
        (n - 1) * (m - 1)
    )
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


class Errors(NamedTuple):
    """Standard errors and degrees of freedom of a test, [pages, pairs]."""

    error: Floats
    freedom: Floats


def errors(of: Squares, prior: float = PRIOR, n: int | None = None) -> list[Errors]:
    """Return the errors of each test of a metric, at its number of seeds or what is expected at
    another.

    Of a score first that for other seeds and rows, then that for other seeds alone.
    """
    n = n or of.n
    variance, freedom = _shared(of.variance, of, prior)
    of_seeds = freedom + n - of.n
    if of.rows is None or of.rest is None:
        return [Errors(np.sqrt(variance / n), of_seeds)]
    m = of.m
    grown = of.rows + (n - of.n) * np.maximum(0, of.rows - of.rest) / of.n
    seeds, rows, rest = variance / n, grown / (n * m), of.rest / (n * m)
    squared = np.maximum.reduce([seeds + rows - rest, seeds, rows, np.full_like(seeds, 1 / m**2)])
    spread = seeds**2 / of_seeds + rows**2 / (m - 1) + rest**2 / ((n - 1) * (m - 1))
    both = np.maximum(of_seeds, squared**2 / np.maximum(spread, 1e-300))
    gridded, gridded_freedom = _shared(of.variance + 1 / m**2 / 12, of, prior)
    return [
        Errors(np.sqrt(squared), both),
        Errors(np.sqrt(gridded / n), gridded_freedom + n - of.n),
    ]


def p_values(of: Squares, prior: float = PRIOR) -> tuple[Floats, Floats]:
    """Return the p of no difference, and of a difference of the margin, [pages, pairs] each."""
    size, tests = np.abs(of.mean), errors(of, prior)
    different = [2 * special.stdtr(test.freedom, -size / test.error) for test in tests]
    if of.opposed is None:
        near, least = math.log1p(MARGIN_COST) - size, 0.0
    else:
        near, least = MARGIN - size, math.sqrt(MARGIN * (1 - MARGIN) / of.m)
        different.append(_p_of_rare_rows(of, of.opposed))
    first, *rest = tests
    widened = [Errors(np.maximum(first.error, least), first.freedom), *rest]
    equal = [special.stdtr(test.freedom, -near / test.error) for test in widened]
    return np.maximum.reduce(different), np.maximum.reduce(equal)


def p_of_checkpoints(of: Squares) -> Floats:
    """Return the p of a score's pairs for other rows and these checkpoints, [pages, pairs]."""
    if of.rows is None or of.opposed is None:
        raise ValueError("costs have no rows")
    error = np.maximum(np.sqrt(of.rows / (of.n * of.m)), 1 / of.m)
    by_rows = 2 * special.stdtr(of.m - 1, -np.abs(of.mean) / error)
    return np.maximum(by_rows, _p_of_rare_rows(of, of.opposed))


def _p_of_rare_rows(of: Squares, opposed: Floats) -> Floats:
    gain = np.abs(of.mean)[..., None] / np.array(LOSSES)
    p = np.minimum(1, 2 * special.bdtr(opposed, of.m, (opposed / of.m + gain) / (1 + gain)))
    return np.asarray(p.max(axis=-1))


def each_detectable(of: Squares, n: int, level: float, prior: float = PRIOR) -> list[Floats]:
    """Return the least difference that each test of n seeds finds with a chance of 80 %, as
    `statistics.detectable`.
    """
    found = []
    for at, test in enumerate(errors(of, prior, n)):
        critical = special.stdtrit(test.freedom, 1 - level / 2)
        least = special.nctdtrinc(test.freedom, 1 - POWER, critical) * test.error
        if at == 0 and of.opposed is not None:
            share = special.bdtri(of.opposed, of.m, level / 2)
            rare = (np.array(LOSSES) * (share - of.opposed / of.m) / (1 - share)).max(axis=-1)
            least = np.maximum(least, rare + special.ndtri(POWER) * test.error)
        found.append(np.asarray(least))
    return found


def detectable(of: Squares, n: int, level: float, prior: float = PRIOR) -> Floats:
    """Return the least difference that n seeds find with a chance of 80 %."""
    return np.asarray(np.maximum.reduce(each_detectable(of, n, level, prior)))


def adjusted(
    p: Sequence[tuple[Floats, Floats]],
    k: int,
    rule: Rule = PACKAGE,
    spent: float = FIRST_LOOK,
) -> tuple[list[Floats], list[Floats]]:
    """Return adjusted p of no difference and of the margin by metric, the score first; below 5 %
    is a claim.
    """
    pairs, every = k * (k - 1) // 2, len(p) * k * (k - 1) // 2
    differences, margins = [one for one, _ in p], [q for _, q in p]

    def over_all(values: Sequence[Floats], share: float) -> list[Floats]:
        """Holm's procedure over the pairs of all metrics."""
        together = np.concatenate(values, axis=-1)
        return np.split(
            np.minimum(1, step_down(together, np.arange(every, 0, -1)) / share), len(p), axis=-1
        )

    for_equivalences = spent * FOR_EQUIVALENCES
    if not rule.step_down or (k < 3 and not rule.weighted):
        return over_all(differences, spent * FOR_DIFFERENCES), over_all(margins, for_equivalences)
    costs = len(p) - 1
    weights = [OF_SCORE, *[(1 - OF_SCORE) / costs] * costs] if costs else [1.0]
    if k < 3:
        near = [
            np.minimum(1, q / (for_equivalences * weight))
            for q, weight in zip(margins, weights, strict=True)
        ]
        both = FOR_DIFFERENCES + FOR_EQUIVALENCES
        passed_on = FOR_DIFFERENCES / both
        together = weighted(np.concatenate(differences, axis=-1), np.array(weights), passed_on)
        return np.split(np.minimum(1, together / (spent * both)), len(p), axis=-1), near
    most = np.maximum([most_equal(k, at, pairs) for at in range(pairs)], rule.floor * pairs)
    spends = [spent * FOR_DIFFERENCES * weight for weight in weights]
    different = [
        np.minimum(1, step_down(one, most) / share)
        for one, share in zip(differences, spends, strict=True)
    ]
    return different, over_all(margins, for_equivalences)


def decided(metrics: Sequence[Squares], rule: Rule = PACKAGE) -> tuple[list[Floats], list[Floats]]:
    """Return `adjusted` of these metrics at a first look."""
    return adjusted([p_values(of, rule.prior) for of in metrics], metrics[0].methods, rule)


def step_down(p: Floats, factors: NDArray[Any]) -> Floats:
    """Return p times the factors in their order, the largest so far, [pages, p]; at most 1."""
    order = np.argsort(p, axis=-1)
    ranked = np.minimum(
        1, np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * factors, axis=-1)
    )
    found = np.empty_like(p)
    np.put_along_axis(found, order, ranked, axis=-1)
    return found


def weighted(p: Floats, weights: Floats, passed_on: float) -> Floats:
    """Return p, [pages, p], adjusted as by `intervals.weighted_holm`."""
    order = np.argsort(p / weights, axis=-1)
    own = weights[order]
    left = 1 - np.cumsum(own, axis=-1) + own  # the weights of those that are not yet rejected
    share = own * (1 + passed_on * (1 - left) / left)
    ranked = np.minimum(
        1, np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) / share, axis=-1)
    )
    found = np.empty_like(p)
    np.put_along_axis(found, order, ranked, axis=-1)
    return found


def wrong(
    world: World, different: Sequence[Bools], near: Sequence[Bools], signs: Sequence[Floats]
) -> Bools:
    """Return which pages hold a false claim: a difference, or the wrong direction, or a margin that
    is exceeded.

    Claims are given by metric, [pages, pairs]. Ranks and fronts follow from them, and are false
    only where one is.
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
