"""Intervals of a mean over seeds and of a proportion of test rows; paired tests of means."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # whose `special` loads when first used; scipy.stats takes 0.6 s to import
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05  # two-sided level of every test, and one minus the confidence of every interval


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its spread and interval; without a second seed the last three are
    None.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def mean_interval(values: ArrayLike, grid: float | None = None) -> Interval:
    """Return mean, standard deviation (n - 1) and 95 % interval.

    Student's t (1908), whatever the number of values: a BCa bootstrap covers less. On a known grid
    g the variance of rounding to it, g²/12, is added to the interval's. Constant data on no grid
    give a point. ValueError as of `finite`.
    """
    data = finite(values)
    mean = float(data.mean())
    if data.size < 2:
        return Interval(1, mean, None, None, None)
    if data.min() == data.max():  # floating-point means of equal numbers may differ from them
        mean, sd = float(data[0]), 0.0
    else:
        sd = float(data.std(ddof=1))
    error = math.sqrt((sd**2 + (grid or 0.0) ** 2 / 12) / data.size)
    half = t_quantile(1 - ALPHA / 2, data.size - 1) * error
    return Interval(data.size, mean, sd, mean - half, mean + half)


def share_interval(share: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share of so many trials (1927): the noise of a
    finite test set alone.
    """
    z = float(scipy.special.ndtri(1 - ALPHA / 2))
    weight = z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def clopper_pearson(k: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the exact interval of a probability of which k of n trials succeeded, at confidence
    1 - alpha (1934).
    """
    inverse = scipy.special.betaincinv
    low = float(inverse(k, n - k + 1, alpha / 2)) if k else 0.0
    return low, float(inverse(k + 1, n - k, 1 - alpha / 2)) if k < n else 1.0


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """Return the values as a flat array; a ValueError without any, or with one that isn't
    finite.
    """
    data = np.asarray(values, dtype=float).ravel()
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError("an interval or a test needs at least one value, and finite ones")
    return data


def t_quantile(probability: float, degrees: float) -> float:
    return float(scipy.special.stdtrit(degrees, probability))


def sign_flip(differences: ArrayLike) -> float:
    """Return the exact two-sided p of the sign-flip test: the share of the 2^n sign patterns
    with as large a |sum|.
    """
    # Fisher 1935, The Design of Experiments, §21. Above 16 differences 20,000 patterns are drawn
    # (seeded), and the observed one is counted in (Phipson and Smyth 2010).
    data = finite(differences)
    observed, drawn = abs(data.sum()) * (1 - 1e-12), data.size > 16
    parts = np.array_split(
        _patterns(data.size), max(1, data.size // 50)
    )  # as floats they take eight times the memory
    larger = sum(int(np.sum(np.abs(part.astype(float) @ data) >= observed)) for part in parts)
    return (larger + 1) / 20_001 if drawn else larger / 2**data.size


@lru_cache(maxsize=4)
def _patterns(n: int) -> NDArray[np.int8]:
    if n <= 16:
        return np.array(list(itertools.product((1, -1), repeat=n)), dtype=np.int8)
    return np.random.default_rng(0).choice(np.array([1, -1], dtype=np.int8), size=(20_000, n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p values: max over j <= i of min(1, (m - j + 1) p_(j))
    (Holm 1979).
    """
    return _step_down(p_values, lambda position: len(p_values) - position)


def weighted_holm(
    p_values: Sequence[float], weights: Sequence[float], passed_on: float = 1.0
) -> list[float]:
    """Return p adjusted by Holm's procedure with weights (1979, section 3), of hypotheses whose
    weights sum to 1.

    A hypothesis of weight w is tested at w times the level, and once rejected passes its part on to
    the others by their weights: with W the weights that are left, w / W of the level. Where each
    difference shares its part with an equivalence, of which only one can be false, it passes on a
    share of it (`passed_on`, at most 1) and leaves the rest to the equivalence: w (1 + passed_on (1
    - W) / W) of the level, a graph of Bretz et al. (2009).
    """
    adjusted, largest, left = [0.0] * len(p_values), 0.0, 1.0
    for index in sorted(range(len(p_values)), key=lambda at: p_values[at] / weights[at]):
        share = weights[index] * (1 + passed_on * (1 - left) / left)
        largest = max(largest, min(1.0, p_values[index] / share))
        adjusted[index] = largest
        left -= weights[index]
    return adjusted


def shaffer(p_values: Sequence[float], methods: int, least: float = 0.0) -> list[float]:
    """Return p of pairs of methods, adjusted by Shaffer's step-down procedure with static
    restrictions (1986, S1).

    As `holm`, but the j-th smallest p is multiplied by the most pairs that can be equal when j - 1
    aren't, as equality is transitive, and at least by a share `least` of the pairs.
    """
    tested = len(p_values)
    return _step_down(
        p_values, lambda position: max(most_equal(methods, position, tested), least * tested)
    )


def _step_down(p_values: Sequence[float], factor: Callable[[int], float]) -> list[float]:
    """Return p adjusted by a factor of their position in ascending order, none less than one
    before it.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, factor(position) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def most_equal(methods: int, different: int, tested: int) -> int:
    """Return the most of the tested pairs that can be equal when so many pairs of the methods
    aren't.
    """
    every = methods * (methods - 1) // 2
    return min(
        tested - different,
        max(count for count in _equal_pairs(methods) if count <= every - different),
    )


@lru_cache(maxsize=64)
def _equal_pairs(methods: int) -> frozenset[int]:
    """Return the numbers of pairs that can be equal: sums of j (j - 1) / 2 over the sizes j of
    groups of equals.
    """
    if methods < 2:
        return frozenset({0})
    sizes = range(1, methods + 1)
    return frozenset(
        size * (size - 1) // 2 + rest for size in sizes for rest in _equal_pairs(methods - size)
    )
