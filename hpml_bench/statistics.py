"""How sure one can be: intervals, paired tests and ranks over seeds.

scipy does the distributions, ours is the composition.

Seeds are paired: the same seed gives every method the same data order, so methods are compared by their differences
within a seed. Values travel as `{method: {seed: value}}` and may lack seeds; a pair is compared on those it shares.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
"""Two-sided level of every test, and one minus the confidence of every interval."""
POWER = 0.8
"""Power at which a difference counts as detectable."""

Values = Mapping[str, Mapping[int, float]]
"""method -> seed -> value; finite numbers only."""
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its spread and interval; without a second seed the last three are None."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Method `a` against method `b` on one metric, over the seeds both have; differences are a - b."""

    a: str
    b: str
    difference: Interval
    p: float | None
    """Paired t, two-sided. None where it can't be computed (fewer than two seeds)."""
    p_adjusted: float | None
    """Holm over the family of comparisons this one belongs to."""
    p_sign_flip: float | None
    """Exact sign-flip permutation test, which assumes symmetry only."""
    sign_flip_floor: float | None
    """The least p that the sign-flip test can reach with so many seeds: 2 / 2^n."""
    superiority: float | None
    """Share of seeds in which a > b, ties counted half."""
    detectable: float | None
    """Least true difference found with a chance of 80 % at this spread and number of seeds, without adjustment."""
    exact: bool = False
    """The metric has no noise: the values themselves decide, not a test."""

    @property
    def differs(self) -> bool:
        """Whether the difference is real at the family's level of 5 %."""
        return self.p_adjusted is not None and self.p_adjusted < ALPHA

    @property
    def higher(self) -> str:
        """The method with the higher mean."""
        return self.a if self.difference.mean > 0 else self.b

    @property
    def lower(self) -> str:
        """The method with the lower mean."""
        return self.b if self.difference.mean > 0 else self.a


def mean_interval(values: ArrayLike) -> Interval:
    """Return mean, standard deviation (n - 1) and the Student-t 95 % interval.

    mean ± t(0.975, n - 1) · sd / √n. Constant data give a point. A percentile or BCa bootstrap covers too little at
    few seeds (BCa 84 % at n = 5), so Student's t it is (Student 1908).

    Raises:
        ValueError: no value, or one that isn't finite.

    """
    data = _finite(values)
    mean = float(data.mean())
    if data.size < 2:
        return Interval(1, mean, None, None, None)
    if data.min() == data.max():  # floating-point means of equal numbers may differ from them
        point = float(data[0])
        return Interval(data.size, point, 0.0, point, point)
    sd = float(data.std(ddof=1))
    half = _t_quantile(1 - ALPHA / 2, data.size - 1) * sd / math.sqrt(data.size)
    return Interval(data.size, mean, sd, mean - half, mean + half)


def paired_t(differences: ArrayLike) -> float | None:
    """Return the two-sided p of the paired t test: t = mean / (sd / √n) with n - 1 degrees of freedom.

    Equal differences have no spread to judge by: all zero gives 1; equal but not zero, the sign-flip p, since a
    spread of nothing in a few quantised values is luck and no proof. None with fewer than two differences.
    """
    data = _finite(differences)
    if data.size < 2:
        return None
    if np.ptp(data) <= 1e-9 * np.abs(data).max():  # equal but for rounding
        return 1.0 if data[0] == 0 else sign_flip(data)
    from scipy.special import stdtr  # scipy.stats takes 0.6 s to import

    t = data.mean() / (data.std(ddof=1) / math.sqrt(data.size))
    return float(2 * stdtr(data.size - 1, -abs(t)))


def sign_flip(differences: ArrayLike) -> float:
    """Return the exact two-sided p of the sign-flip test: the share of the 2^n sign patterns whose |sum| is as large.

    Fisher 1935, The Design of Experiments, §21. Above 16 differences 20,000 patterns are drawn (seeded), and the
    observed one is counted in (Phipson and Smyth 2010).
    """
    data = _finite(differences)
    observed = abs(data.sum()) * (1 - 1e-12)
    if data.size <= 16:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=data.size)))
        return float(np.mean(np.abs(signs @ data) >= observed))
    signs = np.random.default_rng(0).choice((1.0, -1.0), size=(20_000, data.size))
    return float((np.sum(np.abs(signs @ data) >= observed) + 1) / 20_001)


def sign_flip_floor(n: int) -> float:
    """Return the least two-sided p that `sign_flip` can reach with n differences: 2 / 2^n."""
    return 2.0 ** (1 - n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p values: max over j <= i of min(1, (m - j + 1) p_(j)) (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(order), 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - position) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable_difference(sd: float, n: int) -> float:
    """Return the least true difference that a paired t test over n seeds finds with a chance of 80 %.

    (t(1 - α/2, n - 1) + t(power, n - 1)) · sd / √n, for differences of standard deviation `sd`.
    """
    return (_t_quantile(1 - ALPHA / 2, n - 1) + _t_quantile(POWER, n - 1)) * sd / math.sqrt(n)


def compare_pairs(values: Values, *, exact: bool = False) -> tuple[Comparison, ...]:
    """Compare every pair of methods on one metric, in the order given, Holm-adjusted over these pairs.

    Args:
        values: method -> seed -> value; pairs that share no seed are left out.
        exact: the metric has no noise (a count of parameters): any difference is real, and p is 0 or 1.

    """
    pairs = itertools.combinations(values, 2)
    compared = [_compare(a, b, values[a], values[b], exact) for a, b in pairs if values[a].keys() & values[b].keys()]
    return adjust(compared)


def adjust(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Return the comparisons as one family: Holm over all that have a p; exact ones need no adjustment."""
    family = tuple(comparisons)
    tested = [c for c in family if c.p is not None and not c.exact]
    adjusted = iter(holm([c.p for c in tested if c.p is not None]))
    return tuple(replace(c, p_adjusted=c.p if c.exact or c.p is None else next(adjusted)) for c in family)


def rank_intervals(
    comparisons: Iterable[Comparison], methods: Sequence[str], better: Better
) -> dict[str, tuple[int, int]]:
    """Return each method's rank as an interval: [1 + number significantly better, k - number significantly worse].

    Ties are not transitive, so a single order would claim more than is known.
    """
    ahead = dict.fromkeys(methods, 0)
    behind = dict.fromkeys(methods, 0)
    for c in comparisons:
        if c.differs and better != "neither":
            winner, loser = (c.higher, c.lower) if better == "higher" else (c.lower, c.higher)
            ahead[loser] += 1
            behind[winner] += 1
    return {method: (1 + ahead[method], len(methods) - behind[method]) for method in methods}


def pareto_efficient(points: Mapping[str, Sequence[float]], better: Sequence[Better]) -> tuple[str, ...]:
    """Return the names no other point dominates: none is as good in every coordinate and better in one."""
    signs = np.array([1.0 if direction == "higher" else -1.0 for direction in better])
    oriented = {name: np.asarray(point, dtype=float) * signs for name, point in points.items()}

    def dominated(point: NDArray[np.float64]) -> bool:
        return any(bool(np.all(other >= point) and np.any(other > point)) for other in oriented.values())

    return tuple(name for name, point in oriented.items() if not dominated(point))


def binomial_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion (Wilson 1927): the noise of a finite test set alone."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(1 - ALPHA, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947) from the rows that only one of two methods gets right."""
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def _compare(a: str, b: str, of_a: Mapping[int, float], of_b: Mapping[int, float], exact: bool) -> Comparison:
    shared = sorted(of_a.keys() & of_b.keys())
    differences = np.array([of_a[seed] - of_b[seed] for seed in shared])
    interval = mean_interval(differences)
    if exact:
        p = 0.0 if np.any(differences != 0) else 1.0
        return Comparison(a, b, interval, p, p, None, None, None, None, exact=True)
    several = interval.sd is not None
    return Comparison(
        a,
        b,
        interval,
        p=paired_t(differences),
        p_adjusted=None,
        p_sign_flip=sign_flip(differences) if several else None,
        sign_flip_floor=sign_flip_floor(interval.n) if several else None,
        superiority=float(np.mean((differences > 0) + 0.5 * (differences == 0))) if several else None,
        detectable=detectable_difference(interval.sd, interval.n) if interval.sd is not None else None,
    )


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=float).ravel()
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError("an interval or a test needs at least one value, and finite ones")
    return data


def _t_quantile(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
