"""Cases in which claims could be false: rare rows, outliers, looks at more seeds, dependent rows,
unseen faults.

Each draws a page whose truth is known, and counts it if a claim is false, by the package's own
functions. Of few rows and few suites the worst world of a kind is found exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from hpml_bench import statistics
from hpml_bench.judge.caveats import beats_guess
from hpml_bench.judge.scores import CostDefinition
from hpml_bench.judge.verdicts import is_exact
from hpml_bench.statistics import Comparison, Interval, evidence
from hpml_bench.statistics.evidence import LEAST_SEEDS
from hpml_bench.statistics.over_suites import p_of_ranks
from hpml_bench.statistics.verdicts import levels, spent_at
from simulation import pages
from simulation.worlds import (
    COST_SD,
    MARGIN,
    MARGIN_COST,
    ROWS,
    Floats,
    Random,
    World,
    answers,
    cost_logs,
)

LOOKS = (
    5,
    7,
    10,
    14,
    20,
    30,
)  # numbers of seeds at which a page is looked at, seeds being added until a claim comes
Case = Callable[
    [Random], bool
]  # draws a page: whether it makes a false claim without the mark of an uncertain level
Draw = Callable[..., Floats]  # random, methods, seeds, rows -> [methods, seeds, rows]
LARGE = [
    50,
    *[1] * 9,
] * 160  # rows of each group of test rows: a tenth of the groups have nearly all rows


def rate(case: Case, count: int) -> float:
    random = np.random.default_rng([0, count])
    return sum(case(random) for _ in range(count)) / count


def by_seed(values: NDArray[Any]) -> dict[str, dict[int, Any]]:
    """Return method -> seed -> value, of [methods, seeds] or [methods, seeds, rows]."""
    return {f"m{at}": dict(enumerate(of)) for at, of in enumerate(values)}


@dataclass(frozen=True)
class Scores:
    """Scores of methods whose true means are known."""

    draw: Draw
    truth: tuple[float, float] = (
        0.0,
        0.0,
    )  # true mean of the methods of the first half, and of the others
    span: float = 1.0
    step: float = 0.0  # of a row's score: 1 where rows are right or wrong
    effective: float | None = None  # rows, or groups, of equal weight that vary as much


def _smooth(random: Random, *shape: int) -> Floats:
    """Return real scores around 0.5 that rows share, with small differences of methods and of
    seeds.
    """
    methods, _, rows = shape
    own = 0.005 * (random.standard_normal((methods, 1, rows)) + random.standard_normal(shape))
    return np.asarray(np.clip(0.5 + 0.1 * random.standard_normal(rows) + own, 0.0, 1.0))


def _nearly_alike(random: Random, *shape: int) -> Floats:
    """Return right and wrong answers, the same for all but for a run's own chance."""
    return ((random.random(shape[-1]) < 0.8) ^ (random.random(shape) < 0.001)).astype(float)


def _rare_failures(mean: float, random: Random, *shape: int) -> Floats:
    """Return nearly equal scores, of which the first method's are 0 in one row of a hundred, the
    others' all lower.
    """
    scores = mean + 0.005 * random.standard_normal(shape).clip(-5, 5)
    scores[0, :, random.random(shape[-1]) < 0.01] = 0.0
    scores[1:] -= mean * 0.01
    return scores


def _rare_rows(
    alike: Draw, random: Random, *shape: int, sizes: Sequence[int] | None = None
) -> Floats:
    """Return scores that differ by the margin, by the whole range in rare rows, or in the largest
    groups of `sizes`.

    Each method of the first half is right in rows of its own, in which all others are wrong.
    """
    scores, weights = alike(random, *shape), np.array(sizes or [1] * shape[-1])
    large = weights == weights.max()
    rows = (
        random.random((shape[0] // 2, shape[-1])) < MARGIN * weights.sum() / weights[large].sum()
    ) & large
    scores[:, :, rows.any(axis=0)] = 0.0
    for method, own in enumerate(rows):
        scores[method, :, own] = 1.0
    mean = (scores * weights).sum(axis=-1, keepdims=True) / weights.sum()
    return np.asarray(mean + weights / weights.mean() * (scores - mean))


def _errors(outlier: float, liking: float, own: float, random: Random, *shape: int) -> Floats:
    """Return linearised errors, whose mean is the RMSE; the first method's are larger in five rows,
    the others' in all.

    `liking` and `own` are the sd of a method's own errors, in all runs and in one.
    """
    methods, _, rows = shape
    errors = random.standard_normal(rows) + liking * random.standard_normal((methods, 1, rows))
    errors = errors + own * random.standard_normal(shape)
    errors[0, :, random.random(rows) < 5 / rows] += outlier
    squares = errors**2
    squares[1:] *= 1 + 5 / rows * outlier**2 / (1 + liking**2 + own**2)
    mse = squares.mean(axis=-1, keepdims=True)
    return np.asarray(np.sqrt(mse) + (squares - mse) / (2 * np.sqrt(mse)))


AT_MARGIN = (MARGIN, 0.0)
RARE = Scores(partial(_rare_rows, _nearly_alike), AT_MARGIN, step=1.0)
UNEVEN = partial(_rare_rows, _nearly_alike, sizes=LARGE)
LARGE_GROUPS = Scores(
    UNEVEN,
    AT_MARGIN,
    LARGE[0] * len(LARGE) / sum(LARGE),
    effective=statistics.effective_number(LARGE),
)
SCORES: tuple[tuple[str, Scores, int, int], ...] = (
    ("real scores, equal", Scores(_smooth), 5, 500),
    *(
        (
            "real scores of 0.7, rare failures of one method",
            Scores(partial(_rare_failures, 0.7)),
            5,
            n,
        )
        for n in (48, 100, 200, 500)
    ),
    *(
        (
            "real scores of 0.97, rare failures of one method",
            Scores(partial(_rare_failures, 0.97)),
            *of,
        )
        for of in ((2, 360), (5, 430))
    ),
    *(
        (
            "real scores, the margin carried by rare rows",
            Scores(partial(_rare_rows, _smooth), AT_MARGIN),
            5,
            n,
        )
        for n in (48, 100, 200, 500)
    ),
    *(("right and wrong, the margin carried by rare rows", RARE, k, 500) for k in (5, 12)),
    (
        "right and wrong in uneven groups, the margin carried by large ones",
        LARGE_GROUPS,
        2,
        len(LARGE),
    ),
    *(("RMSE, equal", Scores(partial(_errors, 0, 0.5, 0.3), span=0.0), 5, n) for n in (100, 500)),
    *(
        ("RMSE, outliers", Scores(partial(_errors, 5, 0.05, 0.05), span=0.0), 5, n)
        for n in (100, 500)
    ),
)
"""Name, scores, methods and rows, or groups, of each case of scores."""


def score_page(case: Scores, methods: int, rows: int, random: Random) -> bool:
    """Draw a page of scores over five seeds, beside two costs in which all methods are equal."""
    drawn = case.draw(random, methods, 5, rows)
    scored = statistics.compare_scores(
        by_seed(drawn), MARGIN, case.span, case.step, effective=case.effective
    )
    costs = np.exp(COST_SD * random.standard_normal((2, methods, 5)))
    decided = _page(scored, *(statistics.compare_costs(by_seed(of), MARGIN_COST) for of in costs))
    truth = {f"m{at}": case.truth[at >= methods // 2] for at in range(methods)}
    for at, c in enumerate(decided):
        difference = truth[c.a] - truth[c.b] if at < len(scored) else 0.0
        wrong_way = c.differs and (difference == 0 or (difference > 0) != (c.difference.mean > 0))
        too_large = at < len(scored) and c.equivalent and abs(difference) >= MARGIN * (1 - 1e-9)
        if (wrong_way or too_large) and not c.skewed:
            return True
    return False


def _page(
    score: tuple[Comparison, ...], *costs: tuple[Comparison, ...], look: int = 1
) -> tuple[Comparison, ...]:
    """Return a page's pairs with their verdicts, the score's first."""
    family = {"score": score, **{f"cost {at}": cost for at, cost in enumerate(costs)}}
    return tuple(c for of in statistics.decide_family(family, look, "score").values() for c in of)


def looks_page(random: Random, methods: int = 5) -> bool:
    """Return whether pages of equal methods, as good as guessing, make any false claim as seeds
    are added.
    """
    most = max(LOOKS)
    right = (random.random((methods, 1, ROWS)) < random.random((methods, most, ROWS))).astype(float)
    guess = np.full(ROWS, right.mean())  # the expected score of an answer that is drawn
    costs = [np.exp(COST_SD * random.standard_normal((methods, most))) for _ in range(2)]
    for look, seeds in enumerate(LOOKS, start=1):
        priced = [statistics.compare_costs(by_seed(of[:, :seeds]), MARGIN_COST) for of in costs]
        decided = _page(
            statistics.compare_scores(by_seed(right[:, :seeds]), MARGIN), *priced, look=look
        )
        better = beats_guess([of[:seeds] - guess for of in right], 1.0, look)
        if any(c.differs for c in decided) or any(how != "not" for how in better):
            return True
    return False


def grouped_page(
    size: int, random: Random, *, known: bool, seeds: int = 5, even: bool = True
) -> bool:
    """Draw a page of equal methods' scores, of so many test rows a group, `known` or not;
    uneven: 1 to 2 size - 1.
    """
    sizes = random.integers(*((size, size + 1) if even else (1, 2 * size)), ROWS // size)
    group = np.repeat(np.arange(len(sizes)), sizes)
    (right,) = answers(World(), seeds, 1, random, group)
    rows = [[statistics.group_scores(row, group) if known else row for row in of] for of in right]
    many = statistics.effective_number(sizes) if known else None
    pairs = statistics.compare_scores(by_seed(np.array(rows)), MARGIN, effective=many)
    return any(c.differs for c in statistics.decide(pairs))


COUNT_NEAR = 12_000  # a cost of the least number of digits that counts have


def counted_page(noise: float, random: Random, *, halfway: bool) -> tuple[bool, bool]:
    """Draw a cost of two systems in three seeds, rounded to whole numbers; both have the same true
    cost.

    Return whether each system has one value in all seeds, and not the other's; and whether that
    difference is taken for real. `noise` is the standard deviation over seeds; the true cost is
    `halfway` between whole numbers or anywhere.
    """
    cost = COUNT_NEAR + (0.5 if halfway else random.random())
    values = np.round(cost + noise * random.standard_normal((2, LEAST_SEEDS)))
    differing = bool((np.ptp(values, axis=1) == 0).all() and values[0, 0] != values[1, 0])
    return differing, differing and is_exact(
        CostDefinition("cost", "cost", grid=1.0), by_seed(values)
    )


CASES: Mapping[str, Case] = {
    **{f"{of[0]}, {of[3]:,} rows, {of[2]} methods": partial(score_page, *of[1:]) for of in SCORES},
    f"looks at {', '.join(map(str, LOOKS))} seeds": looks_page,
}


# Few rows, few suites, and what no seed shows


PAIR = Comparison("a", "b", Interval(9, 0.1, 1.0, None, None), 0.5, None, None)
LEVELS = {
    name: levels({"score": [pair]}, 1, "score", guess=False)["score"][0]
    for name, pair in (
        ("with a margin", replace(PAIR, p_equivalent=0.5, margin=MARGIN)),
        ("without", PAIR),
    )
}
"""Levels of the difference of two systems at a first look, on a page without verdicts on
guessing.
"""


def worst(
    count: int, level: float, p: Callable[[Floats], float], losses: Floats, gains: Floats
) -> float:
    """Return the largest share of false verdicts where all units gain but some that lose, with a
    mean of 0.

    How many of `count` units lose is binomial, so the share is a sum over it.
    """
    lost, largest = np.arange(count + 1), 0.0
    for loss in losses:
        for gain in gains:
            claimed = [p(np.repeat([-loss, gain], [k, count - k])) < level for k in lost]
            largest = max(
                largest, float(stats.binom.pmf(lost, count, gain / (gain + loss))[claimed].sum())
            )
    return largest


SIZES = (4, 6, 10, 20, 30, 50, 100, 200, 500, 1000, 10_000)
LOST = np.unique(
    [
        *np.linspace(0.04, 1, 25),
        *(share - 0.001 for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16)),
        0.45,
        0.475,
    ]
)
GAINED = np.geomspace(1e-4, 1, 80)


def few_rows(_: int, sizes: Sequence[int] = SIZES) -> dict[str, float]:
    """Return the worst share of two systems' pages of real scores from 0 to 1, by numbers of rows
    or groups.

    All rows gain alike but for some that lose alike, with a mean of 0: the worst of losses from
    0.04 to 1, also just below what is counted as opposed, and of gains from 0.0001 to 1, at each of
    `LEVELS`.
    """
    found = {rows: worst_two_points(rows, list(LEVELS.values())) for rows in sizes}
    return {
        f"{rows} rows, {margin}": share
        for rows, of in found.items()
        for margin, share in zip(LEVELS, of, strict=True)
    }


def worst_two_points(rows: int, at_levels: Sequence[float]) -> list[float]:
    """Return the largest share of false verdicts at each level over the worlds of `LOST` and
    `GAINED`.
    """
    loss, gain = (grid.ravel()[:, None] for grid in np.meshgrid(LOST, GAINED))
    chance = gain / (gain + loss)
    by_chance = np.argsort(
        chance.ravel()
    )  # worlds of a part need about as many numbers of losing rows
    worst_of_parts = []
    for part in np.array_split(by_chance, 40):
        lost = _likely(rows, chance[part])
        likely = stats.binom.pmf(lost, rows, chance[part])
        p = p_of_two_points(rows, lost, loss[part], gain[part])
        worst_of_parts.append(
            [float((likely * (p < level)).sum(axis=1).max()) for level in at_levels]
        )
    return [max(of) for of in zip(*worst_of_parts, strict=True)]


def _likely(rows: int, chance: Floats) -> Floats:
    """Return the numbers of losing rows, [worlds, numbers], outside of which less than 1e-9 of
    the chance lies.
    """
    spread = np.sqrt(rows * chance * (1 - chance))
    width = min(rows + 1, int((14 * spread + 50).max()))
    first = np.clip(np.floor(rows * chance - 7 * spread - 25), 0, rows + 1 - width)
    return np.asarray(first + np.arange(width))


def p_of_two_points(rows: int, lost: Floats, loss: Floats, gain: Floats) -> Floats:
    """Return `OverRows.p` of rows of which so many lose and the others gain, of broadcast
    arrays.
    """
    mean = (gain * (rows - lost) - loss * lost) / rows
    sd = (gain + loss) * np.sqrt(lost * (rows - lost) / (rows * (rows - 1)))
    p = 2 * special.stdtr(rows - 1, -np.abs(mean) / np.maximum(sd / np.sqrt(rows), 1 / rows))
    for most in evidence.LOSSES:
        against, ahead = lost * (loss > most / 2), (rows - lost) * (gain > most / 2)
        opposed = np.where(mean > 0, against, ahead)
        share = np.abs(mean) / most
        rare = special.bdtr(opposed, rows, np.minimum(1, (opposed / rows + share) / (1 + share)))
        p = np.maximum(p, np.where(opposed < rows, np.minimum(1, 2 * rare), 0))
    return np.asarray(p)


def few_suites(_: int) -> dict[str, float]:
    """Return the worst share of pairs where one method is some places ahead, and in rare suites as
    many as all behind.

    For one pair at its level of Holm's first step, times the pairs: a bound for a page of so many
    methods.
    """
    found = {}
    for methods in (2, 3, 5, 10):
        places, pairs = np.arange(1.0, methods), methods * (methods - 1) // 2
        for suites in (3, 6, 9, 15, 28):
            level = 0.05 * spent_at(1) / pairs
            share = worst(suites, level, partial(p_of_ranks, most=methods - 1.0), places, places)
            found[f"{methods} methods, {suites} suites"] = pairs * share
    return found


def means_alone(trials: int) -> dict[str, float]:
    """Return the share where one system always says yes and one always no, and their errors are
    said independent.
    """
    random, found = np.random.default_rng(23), {}
    for rows in (50, 5000):
        yes = random.binomial(rows, 0.5, trials) / rows
        pairs = (statistics.compare_shares({"yes": x, "no": 1 - x}, rows) for x in yes)
        decided = [
            statistics.decide_family({"score": of}, 1, "score", guess=False)["score"]
            for of in pairs
        ]
        found[f"{rows:,} rows, --independent"] = sum(c.differs for (c,) in decided) / trials
    return found


def collapse(trials: int) -> dict[str, float]:
    """Return the share where one of several methods with equal means loses 30 points in a fifth
    of its seeds.
    """
    random, found, count = np.random.default_rng(24), {}, trials // 4
    for methods, seeds in ((2, 3), (2, 5), (2, 10), (5, 3), (5, 5), (5, 10)):
        world, share = World(spreads=(1.0,) * methods), np.full((count, methods, seeds), 0.7)
        share[:, 0] += 0.06 - 0.3 * (random.random((count, seeds)) < 0.2)
        right = random.random((count, methods, seeds, ROWS), dtype=np.float32) < share[..., None]
        cost = pages.cost_squares(cost_logs(world, seeds, count, random))
        metrics = [pages.Squares(seeds, methods, *pages.answer_squares(right)), cost]
        found[f"{methods} methods, {seeds} seeds"] = pages.false_pages(world, metrics)
    return found


def periodic(trials: int) -> dict[str, float]:
    """Return the share where a sinusoid of 10 % with a period near four runs disturbs the time
    of two methods.
    """
    random, world = (
        np.random.default_rng(25),
        World(spreads=(1, 1), disturbance="sinusoid of 10 %, period near 4 runs"),
    )
    return {
        f"{n} seeds": pages.false_pages(world, pages.page_metrics(world, n, trials, random))
        for n in (3, 5, 10)
    }


FAULTS: Mapping[str, Callable[[int], dict[str, float]]] = {
    "few rows": few_rows,
    "few suites": few_suites,
    "means without rows, always yes and always no": means_alone,
    "a method that loses 30 points in a fifth of its seeds": collapse,
    "a periodic disturbance of two methods' time": periodic,
}
"""Shares of false pages by condition, for reports/reference/power/power.json."""
