"""Cases in which a report's claims could be false: rare rows, outliers, looks at more seeds, hosts, periodic noise.

Each case draws pages whose truth is known and counts those with a false claim, by the report's own functions.
`python benchmarks/calibration.py` prints their rates with the others; `bounded` gives the upper bound of a rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hpml_bench import statistics
from hpml_bench.report.caveats import beats_guess
from hpml_bench.statistics import Comparison
from hpml_bench.sweep.plan import methods_of_seed

Floats = NDArray[np.float64]
Random = np.random.Generator
MARGIN, MARGIN_COST, COST_SD = 0.01, 0.05, 0.02
"""Of a score, of a cost, and the standard deviation of the logarithm of a cost."""
LOOKS = (5, 7, 10, 14, 20, 30)
"""Numbers of seeds at which a page is looked at, seeds being added until a claim comes."""


@dataclass(frozen=True)
class Page:
    """Whether a page makes a false claim, and whether its false claims are all marked as of uncertain level."""

    wrong: bool
    marked: bool
    """Whether any claim or pair is marked; of a page without false claims, a mark too many."""


# Scores


@dataclass(frozen=True)
class Scores:
    """Scores of methods whose true means are known."""

    draw: Callable[[Random, int, int, int], Floats]
    """random, methods, seeds, rows -> [methods, seeds, rows]"""
    truth: tuple[float, float] = (0.0, 0.0)
    """True mean of the methods of the first half, and of the others."""
    span: float = 1.0
    step: float = 0.0
    """Of a row's score: 1 where rows are right or wrong."""
    lower: bool = False
    """Whether lower is better."""
    margin: float = MARGIN


def _smooth(random: Random, methods: int, seeds: int, rows: int) -> Floats:
    """Return real scores around 0.5 that rows share, with small differences of methods and of seeds."""
    ease = 0.1 * random.standard_normal(rows)
    own = 0.005 * random.standard_normal((methods, 1, rows)) + 0.005 * random.standard_normal((methods, seeds, rows))
    return np.asarray(np.clip(0.5 + ease + own, 0.0, 1.0))


def _rare_failures(random: Random, methods: int, seeds: int, rows: int) -> Floats:
    """Return scores of which the first method's are 0 in one row of a hundred, and the others' as much lower in all."""
    scores = _smooth(random, methods, seeds, rows) + 0.2
    scores[0, :, random.random(rows) < 0.01] = 0.0
    scores[1:] -= 0.7 * 0.01
    return scores


def _failures_at_the_top(random: Random, methods: int, seeds: int, rows: int) -> Floats:
    """Return the same of scores near the best, 0.97, which are nearly equal in all other rows."""
    scores = 0.97 + 0.005 * random.standard_normal((methods, seeds, rows)).clip(-5, 5)
    scores[0, :, random.random(rows) < 0.01] = 0.0
    scores[1:] -= 0.97 * 0.01
    return np.asarray(scores)


def _rare_rows(random: Random, methods: int, seeds: int, rows: int) -> Floats:
    """Return scores that differ by the margin, which is that of one row of a hundred, by the whole range."""
    return _carried(random, _smooth(random, methods, seeds, rows))


def _few_discordant(random: Random, methods: int, seeds: int, rows: int) -> Floats:
    """Return right and wrong answers, the same for all but for rows that one method of the first half gets right."""
    flipped = random.random((methods, seeds, rows)) < 0.001  # by a run's own chance
    return _carried(random, ((random.random(rows) < 0.8) ^ flipped).astype(float))


def _carried(random: Random, scores: Floats) -> Floats:
    """Return the scores where each method of the first half is right in a hundredth of the rows of its own."""
    carried = random.random((len(scores) // 2, scores.shape[-1])) < MARGIN
    scores[:, :, carried.any(axis=0)] = 0.0
    for method, own in enumerate(carried):
        scores[method, :, own] = 1.0
    return scores


LARGE = np.where(np.arange(1600) % 10 == 0, 50, 1)
"""Rows of each group of test rows: a tenth of the groups have nearly all rows."""
HEAVIEST = float(LARGE.max() / LARGE.mean())


def _large_groups(random: Random, methods: int, seeds: int, groups: int) -> Floats:
    """Return scores of groups that differ by the margin, which is that of one large group in eighty."""
    flipped = random.random((methods, seeds, groups)) < 0.001
    right = ((random.random(groups) < 0.8) ^ flipped).astype(float)
    share = MARGIN * LARGE.sum() / LARGE[LARGE > 1].sum()
    carried = (random.random((methods // 2, groups)) < share) & (LARGE > 1)
    right[:, :, carried.any(axis=0)] = 0.0
    for method, own in enumerate(carried):
        right[method, :, own] = 1.0
    mean = (right * LARGE).sum(axis=-1, keepdims=True) / LARGE.sum()
    return np.asarray(mean + LARGE / LARGE.mean() * (right - mean))


def _errors(random: Random, methods: int, seeds: int, rows: int) -> Floats:
    """Return linearised errors, whose mean is the RMSE."""
    liking = 0.5 * random.standard_normal((methods, 1, rows))
    return _linearised(random.standard_normal(rows) + liking + 0.3 * random.standard_normal((methods, seeds, rows)))


def _outliers(random: Random, methods: int, seeds: int, rows: int) -> Floats:
    """Return linearised errors; the first method's are 5 larger in five rows or so, the others' larger in all."""
    errors = random.standard_normal(rows) + 0.05 * random.standard_normal((methods, 1, rows))
    errors = errors + 0.05 * random.standard_normal((methods, seeds, rows))
    share = 5 / rows
    errors[0, :, random.random(rows) < share] += 5
    errors[1:] *= math.sqrt(1 + share * 25 / 1.02)
    return _linearised(errors)


def _linearised(errors: Floats) -> Floats:
    squares = errors**2
    mse = squares.mean(axis=-1, keepdims=True)
    return np.asarray(np.sqrt(mse) + (squares - mse) / (2 * np.sqrt(mse)))


SCORES: Mapping[str, Scores] = {
    "real scores, equal": Scores(_smooth),
    "real scores, rare failures of one method": Scores(_rare_failures),
    "real scores, the margin carried by rare rows": Scores(_rare_rows, truth=(MARGIN, 0.0)),
    "right and wrong, the margin carried by rare rows": Scores(_few_discordant, truth=(MARGIN, 0.0), step=1.0),
    "right and wrong in uneven groups, the margin carried by large ones": Scores(
        _large_groups, truth=(MARGIN, 0.0), span=HEAVIEST
    ),
    "RMSE, equal": Scores(_errors, span=0.0, lower=True),
    "RMSE, outliers": Scores(_outliers, span=0.0, lower=True),
}


def score_page(case: Scores, methods: int, seeds: int, rows: int, random: Random) -> Page:
    """Return a page of scores, beside two costs in which all methods are equal."""
    drawn = case.draw(random, methods, seeds, rows)
    of = {f"m{m}": dict(enumerate(drawn[m])) for m in range(methods)}
    scored = statistics.compare_scores(of, case.margin, case.span, case.step)
    decided = _page(scored, *(equal_costs(random, methods, seeds) for _ in range(2)))
    truth = {name: case.truth[index >= methods // 2] for index, name in enumerate(of)}
    false = [c for c in decided[: len(scored)] if _false(c, truth, case)]
    false += [c for c in decided[len(scored) :] if c.differs]
    marked = any(c.skewed for c in decided[: len(scored)] if c.differs or c.equivalent)
    return Page(any(not c.skewed for c in false), marked)


def _page(score: tuple[Comparison, ...], *costs: tuple[Comparison, ...], look: int = 1) -> tuple[Comparison, ...]:
    """Return a page's pairs with their verdicts, the score's first."""
    family = {"score": score, **{f"cost {at}": cost for at, cost in enumerate(costs)}}
    return tuple(c for of in statistics.decide_family(family, look, "score").values() for c in of)


def _false(c: Comparison, truth: Mapping[str, float], case: Scores) -> bool:
    difference = truth[c.a] - truth[c.b]
    wrong_way = c.differs and (difference == 0 or (difference > 0) != (c.difference.mean > 0))
    return wrong_way or (c.equivalent and abs(difference) >= case.margin * (1 - 1e-9))


def equal_costs(random: Random, methods: int, seeds: int) -> tuple[Comparison, ...]:
    """Return the pairs of methods by a cost in which they are equal."""
    costs = np.exp(COST_SD * random.standard_normal((methods, seeds)))
    return statistics.compare_costs({f"m{m}": dict(enumerate(costs[m])) for m in range(methods)}, MARGIN_COST)


# Looks


def looks_page(random: Random, methods: int = 5, rows: int = 500) -> Page:
    """Return whether any of the pages makes a false claim that are made as seeds are added, guessing included.

    All methods are equal, and as good as guessing.
    """
    most = max(LOOKS)
    right = (random.random((methods, 1, rows)) < random.random((methods, most, rows))).astype(float)
    guess = np.full(rows, right.mean())  # the expected score of an answer that is drawn
    costs = [np.exp(COST_SD * random.standard_normal((methods, most))) for _ in range(2)]
    for look, seeds in enumerate(LOOKS, start=1):
        named = [{f"m{m}": dict(enumerate(of[m, :seeds])) for m in range(methods)} for of in (right, *costs)]
        priced = [statistics.compare_costs(values, MARGIN_COST) for values in named[1:]]
        decided = _page(statistics.compare_scores(named[0], MARGIN), *priced, look=look)
        better = beats_guess([right[m, :seeds] - guess for m in range(methods)], 1.0, look)
        if any(c.differs for c in decided) or any(how != "not" for how in better):
            return Page(True, False)
    return Page(False, False)


# Costs


def turns_page(periods: tuple[float, float], random: Random, methods: int = 5, seeds: int = 5) -> Page:
    """Return a page of equal methods whose time is disturbed by 10 % with a period between two numbers of runs."""
    period = random.uniform(*periods)
    runs = np.arange(methods * seeds)
    along = 0.1 * np.sin(2 * np.pi * (runs / period + random.random())).reshape(seeds, methods)
    lot, costs = str(random.integers(2**60)), COST_SD * random.standard_normal((methods, seeds))
    for seed in range(seeds):
        costs[list(methods_of_seed(methods, seed, lot)), seed] += along[seed]
    values = {f"m{m}": dict(enumerate(np.exp(costs[m]))) for m in range(methods)}
    others = (equal_costs(random, methods, seeds) for _ in range(2))
    return Page(
        any(c.differs for c in _page(next(others), statistics.compare_costs(values, MARGIN_COST), next(others))), False
    )


def rare_slow_page(share: float, random: Random, methods: int = 5, seeds: int = 5) -> Page:
    """Return a page of equal methods: a share of one's runs is 30 % slower, its others faster by as much on average.

    What no seed shows can't be tested: this rate has no bound, and depends on the share and the number of seeds.
    """
    costs = COST_SD * random.standard_normal((methods, seeds))
    costs[0] += math.log(1.3) * ((random.random(seeds) < share) - share)
    values = {f"m{m}": dict(enumerate(np.exp(costs[m]))) for m in range(methods)}
    pairs = statistics.decide(statistics.compare_costs(values, MARGIN_COST))
    false = [c for c in pairs if c.differs]
    marked = any(c.skewed for c in (false or pairs))
    return Page(any(not c.skewed for c in false), marked)


def bounded(wrong: int, pages: int) -> float:
    """Return the upper 97.5 % bound of a rate (Clopper and Pearson 1934)."""
    return float(stats.beta.ppf(0.975, wrong + 1, pages - wrong)) if wrong < pages else 1.0


Case = Callable[[Random], Page]


def cases() -> Iterator[tuple[str, Case]]:
    """Yield name and page of every case."""
    for name, case in SCORES.items():
        sizes = (48, 100, 200, 500) if "rare" in name and "real" in name else (100, 500) if "RMSE" in name else (500,)
        if "groups" in name:
            yield f"{name}, {len(LARGE):,} groups, 2 methods", partial(score_page, case, 2, 5, len(LARGE))
            continue
        for rows in sizes:
            yield f"{name}, {rows} rows", partial(score_page, case, 5, 5, rows)
    rare = SCORES["right and wrong, the margin carried by rare rows"]
    yield (
        "right and wrong, the margin carried by rare rows, 500 rows, 12 methods",
        partial(score_page, rare, 12, 5, 500),
    )
    top = Scores(_failures_at_the_top)
    for methods, rows in ((2, 360), (5, 430)):
        name = f"real scores of 0.97, rare failures of one method, {rows} rows, {methods} methods"
        yield name, partial(score_page, top, methods, 5, rows)
    yield f"looks at {', '.join(map(str, LOOKS))} seeds", looks_page
    for first, last in ((2, 12), *pairwise((2, 4, 6, 8, 10, 12))):
        yield f"sinusoid of 10 %, period {first} to {last} runs", partial(turns_page, (first, last))


def rates(case: Case, pages: int, seed: int = 0) -> tuple[int, int]:
    """Return how many pages make a false claim that isn't marked, and how many carry a mark."""
    random = np.random.default_rng([seed, pages])
    found = [case(random) for _ in range(pages)]
    return sum(page.wrong for page in found), sum(page.marked for page in found)
