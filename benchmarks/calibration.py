"""Calibration of a report's claims: how often verdicts, ranks and fronts are false, coverage of intervals, and power.

`python benchmarks/calibration.py` prints the tables of docs/methodology.md; `--trials 300` is a quick look.
tests/benchmarks/test_calibration.py asserts what must hold. A page's claims are made by the report's own functions,
from answers and costs of five methods that are drawn here.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import calibration_cases as cases
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from hpml_bench import statistics
from hpml_bench.statistics import ALPHA, Comparison
from hpml_bench.statistics.verdicts import FOR_DIFFERENCES, OF_SCORE
from hpml_bench.sweep.plan import methods_of_seed

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]
METHODS = 5
NAMES = tuple(f"m{number}" for number in range(METHODS))
ROWS = 1000
MARGIN_QUALITY, MARGIN_COST = 0.01, 0.05
EASE, SEED_SD, LIKING_SD, OWN_SD = 0.9, 0.05, 0.5, 0.3
"""Mean ease of a row, and sd of a seed's skill, of a method's liking of a row, and of a run's own errors, in standard
deviations of the rows' ease."""
GIFTS = (0.0, 0.3, 0.6, 0.9, 1.2)
"""By how much the methods differ in each row, where they change places from row to row."""
PAGE_MB, MEMORY_MB = 2.097152, 60.0
"""Memory is measured in pages."""
COST_SD = 0.02
"""Standard deviation of the logarithm of a cost, of a method with spread 1."""
GROUPS = ((5, True), (10, True), (10, False))
"""Rows of a group, and whether all groups have as many."""


def tied(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return normal noise on a grid of one standard deviation, as accuracies of a small test set are."""
    return np.round(random.standard_normal(shape))


def skewed(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return exponential noise less its mean."""
    return np.asarray(random.standard_exponential(shape) - 1, dtype=np.float64)


def student_3(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return Student's t with 3 degrees of freedom, scaled to variance 1."""
    return np.asarray(random.standard_t(3, shape) / math.sqrt(3), dtype=np.float64)


NOISE: dict[str, Noise] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "t3": student_3,
    "skewed": skewed,
    "tied": tied,
}
"""Noise of mean 0 and, but for `tied`, of variance 1."""

Disturbance = Callable[[np.random.Generator, int], Floats]


def _autoregressive(random: np.random.Generator, runs: int) -> Floats:
    """Return stationary AR(1) noise with coefficient 0.8 and three times a run's own sd."""
    values = np.empty(runs)
    values[0] = random.standard_normal()
    for run in range(1, runs):
        values[run] = 0.8 * values[run - 1] + 0.6 * random.standard_normal()
    return 3 * COST_SD * values


DISTURBANCES: dict[str, Disturbance] = {
    "none": lambda _, runs: np.zeros(runs),
    "drift of 10 %": lambda _, runs: np.linspace(0, 0.1, runs, dtype=np.float64),
    "bursts": lambda random, runs: np.where(random.random(runs) < 0.1, 0.2, 0.0),
    "AR(0.8)": _autoregressive,
}
"""What the machine does to the logarithm of a cost, over the runs of a sweep in their order."""


@dataclass(frozen=True)
class World:
    """What is true of the methods, and how they are measured."""

    noise: str = "normal"
    spreads: tuple[float, ...] = (1, 1, 1, 1, 1)
    """Of the methods' costs and of their skill over seeds."""
    disturbance: str = "none"
    accuracy: tuple[float, ...] = (0, 0, 0, 0, 0)
    """True differences of the methods' accuracies over all rows and seeds."""
    cost: tuple[float, ...] = (0, 0, 0, 0, 0)
    """True logarithms of their costs."""
    permuted: bool = True
    """Answers are permuted over the methods within each row: equal over all rows. Else accuracies differ as said."""


UNEQUAL = (1.0, 3.0, 10.0, 1.0, 3.0)
AT_MARGIN = math.log1p(MARGIN_COST)
WORLDS: dict[str, World] = {
    "normal, all equal": World(),
    "normal, spreads 1:3:10": World(spreads=UNEQUAL),
    "normal, drift of 10 % over the sweep": World(disturbance="drift of 10 %"),
    "normal, bursts": World(disturbance="bursts"),
    "normal, AR(0.8)": World(disturbance="AR(0.8)"),
    "normal, two groups": World(cost=(0, 0, 0, 0.3, 0.3), accuracy=(0, 0, 0, 0.06, 0.06), permuted=False),
    "normal, apart by the margin": World(
        cost=(0, 0, 0, AT_MARGIN, AT_MARGIN), accuracy=(0, 0, 0, 0.01, 0.01), permuted=False
    ),
    "t3, all equal": World(noise="t3"),
    "t3, spreads 1:3:10": World(noise="t3", spreads=UNEQUAL),
    "skewed, all equal": World(noise="skewed"),
    "skewed, spreads 1:3:10": World(noise="skewed", spreads=UNEQUAL),
}
BOUNDS = {"normal": 0.05, "t3": 0.08}
"""Most false claims a page may make, by noise; that of skewed noise is measured and printed."""

Family = Mapping[str, tuple[Comparison, ...]]
BETTER: Mapping[str, statistics.Better] = {"accuracy": "higher", "time": "lower", "memory": "lower"}


def page(world: World, n: int, random: np.random.Generator) -> Family:
    """Return the verdicts of one page over n seeds of five methods."""
    right = answers(world, n, random)
    scores = statistics.compare_scores(
        {name: dict(enumerate(of)) for name, of in zip(NAMES, right, strict=True)}, MARGIN_QUALITY
    )
    pairs = {"accuracy": scores}
    for metric in ("time", "memory"):
        cost, grid = costs(world, n, random), None
        if metric == "memory":
            cost, grid = np.maximum(1, np.round(MEMORY_MB * cost / PAGE_MB)) * PAGE_MB, PAGE_MB
        values = {name: dict(enumerate(of)) for name, of in zip(NAMES, cost, strict=True)}
        pairs[metric] = statistics.compare_costs(values, MARGIN_COST, grid)
    return statistics.decide_family(pairs, score="accuracy")


def answers(world: World, n: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return which rows are right, [methods, seeds, rows].

    A row is right where its ease + the method's own liking of it + the seed's skill + noise exceed a threshold.
    """
    ease = random.standard_normal(ROWS)
    liking = LIKING_SD * random.standard_normal((METHODS, 1, ROWS))
    skill = SEED_SD * np.array(world.spreads)[:, None, None] * NOISE[world.noise](random, (METHODS, n, 1))
    own = OWN_SD * random.standard_normal((METHODS, n, ROWS))
    if world.permuted:  # the methods' unequal gifts change places within each row
        places = random.permuted(np.tile(np.arange(METHODS), (ROWS, 1)), axis=1).T  # [methods, rows]
        liking = np.take_along_axis(np.array(GIFTS)[:, None, None] + liking, places[:, None, :], axis=0)
    return np.asarray(ease + liking + skill + own + np.array(thresholds(world))[:, None, None] > 0)


@cache
def thresholds(world: World) -> tuple[float, ...]:
    """Return what makes each method right in the share of all rows and seeds that the world says, by integration."""
    base = float(special.ndtr(EASE / math.sqrt(1 + LIKING_SD**2 + OWN_SD**2)))
    return tuple(
        float(optimize.brentq(lambda at: _share(world, spread, at) - base - more, -20, 20))  # noqa: B023 - used at once
        for spread, more in zip(world.spreads, world.accuracy, strict=True)
    )


def _share(world: World, spread: float, threshold: float) -> float:
    """Return the share of right rows over all rows and seeds, of a method with this spread of skill."""
    skill = SEED_SD * spread * NOISE[world.noise](np.random.default_rng(6), (200_000, 1))
    gifts = np.array(GIFTS if world.permuted else [0.0])
    return float(special.ndtr((threshold + gifts + skill) / math.sqrt(1 + LIKING_SD**2 + OWN_SD**2)).mean())


def costs(world: World, n: int, random: np.random.Generator) -> Floats:
    """Return a cost, [methods, seeds], of runs in the order of a sweep."""
    shared = 0.05 * random.standard_normal((1, n))
    own = COST_SD * np.array(world.spreads)[:, None] * NOISE[world.noise](random, (METHODS, n))
    along = DISTURBANCES[world.disturbance](random, METHODS * n).reshape(n, METHODS)
    disturbed, lot = np.empty((METHODS, n)), str(random.integers(2**60))
    for seed in range(n):
        disturbed[list(methods_of_seed(METHODS, seed, lot)), seed] = along[seed]
    return np.exp(np.array(world.cost)[:, None] + shared + own + disturbed)


def false_claims(world: World, family: Family) -> int:
    """Return how many claims of a page are false: verdicts of pairs, rank intervals, places on the front."""
    truth = {"accuracy": world.accuracy, "time": world.cost, "memory": world.cost}
    margins = {"accuracy": MARGIN_QUALITY, "time": AT_MARGIN, "memory": AT_MARGIN}
    better = {
        metric: {
            (a, b): (x - y) * (1 if BETTER[metric] == "higher" else -1) for a, x in _named(of) for b, y in _named(of)
        }
        for metric, of in truth.items()
    }
    wrong = 0
    for metric, comparisons in family.items():
        for c in comparisons:
            winner = c.winner(BETTER[metric])
            wrong += winner is not None and better[metric][winner, c.other(winner)] <= 0
            wrong += c.equivalent and abs(better[metric][c.a, c.b]) >= margins[metric] * (1 - 1e-9)
        for method, (low, high) in statistics.rank_intervals(comparisons, NAMES, BETTER[metric]).items():
            ahead = sum(better[metric][other, method] > 0 for other in NAMES)
            behind = sum(better[metric][method, other] > 0 for other in NAMES)
            wrong += low - 1 > ahead or METHODS - high > behind
    for method, place in statistics.pareto_membership(NAMES, family, BETTER).items():
        gains = [[better[metric][other, method] for metric in family] for other in NAMES if other != method]
        dominated = any(min(of) >= 0 and max(of) > 0 for of in gains)
        nearly = any(
            max(of) > 0 and all(gain > -margins[m] for gain, m in zip(of, family, strict=True)) for of in gains
        )
        wrong += (place.place == "on" and dominated) or (place.place == "off" and not nearly)
    return wrong


def _named(values: tuple[float, ...]) -> Iterator[tuple[str, float]]:
    return zip(NAMES, values, strict=True)


def false_pages(world: World, n: int, trials: int, seed: int = 0) -> float:
    """Return the share of pages that make any false claim."""
    random = np.random.default_rng([seed, n])
    return sum(false_claims(world, page(world, n, random)) > 0 for _ in range(trials)) / trials


def claims(world: World, n: int, trials: int) -> tuple[float, float]:
    """Return the shares of pairs of a page that are called better, and equivalent."""
    random = np.random.default_rng([1, n])
    found = [c.verdict for _ in range(trials) for of in page(world, n, random).values() for c in of]
    return found.count("different") / len(found), found.count("equivalent") / len(found)


def coverage(noise: Noise, n: int, trials: int) -> float:
    """Return the share of samples of n whose 95 % interval holds the true mean, 0."""
    values = noise(np.random.default_rng(1), (trials, n))
    half = special.stdtrit(n - 1, 1 - ALPHA / 2) * values.std(axis=-1, ddof=1) / np.sqrt(n)
    return float(np.mean(np.abs(values.mean(axis=-1)) <= half))


def marked(noise: str, n: int, trials: int, spreads: tuple[float, float] = (1.0, 10.0)) -> float:
    """Return the share of pairs of methods with these spreads that are marked as skewed and of unequal spread."""
    random = np.random.default_rng(4)
    pairs = (np.array(spreads)[:, None] * NOISE[noise](random, (2, n)) for _ in range(trials))
    return sum(statistics.looks_skewed(*pair) for pair in pairs) / trials


def percent(share: float) -> str:
    """Return a share as the tables have it."""
    return f"{100 * share:.1f} %"


def print_table(title: str, head: Sequence[str], rows: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Print a table in Markdown, each row as soon as it is known."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_pages(trials: int) -> None:
    """Print how often pages make a false claim, and how many pairs are marked as skewed."""
    sizes = ("n = 3", "n = 5", "n = 10")
    title = f"Pages with any false claim (verdicts, ranks, front), {METHODS} methods, 3 metrics, {trials:,} pages each"
    rows = ((name, (percent(false_pages(world, n, trials)) for n in (3, 5, 10))) for name, world in WORLDS.items())
    print_table(title, ("noise and truth", *sizes), rows)
    marks = ((noise, (percent(marked(noise, n, 2000)) for n in (3, 5, 10))) for noise in ("normal", "skewed"))
    print_table("Pairs marked as skewed and of unequal spread (1:10)", ("noise", *sizes), marks)


def print_intervals(trials: int) -> None:
    """Print the coverage of intervals."""
    sizes, samples = (3, 5, 10, 20, 40), 50_000 if trials >= 1000 else 5_000
    rows = ((of, (percent(coverage(NOISE[of], n, samples)) for n in sizes)) for of in ("normal", "skewed", "tied"))
    title = f"Coverage of the 95 % interval of a mean, {samples:,} samples"
    print_table(title, ("noise", *(f"n = {n}" for n in sizes)), rows)


def paired_t_power(difference: float, n: int, alpha: float) -> float:
    """Return the chance that a two-sided paired t test over n seeds finds a difference in units of its sd (Cohen 1988).

    1 - F(t) + F(-t) of the noncentral t; where scipy has NaN for F, less than 1e-12 lies below t.
    """
    critical, centre = float(special.stdtrit(n - 1, 1 - alpha / 2)), math.sqrt(n) * abs(difference)
    below, wrong = (float(np.nan_to_num(special.nctdtr(n - 1, centre, t))) for t in (critical, -critical))
    return 1 - below + wrong


def planned_power(pilot: int, size: float, level: float, trials: int) -> tuple[float, float]:
    """Return the mean power for `size` of the seeds planned from a pilot's spread, and from its upper 80 % bound.

    A pilot of normal values with an sd of 1 estimates it with pilot - 1 degrees of freedom.
    """
    spreads = np.sqrt(np.random.default_rng(0).chisquare(pilot - 1, trials) / (pilot - 1))
    found = []
    for planned in (spreads, [statistics.sd_upper_bound(float(sd), pilot) for sd in spreads]):
        seeds = [statistics.seeds_needed(size, float(sd), level) for sd in planned]
        found.append(float(np.mean([paired_t_power(size, n, level) for n in seeds if n is not None])))
    return found[0], found[1]


def print_planned(trials: int) -> None:
    """Print the mean power of the numbers of seeds that `plan` gives from a pilot."""
    first, following = (ALPHA * FOR_DIFFERENCES * OF_SCORE * statistics.spent_at(look) / 10 for look in (1, 2))
    levels = {"alone": ALPHA, "the first step of 10 pairs, a new folder": first, "the next look": following}

    def cells(level: float) -> Iterator[str]:
        for pilot in (3, 5, 10):
            plain, cautious = planned_power(pilot, 1.0, level, trials)
            yield f"{percent(plain)} ({percent(cautious)})"

    title = "Mean power of the seeds that `plan` gives (cautious) for a difference of one standard deviation"
    rows = ((f"{label}, {100 * level:.2g} %", cells(level)) for label, level in levels.items())
    print_table(title, ("level", "pilot of 3", "of 5", "of 10"), rows)


def grouped_pages(size: int, trials: int, *, known: bool, n: int = 5, even: bool = True, rows: int = ROWS) -> float:
    """Return the share of pages with a false claim on the score where test rows are in groups, all methods equal.

    Rows of a group share their ease, the methods' liking of it and their gifts, as the questions of one document may;
    each run's own errors are a row's.

    Args:
        size: rows of a group; where not `even` their mean, from 1 to 2 size - 1.
        trials: number of pages.
        known: whether a page knows the groups; else it takes the rows for independent.
        n: seeds.
        even: whether all groups have as many rows.
        rows: about how many test rows there are.

    """
    random, world, false = np.random.default_rng([7, size, n]), World(), 0
    for _ in range(trials):
        count = rows // size
        sizes = np.full(count, size) if even else random.integers(1, 2 * size, count)
        group = np.repeat(np.arange(count), sizes)
        gifts = random.permuted(np.tile(GIFTS, (count, 1)), axis=1).T
        liking = gifts + LIKING_SD * random.standard_normal((METHODS, count))
        skill = SEED_SD * random.standard_normal((METHODS, n, 1))
        own = OWN_SD * random.standard_normal((METHODS, n, len(group)))
        ease = random.standard_normal(count) + liking + thresholds(world)[0]
        right = ease[:, None, group] + skill + own > 0
        scores = {
            name: {seed: statistics.group_scores(row, group) if known else row for seed, row in enumerate(of)}
            for name, of in zip(NAMES, right, strict=True)
        }
        false += any(c.differs for c in statistics.decide(statistics.compare_scores(scores, MARGIN_QUALITY)))
    return false / trials


def print_groups(trials: int) -> None:
    """Print how often pages make a false claim on the score where test rows depend on each other."""

    def cells(size: int, even: bool) -> Iterator[str]:
        return (percent(grouped_pages(size, trials, known=known, even=even)) for known in (False, True))

    title = f"Pages with a false claim on the score, 5 seeds, {ROWS:,} test rows in groups, {trials:,} pages each"
    kinds = ((str(size) if even else f"1 to {2 * size - 1}", cells(size, even)) for size, even in GROUPS)
    print_table(title, ("rows of a group", "taken for independent", "tested by group"), kinds)


def print_cases(pages: int) -> None:
    """Print the rate of pages with a false claim of each case, its upper bound, and the share of marked pages."""

    def cells(case: cases.Case) -> Iterator[str]:
        wrong, marks = cases.rates(case, pages)
        yield from map(percent, (wrong / pages, cases.bounded(wrong, pages), marks / pages))

    title = f"Pages with a false claim that is not marked, 5 seeds, {pages:,} pages each"
    rows = ((name, cells(case)) for name, case in cases.cases())
    print_table(title, ("case", "false", "upper 97.5 % bound", "marked"), rows)

    def slow(share: float, n: int) -> str:
        return percent(cases.rates(partial(cases.rare_slow_page, share, seeds=n), pages)[0] / pages)

    title = "The same where a share of one method's runs is 30 % slower, and the others faster by as much on average"
    rare = ((f"{100 * share:.0f} %", (slow(share, n) for n in (5, 10))) for share in (0.05, 0.1, 0.2))
    print_table(title, ("share", "5 seeds", "10 seeds"), rare)


PARTS: Mapping[str, Callable[[int], None]] = {
    "pages": print_pages,
    "cases": print_cases,
    "intervals": print_intervals,
    "planned": print_planned,
    "groups": print_groups,
}
"""What is printed, in this order."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Print how often a page is wrong, by simulation.")
    parser.add_argument("--trials", type=int, default=3000, help="pages of each kind")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    chosen = parser.parse_args()
    for name, part in PARTS.items():
        if chosen.only in {None, name}:
            part(chosen.trials)


if __name__ == "__main__":
    main()
