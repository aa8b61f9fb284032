"""Statistics: intervals, tests of pairs over seeds, and what seeds would decide."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Json = dict[str, Any]
SHARED = 2.4  # degrees of freedom of the variance that five methods or more of equal noise share


def mean_interval(values: Sequence[float], grid: float) -> tuple[float, float] | None:
    """Return a 95 % interval of the mean of values on a grid."""
    if len(values) < 2:
        return None
    error = math.sqrt((float(np.var(values, ddof=1)) + grid**2 / 12) / len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return float(np.mean(values)) - half, float(np.mean(values)) + half


@dataclass(frozen=True)
class Guard:
    """What m rows, or groups, can't show: rare ones of them that carry a difference."""

    m: int
    span: float = 1.0  # range of a row's score; 0 where it has none
    opposed: tuple[int, ...] = (
        0,
    )  # rows against the mean by over a half, quarter, eighth, sixteenth of the range
    many: float = math.inf  # rows of equal weight that vary as much; no more than m

    @classmethod
    def of(cls, rows: Floats, span: float, weights: Floats) -> "Guard":
        """Return the guard of differences by row; of a mean of 0, whose sign is rounding's, with
        the more opposed.
        """
        mean, opposed = rows.mean(), []
        for half in (span / 2, span / 4, span / 8, span / 16):
            below, above = int((rows < -half).sum()), int((rows > half).sum())
            opposed.append(
                max(below, above) if abs(mean) < 1e-12 * span else below if mean > 0 else above
            )
        many = (
            math.inf
            if np.ptp(weights) <= 1e-9 * weights.max()
            else (weights**2).sum() ** 2 / (weights**4).sum()
        )
        return cls(len(rows), span, tuple(opposed) if span else (0,), float(many))

    @property
    def free(self) -> float:
        """Degrees of freedom of the variance over rows: Satterthwaite's, of squares that weigh
        by squares.
        """
        return self.m - 1.0 if self.many >= self.m else max(1.0, self.many - 1)

    def spread(self, squares: float) -> float:
        """Return the variance of a row from the sum of squares about the mean."""
        return squares / self.m * (1 + self.free) / self.free

    def error(self, margin: float) -> float:
        """Return the standard error where rows that differ by the whole range make up the
        margin.
        """
        share = margin / self.span if self.span > margin else 0.0
        return self.span * math.sqrt(share * (1 - share) / self.m)

    def p(self, distance: float) -> float:
        """Return the chance of no more opposed rows than there are, if unseen ones made up for a
        distance.

        The share s of such rows loses the range, half of it, a quarter or an eighth, whichever
        chance is largest, while the others gain: s loss = (1 - s) gain, where rows are opposed by a
        share already.
        """
        if not self.span:
            return 0.0
        chances = [0.0]
        for halvings, count in enumerate(self.opposed):
            gain = distance / (self.span / 2**halvings)
            share = (count / self.m + gain) / (1 + gain)
            chances.append(float(stats.binom.cdf(count, self.m, share)) if share < 1 else 0.0)
        return max(chances)

    def least(self, level: float) -> float:
        """Return the distance at which that chance is the level."""
        if self.p(0.0) <= level:
            return 0.0  # also without a range
        far = self.span
        while self.p(far) > level:
            far *= 2
        return float(optimize.brentq(lambda d: self.p(float(d)) - level, 0.0, far, xtol=1e-13))


@dataclass(frozen=True)
class Squares:
    """Mean squares of a table of n seeds x m rows, in the two-way random-effects analysis of
    variance.
    """

    seeds: float
    rows: float
    interaction: float
    n: int
    guard: Guard
    prior: float = 0.0  # degrees of freedom of the variance over seeds that methods share

    def at(self, n: int) -> "Squares":
        """Return what is expected of them at another number of seeds."""
        rows = self.rows + (n - self.n) * max(0.0, self.rows - self.interaction) / self.n
        return replace(self, rows=rows, n=n)

    def error(self) -> tuple[float, float]:
        """Return the standard error of the mean and its degrees of freedom."""
        n, m = self.n, self.guard.m
        largest = max(self.seeds + self.rows - self.interaction, self.seeds, self.rows)
        variance = max(largest / (n * m), (self.guard.span / m) ** 2)
        seeds = n - 1 + self.prior
        parts = (
            (self.seeds, seeds),
            (self.rows, self.guard.free),
            (self.interaction, (n - 1) * self.guard.free),
        )
        spread = sum((square / (n * m)) ** 2 / df for square, df in parts)
        return math.sqrt(variance), max(variance**2 / spread, seeds) if spread else seeds


def tail(distance: float, error: float, df: float) -> float:
    """Return the one-sided p of a distance."""
    if error == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(stats.t.sf(distance / error, df))


def below(bound: float, df: float, centre: float) -> float:
    """Return F(bound) of the noncentral t; far out, where scipy has no value, of the normal
    approximation.
    """
    value = float(stats.nct.cdf(bound, df, centre)) if centre < 1000 else math.nan
    return (
        value
        if math.isfinite(value)
        else float(stats.norm.cdf((bound - centre) / math.sqrt(1 + bound**2 / 2 / df)))
    )


def power(centre: float, df: float, alpha: float) -> float:
    """Return the chance that a t with its centre there exceeds the one-sided critical value."""
    return 1 - below(float(stats.t.ppf(1 - alpha, df)), df, centre)


@dataclass(frozen=True)
class Comparison:
    """A mean over n seeds, and for a score over test rows too: what a verdict is made of."""

    mean: float
    variance: float  # of the seeds' values, that of the grid included
    n: int
    squares: Squares | None = None
    prior: float = 0.0  # degrees of freedom of the variance that methods share
    most: ClassVar[int] = 10_000  # the largest number that is planned

    def guard(self, n: int) -> Guard | None:  # noqa: ARG002 - rows are as many at any number of seeds
        """Return the guard against rare rows at a number of seeds, if there are rows."""
        return self.squares.guard if self.squares else None

    def errors(self, n: int) -> list[tuple[float, float]]:
        """Return standard error and degrees of freedom of the tests that show a spread, at a
        number of seeds.
        """
        of_rows = [self.squares.at(n).error()] if self.squares else []
        both = [(math.sqrt(self.variance / n), n - 1.0 + self.prior), *of_rows]
        return [one for one in both if one[0] != 0] or both[:1]

    @property
    def spreads(self) -> bool:
        """Whether anything tells the spread."""
        return any(error > 0 for error, _ in self.errors(self.n))

    def p_margin(self, margin: float) -> float:
        """Return the larger one-sided p of a difference of the margin or more."""
        near = margin - abs(self.mean)
        return max(tail(near, error, df) for error, df in self.errors_at(margin, self.n))

    def errors_at(self, margin: float, n: int) -> list[tuple[float, float]]:
        """Return the errors of the tests of a margin: those over rows are no less than that of
        rare rows.
        """
        guard, found = self.guard(n), self.errors(n)
        return [
            *found[:-1],
            (max(found[-1][0], guard.error(margin) if guard else 0.0), found[-1][1]),
        ]

    def p(self, distance: float) -> float:
        """Return the one-sided p of a distance, the larger of the tests'; rare rows could make
        up for it.
        """
        guard = self.guard(self.n)
        return max(
            guard.p(abs(distance)) if guard else 0.0,
            *(tail(distance, *error) for error in self.errors(self.n)),
        )

    @property
    def p_different(self) -> float:
        """The two-sided p of no difference."""
        return min(1.0, 2 * self.p(abs(self.mean)))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, the widest of the tests'."""
        if self.n < 2 or not self.spreads:
            return None
        half = max(float(stats.t.ppf(0.975, df)) * error for error, df in self.errors(self.n))
        return self.mean - half, self.mean + half

    def accepted(self, level: float) -> tuple[float, float]:
        """Return the ends of the true differences that the two-sided test at a level does not
        reject, by search.
        """
        far = max(error for error, _ in self.errors(self.n))
        while self.p(far) > level / 2:
            far *= 2
        half = float(
            optimize.brentq(
                lambda d: self.p(float(d)) - level / 2, 0.0, far, xtol=1e-14, rtol=1e-12
            )
        )
        return self.mean - half, self.mean + half

    def detectable(self, level: float) -> float:
        """Return the least true difference that the two-sided test at a level finds with a
        chance of 80 %.
        """
        rare = guard.least(level / 2) if (guard := self.guard(self.n)) else 0.0
        least = [rare + float(stats.norm.ppf(0.8)) * self.errors(self.n)[-1][0] if rare else 0.0]
        for error, df in self.errors(self.n):
            root = optimize.brentq(
                lambda t: power(float(t), df, level / 2) - 0.8,  # noqa: B023
                0.0,
                1e4,
                xtol=1e-12,
            )
            least.append(float(root) * error)
        return max(least)

    def found(self, n: int, level: float) -> bool:
        """Whether n seeds would find the difference, were it as measured."""
        errors, guard = self.errors(n), self.guard(n)
        rare = guard.least(level / 2) if guard else 0.0
        beyond = not rare or abs(self.mean) >= rare + float(stats.norm.ppf(0.8)) * errors[-1][0]
        return beyond and all(
            power(abs(self.mean) / error, df, level / 2) >= 0.8 for error, df in errors
        )

    def needed(self, levels: Sequence[float], margin: float) -> int | None:
        """Return the least number of seeds that decide, at the levels of both kinds of claim;
        none above the most.
        """
        near = margin - abs(self.mean)

        def shown_equal(n: int) -> bool:
            errors = self.errors_at(margin, n)
            return near > 0 and all(
                power(near / error, df, levels[1]) >= 0.9 for error, df in errors
            )

        def least(enough: Callable[[int], bool]) -> float:
            low, high = 2, self.most
            if not enough(high):
                return math.inf
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if enough(middle) else (middle, high)
            return high

        either = min(least(lambda n: self.found(n, levels[0])), least(shown_equal))
        return int(either) if math.isfinite(either) else None


def compare_rows(table: Floats, span: float, binary: bool, weights: Floats) -> Comparison:
    """Return the comparison of a table of n seeds x m rows; `span` is the range of a value,
    `binary` right or wrong.

    The weights of rows, or groups, [m], tell how many of them decide how well their variance is
    known.
    """
    n, m = table.shape
    seeds, rows, mean = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    if n < 2:
        return Comparison(mean, math.nan, n)
    rest, guard = table - seeds[:, None] - rows[None, :] + mean, Guard.of(rows, span, weights)
    squares = Squares(
        m * float(((seeds - mean) ** 2).sum()) / (n - 1),
        n * guard.spread(float(((rows - mean) ** 2).sum())),
        guard.spread(float((rest**2).sum())) / (n - 1),
        n,
        guard,
    )
    return Comparison(mean, float(seeds.var(ddof=1)) + (binary / m) ** 2 / 12, n, squares)


def holm(values: Sequence[float]) -> list[float]:
    adjusted, least = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = least
    return adjusted


def equal_pairs(methods: int, largest: int | None = None) -> set[int]:
    """Return how many pairs of methods can be equal: of each way to divide them into groups of
    equals.
    """
    if methods == 0:
        return {0}
    sizes = range(min(methods, largest or methods), 0, -1)
    return {
        math.comb(size, 2) + rest for size in sizes for rest in equal_pairs(methods - size, size)
    }


def shaffer(values: Sequence[float], methods: int, *, sharing: bool) -> list[float]:
    """Return Shaffer's adjusted p; by two thirds of the pairs at least where methods share their
    variances.
    """
    adjusted, least, possible = [0.0] * len(values), 0.0, equal_pairs(methods)
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        # at each step by the most pairs that can still be equal
        still = max(count for count in possible if count <= math.comb(methods, 2) - place)
        factor = max(min(still, len(values) - place), 2 / 3 * len(values) if sharing else 0)
        least = max(least, min(1.0, factor * values[index]))
        adjusted[index] = least
    return adjusted


@dataclass(eq=False)
class Pair:
    """Two methods compared by one metric."""

    metric: str
    first: str
    second: str
    differences: Floats
    comparison: Comparison
    erratic: bool
    sign: int  # 1 where higher is better, -1 where lower is
    scale: float | None
    """What a difference is multiplied by to be shown; None where logarithms are compared, and a
    factor is shown.
    """
    p: float = math.nan
    p_holm: float = math.nan
    p_margin: float = math.nan
    p_margin_holm: float = math.nan

    @property
    def n(self) -> int:
        return len(self.differences)

    @property
    def better(self) -> str | None:
        ahead = self.sign * self.comparison.mean > 0
        return (self.first if ahead else self.second) if self.p_holm < 0.05 else None

    @property
    def equivalent(self) -> bool:
        return self.p_margin_holm < 0.05

    def shown(self, value: float) -> float:
        """Return a difference as it is shown: in the score's scale, or as a factor."""
        return math.exp(value) if self.scale is None else self.scale * value


def erratic(d: Floats, values: list[Floats]) -> bool:
    """Whether the seeds look like skewed noise of unequal spread."""
    if len(d) < 3 or np.ptp(d) == 0:
        return False
    low, high = sorted(float(np.std(x, ddof=1)) for x in values)
    return high >= 3 * low and abs(float(stats.skew(d))) > 1


Lent = dict[frozenset[str], tuple[float, float]]
"""Two methods -> what earlier suites lend: variance over seeds but for the rows' part, and its
degrees of freedom.
"""


def share(pairs: Sequence[Pair], methods: int, lent: Lent) -> None:
    """Give each pair of a metric a variance between its own and the mean of the pairs that have one
    of its methods.

    Where earlier suites lend more degrees of freedom, theirs takes that mean's place.
    """
    if methods < 3 and not lent:
        return

    def between(pair: Pair, variances: dict[Pair, float]) -> tuple[float, float]:
        def having(*names: str) -> list[float]:
            return [v for other, v in variances.items() if {other.first, other.second} & set(names)]

        noises = [float(np.mean(having(name))) for name in (pair.first, pair.second)]
        prior = (
            SHARED
            * min(1.0, (methods - 2) / 3)
            * (min(noises) / max(noises) if any(noises) else 0.0)
        )
        shared = float(np.mean(having(pair.first, pair.second)))
        earlier, freedom = lent.get(frozenset((pair.first, pair.second)), (0.0, 0.0))
        if pair.comparison.squares and freedom > prior:
            shared = earlier + pair.comparison.squares.interaction / pair.comparison.squares.guard.m
            prior = freedom
        return ((pair.n - 1) * variances[pair] + prior * shared) / (pair.n - 1 + prior), prior

    seeds = {
        pair: pair.comparison.variance
        for pair in pairs
        if pair.n > 2 and pair.comparison.variance > 0
    }
    rows = {
        pair: of.seeds / of.guard.m
        for pair in pairs
        if pair.n > 2 and (of := pair.comparison.squares) and of.error()[0] > 0
    }
    for pair in pairs:
        made = pair.comparison
        if pair in seeds:
            variance, prior = between(pair, seeds)
            made = replace(made, variance=variance, prior=prior)
        if pair in rows and made.squares:
            variance, prior = between(pair, rows)
            made = replace(
                made,
                squares=replace(made.squares, seeds=made.squares.guard.m * variance, prior=prior),
            )
        pair.comparison = made
