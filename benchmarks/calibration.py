"""How often the report's statistics are wrong: false claims, coverage and power, by vectorised simulation.

`python benchmarks/calibration.py` prints the tables of docs/methodology.md, in two minutes; tests/test_calibration.py
asserts what must hold, and that the vectorised twins here equal `hpml_bench.statistics`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy import special

from hpml_bench import statistics
from hpml_bench.statistics import ALPHA, intervals

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]
METHODS = 5


def tied(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return normal noise on a grid of one standard deviation, as accuracies of a small test set are."""
    return np.round(random.standard_normal(shape))


NOISE: dict[str, Noise] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "skewed": lambda random, shape: random.standard_exponential(shape) - 1,
    "tied": tied,
}
"""Noise of one method at one seed, of mean 0."""
NULLS: dict[str, tuple[float, ...]] = {
    "complete": (0, 0, 0, 0, 0),
    "partial, one apart": (0, 0, 0, 0, 2),
    "partial, two groups": (0, 0, 0, 3, 3),
    "partial, chain": (0, 0, 1, 2, 2),
}
"""True means of five methods, in standard deviations; a claim about equal ones, or of the wrong sign, is false."""


def simulate(noise: Noise, means: tuple[float, ...], n: int, trials: int, seed: int = 0) -> Floats:
    """Return values [trials, methods, n seeds]: true mean + the seed's own part, shared + the method's noise."""
    random = np.random.default_rng(seed)
    shared = random.standard_normal((trials, 1, n))
    return np.array(means)[None, :, None] + shared + noise(random, (trials, len(means), n))


def p_values(differences: Floats) -> Floats:
    """Return `paired_t` along the last axis."""
    n = differences.shape[-1]
    gaps = np.diff(np.sort(differences, axis=-1), axis=-1)
    apart = gaps > 1e-9 * np.abs(differences).max(axis=-1, keepdims=True)
    grid = np.where(apart.all(axis=-1), 0.0, np.where(apart, gaps, np.inf).min(axis=-1))
    constant = ~apart.any(axis=-1)
    variance = np.where(constant, 1.0, differences.var(axis=-1, ddof=1) + np.where(constant, 0.0, grid) ** 2 / 12)
    p = 2 * special.stdtr(n - 1, -np.abs(differences.mean(axis=-1)) / np.sqrt(variance / n))
    floor = np.where(differences.any(axis=-1), statistics.sign_flip_floor(n), 1.0)
    return np.asarray(np.where(constant, floor, p))


def holm(p: Floats) -> Floats:
    """Return `holm` along the last axis."""
    m = p.shape[-1]
    order = np.argsort(p, axis=-1)
    stepped = np.minimum(1, np.take_along_axis(p, order, -1) * (m - np.arange(m)))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(stepped, axis=-1), -1)
    return adjusted


def adjusted_p(values: Floats) -> tuple[Floats, Floats]:
    """Return mean differences and Holm-adjusted p [trials, pairs] of all pairs, as `compare_pairs` does."""
    pairs = list(combinations(range(values.shape[1]), 2))
    differences = np.stack([values[:, a] - values[:, b] for a, b in pairs], axis=1)
    return differences.mean(axis=-1), holm(p_values(differences))


def false_claims(noise: Noise, means: tuple[float, ...], n: int, trials: int) -> float:
    """Return the share of trials with at least one false "better": the family-wise error rate."""
    difference, p = adjusted_p(simulate(noise, means, n, trials))
    truth = np.array([a - b for a, b in combinations(means, 2)])
    return float(np.mean(((p < ALPHA) & (np.sign(difference) != np.sign(truth))).any(axis=1)))


def student_intervals(values: Floats) -> tuple[Floats, Floats]:
    """Return the ends of Student's interval along the last axis: `mean_interval`'s, for fewer seeds than BCa's."""
    n = values.shape[-1]
    half = special.stdtrit(n - 1, 1 - ALPHA / 2) * values.std(axis=-1, ddof=1) / np.sqrt(n)
    middle = values.mean(axis=-1)
    return middle - half, middle + half


def bca_intervals(values: Floats) -> tuple[Floats, Floats]:
    """Return the ends of `mean_interval` along the last axis as it is where BCa is used, also for fewer seeds."""
    with patch.object(intervals, "BCA_FROM", 2):
        found = [statistics.mean_interval(sample) for sample in values]
    low, high = np.array([[interval.low, interval.high] for interval in found], dtype=float).T
    return low, high


def misses(noise: Noise, n: int, trials: int, bca: bool = False) -> tuple[float, float]:
    """Return the shares of samples of n whose 95 % interval, Student's or BCa's, lies below the true mean, above it."""
    values = noise(np.random.default_rng(1), (trials, n))
    low, high = bca_intervals(values) if bca else student_intervals(values)
    return float(np.mean(high < 0)), float(np.mean(low > 0))


def coverage(noise: Noise, n: int, trials: int, bca: bool = False) -> float:
    """Return the share of samples of n whose 95 % interval holds the true mean, 0."""
    return 1 - sum(misses(noise, n, trials, bca))


def power(difference: float, n: int, alpha: float, trials: int) -> float:
    """Return the share of trials in which the paired t test finds a difference (in sd of the differences)."""
    differences = np.random.default_rng(2).standard_normal((trials, n)) + difference
    return float(np.mean(p_values(differences) < alpha))


def crossed_coverage(seed_sd: float, n: int, rows: int, trials: int) -> tuple[float, float]:
    """Return how often the interval over seeds alone, and the crossed one, holds the accuracy over all rows and seeds.

    A row is right where its ease + the seed's skill + noise > 0: ease and noise are standard normal.
    """
    random = np.random.default_rng(3)
    truth = float(special.ndtr(0.8 / np.sqrt(2 + seed_sd**2)))
    alone = crossed = 0
    for _ in range(trials):
        ease, skill = 0.8 + random.standard_normal(rows), seed_sd * random.standard_normal((n, 1))
        right = (ease + skill + random.standard_normal((n, rows)) > 0).astype(float)
        for_seeds, for_both = statistics.mean_interval(right.mean(axis=1)), statistics.crossed_interval(right)
        alone += (for_seeds.low or 0) <= truth <= (for_seeds.high or 0)
        crossed += (for_both.low or 0) <= truth <= (for_both.high or 0)
    return alone / trials, crossed / trials


def unequal(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return skewed noise whose size differs between methods tenfold: differences are skewed too."""
    sizes = np.geomspace(0.1, 1, shape[1])[None, :, None]
    return sizes * (random.standard_exponential(shape) - 1)


def percent(share: float) -> str:
    """Return a share as the tables have it."""
    return f"{100 * share:.1f} %"


def main(trials: int = 50_000, resampled: int = 10_000) -> None:
    """Print the tables; what resamples takes fewer trials."""
    print(f"Family-wise rate of a false 'better', {METHODS} methods, {trials:,} trials\n")
    print("| noise | null | n = 5 | n = 10 |\n| --- | --- | ---: | ---: |")
    for name, noise in [*NOISE.items(), ("skewed, unequal spread", unequal)]:
        for null, means in NULLS.items():
            rates = (percent(false_claims(noise, means, n, trials)) for n in (5, 10))
            print(f"| {name} | {null} | {' | '.join(rates)} |")
    print(f"\nCoverage of the 95 % interval of a mean, {trials:,} samples of t and {resampled:,} of BCa\n")
    kinds = [(5, False), (10, False), (20, False), (20, True), (40, False), (40, True)]
    headings = [f"n = {n}, {'BCa' if bca else 't'}" for n, bca in kinds]
    print(f"| noise | {' | '.join(headings)} |")
    print(f"| --- |{' ---: |' * len(kinds)}")
    for name, noise in NOISE.items():
        covered = (percent(coverage(noise, n, resampled if bca else trials, bca)) for n, bca in kinds)
        print(f"| {name} | {' | '.join(covered)} |")
    for side, name in enumerate(("below", "above")):
        missed = (percent(misses(NOISE["skewed"], n, resampled if bca else trials, bca)[side]) for n, bca in kinds)
        print(f"| skewed, interval {name} the mean | {' | '.join(missed)} |")
    print("\nCoverage of the true accuracy over other seeds and rows, 5 seeds x 500 rows\n")
    print("| sd of seeds | over seeds | over seeds and rows |\n| ---: | ---: | ---: |")
    for seed_sd in (0.0, 0.05, 0.2):
        alone, crossed = crossed_coverage(seed_sd, 5, 500, 2000)
        print(f"| {seed_sd:g} | {percent(alone)} | {percent(crossed)} |")
    print("\nPower at a difference of two standard deviations: simulated (theory)\n\n| level | n = 5 | n = 10 |")
    print("| --- | ---: | ---: |")
    for label, alpha in (("alone, 5 %", ALPHA), ("Holm's first step of 10, 0.5 %", ALPHA / 10)):
        found = (
            f"{percent(power(2.0, n, alpha, trials))} ({percent(statistics.paired_t_power(2.0, 1.0, n, alpha))})"
            for n in (5, 10)
        )
        print(f"| {label} | {' | '.join(found)} |")


if __name__ == "__main__":
    main()
