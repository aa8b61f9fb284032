"""Intervals, tests and ranks against scipy, statsmodels and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from hpml_bench.statistics import (
    binomial_interval,
    compare_pairs,
    crossed_interval,
    detectable_difference,
    front_probabilities,
    holm,
    mcnemar,
    mean_interval,
    paired_sd,
    paired_t,
    pareto_efficient,
    rank_intervals,
    sign_flip,
    sign_flip_floor,
)

SEEDS = range(5)


def by_seed(*values: float) -> dict[int, float]:
    """Number the values as seeds."""
    return dict(enumerate(values))


def test_interval_is_students() -> None:
    """Mean, sd and 95 % interval are scipy's Student-t ones."""
    data = [1.0, 2.0, 4.0, 8.0]
    interval = mean_interval(data)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(data), scale=stats.sem(data))
    assert (interval.n, interval.mean) == (4, 3.75)
    assert [interval.sd, interval.low, interval.high] == pytest.approx([np.std(data, ddof=1), low, high])


def test_constant_data_give_a_point() -> None:
    """Equal values have an interval of no width, exactly at the value, not NaN."""
    interval = mean_interval([0.1, 0.1, 0.1])
    assert (interval.low, interval.mean, interval.high, interval.sd) == (0.1, 0.1, 0.1, 0.0)


def test_one_value_has_no_interval() -> None:
    """With one seed there is a mean, and nothing said of its spread."""
    interval = mean_interval([7.0])
    assert (interval.n, interval.mean, interval.sd, interval.low) == (1, 7.0, None, None)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf]])
def test_no_interval_of_nothing(bad: list[float]) -> None:
    """Missing and infinite values are refused instead of becoming NaN."""
    with pytest.raises(ValueError, match="finite"):
        mean_interval(bad)


def test_forty_seeds_get_a_bca_interval() -> None:
    """From 40 values the interval is scipy's BCa bootstrap, which follows their skew; 39 have Student's."""
    data = np.random.default_rng(5).exponential(size=40)
    interval, fewer = mean_interval(data), mean_interval(data[:39])
    theirs = stats.bootstrap((data,), np.mean, method="BCa", rng=0).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert fewer.high is not None
    assert fewer.low is not None
    assert fewer.high - fewer.mean == pytest.approx(fewer.mean - fewer.low)
    assert mean_interval([0.1] * 50).high == 0.1


def test_paired_t_is_scipys() -> None:
    """The p of the differences is that of scipy's ttest_rel on the pairs."""
    a, b = np.random.default_rng(1).normal(size=(2, 7))
    assert paired_t(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_equal_differences_prove_little() -> None:
    """Differences that are equal but for rounding have no spread to test against: the sign-flip p stands in."""
    assert paired_t([0.0, 0.0, 0.0]) == 1.0
    assert paired_t([0.9 - 0.8, 0.8 - 0.7, 0.7 - 0.6]) == 0.25
    assert paired_t([0.5]) is None


def test_ties_count_as_rounded() -> None:
    """Differences 1, 1, 1, 1, 2 lie on a grid of 1: its rounding variance of 1/12 is added to theirs of 0.2."""
    t = 1.2 / math.sqrt((0.2 + 1 / 12) / 5)
    assert paired_t([1, 1, 1, 1, 2]) == pytest.approx(2 * stats.t.sf(t, 4))


def test_detectable_takes_the_tests_spread() -> None:
    """What is detectable follows from the sd that p follows from, the rounding variance of ties included."""
    (pair,) = compare_pairs({"a": by_seed(1, 1, 1, 1, 2), "b": by_seed(0, 0, 0, 0, 0)})
    sd = math.sqrt(0.2 + 1 / 12)
    assert pair.sd == pytest.approx(sd) == paired_sd([1, 1, 1, 1, 2])
    assert pair.detectable == pair.detectable_first == pytest.approx(detectable_difference(sd, 5))
    assert pair.p == pytest.approx(2 * stats.t.sf(pair.difference.mean / (sd / math.sqrt(5)), 4))


@pytest.mark.parametrize(
    ("a", "p"),
    [([1.0] * 5, 0.0625), ([0.81, 0.82, 0.83, 0.84, 0.85], 0.0625), ([0.8, 0.81, 0.82, 0.83, 0.84], 1.0)],
)
def test_nothing_is_detectable_without_a_spread(a: list[float], p: float) -> None:
    """Differences that are all equal, or but for rounding of floats, tell no spread, so nothing that is detectable."""
    b = [0.0] * 5 if a[0] == 1 else [0.8, 0.81, 0.82, 0.83, 0.84]
    (pair,) = compare_pairs({"a": by_seed(*a), "b": by_seed(*b)})
    assert (pair.sd, pair.detectable, pair.detectable_first) == (None, None, None)
    assert pair.p == p
    assert not pair.differs


def test_sign_flip_by_hand() -> None:
    """Of the 8 sign patterns of 1, 2, 3 two reach |sum| 6; of -1, 2, 3 four reach 4."""
    assert sign_flip([1, 2, 3]) == 2 / 8 == sign_flip_floor(3)
    assert sign_flip([-1, 2, 3]) == 4 / 8


def test_sign_flip_is_scipys() -> None:
    """The exact p is that of scipy's permutation test on paired samples; the sampled one is near it."""
    data = np.random.default_rng(2).normal(0.4, 1.0, size=10)
    theirs = stats.permutation_test([data], np.sum, permutation_type="samples", n_resamples=10_000)
    assert sign_flip(data) == pytest.approx(theirs.pvalue)
    many = np.random.default_rng(3).normal(0.3, 1.0, size=20)
    assert sign_flip(many) == pytest.approx(paired_t(many), abs=0.02)


def test_holm_is_statsmodels() -> None:
    """Holm's adjusted p values are statsmodels', ties and order included."""
    p_values = [0.04, 0.001, 0.04, 0.5, 0.011, 1.0]
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_detectable_difference_is_detected_8_times_in_10() -> None:
    """A difference of that size is found with a power near 80 % (non-central t)."""
    for n in (5, 10, 30):
        noncentrality = detectable_difference(2.0, n) / (2.0 / math.sqrt(n))
        critical = stats.t.ppf(0.975, n - 1)
        power = stats.nct.sf(critical, n - 1, noncentrality)
        assert power == pytest.approx(0.8, abs=0.04)


def test_pairs_use_shared_seeds_only() -> None:
    """A method that lacks seeds is compared on those both have; without a shared seed there is no comparison."""
    values = {"a": by_seed(1, 2, 3, 4), "b": {1: 2.5, 3: 4.25}, "c": {9: 1.0}}
    (only,) = compare_pairs(values)
    assert (only.a, only.b, only.difference.n, only.difference.mean) == ("a", "b", 2, -0.375)


def test_exact_metrics_need_no_test() -> None:
    """Counts of parameters are compared as they are: any difference is real, equality is equality."""
    values = {"a": by_seed(5, 5), "b": by_seed(6, 6), "c": by_seed(5, 5)}
    pairs = {(c.a, c.b): c.differs for c in compare_pairs(values, exact=True)}
    assert pairs == {("a", "b"): True, ("a", "c"): False, ("b", "c"): True}


def test_exactness_is_a_pairs_own() -> None:
    """A method that jitters leaves the difference of two constant ones exact; a single seed proves no constancy."""
    values = {"a": by_seed(500, 500), "b": by_seed(400, 400), "c": by_seed(450, 451), "d": by_seed(300)}
    compared = {(c.a, c.b): c for c in compare_pairs(values, exact=True)}
    assert [pair for pair, c in compared.items() if c.exact] == [("a", "b")]
    assert compared["a", "b"].differs
    assert not compared["a", "d"].differs


def test_superiority_counts_ties_half() -> None:
    """P(A > B) is the share of seeds in which A is higher, ties half."""
    (pair,) = compare_pairs({"a": by_seed(1, 2, 3, 3), "b": by_seed(0, 2, 4, 1)})
    assert pair.superiority == 2.5 / 4


def test_ranks_are_intervals() -> None:
    """Ties are not transitive: the middle method ties with both neighbours, which differ from one another."""
    noise = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5])
    values = {
        "low": by_seed(*noise * 0),
        "middle": by_seed(*(1.0 + 1.5 * noise)),
        "high": by_seed(*(2.0 + 0.01 * noise)),
    }
    ranks = rank_intervals(compare_pairs(values), list(values), "higher")
    assert ranks == {"low": (2, 3), "middle": (1, 3), "high": (1, 2)}
    assert rank_intervals(compare_pairs(values), list(values), "lower")["low"] == (1, 2)
    assert set(rank_intervals(compare_pairs(values), list(values), "neither").values()) == {(1, 3)}


def test_pareto_front_by_hand() -> None:
    """Dominated points drop out; equal points stay together."""
    points = {"cheap": (0.8, 1.0), "good": (0.9, 2.0), "bad": (0.85, 3.0), "twin": (0.9, 2.0)}
    assert pareto_efficient(points, ("higher", "lower")) == ("cheap", "good", "twin")


def test_front_probabilities_are_exact_where_they_can_be_counted() -> None:
    """With two seeds a sample draws one of them: each method is on the front in the share of seeds it is there."""
    points = {"good": {0: (0.9, 2.0), 1: (0.9, 2.0)}, "odd": {0: (0.8, 3.0), 1: (0.8, 1.0), 7: (1.0, 0.0)}}
    probability = front_probabilities(points, ("higher", "lower"))
    assert probability == {"good": 1.0, "odd": pytest.approx(0.5, abs=0.02)}
    assert front_probabilities({"a": {0: (1.0,)}, "b": {1: (1.0,)}}, ("higher",)) == {}


def test_equal_methods_share_the_front() -> None:
    """Methods with the same values in every seed are both on the front: rounding of means decides nothing."""
    points = {name: {seed: (0.1 * seed, 0.3 * seed) for seed in range(7)} for name in "ab"}
    assert front_probabilities(points, ("higher", "lower")) == {"a": 1.0, "b": 1.0}


def test_crossed_interval_is_between_bounds_and_near_the_bootstrap() -> None:
    """Its variance is that of a two-way bootstrap without the interaction, which that one counts three times."""
    random = np.random.default_rng(6)
    table = (
        random.normal(0.5, 1, (1, 400)) + random.normal(0, 0.3, (8, 1)) + random.normal(0, 0.2, (8, 400)) > 0
    ) * 1.0
    n, m = table.shape
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    interaction = float((rest**2).sum()) / ((n - 1) * (m - 1) * n * m)
    seeds = random.multinomial(n, np.full(n, 1 / n), 4000) / n
    rows = random.multinomial(m, np.full(m, 1 / m), 4000) / m
    bootstrap = float(np.einsum("bs,sr,br->b", seeds, table, rows, optimize=True).var())
    interval = crossed_interval(table)
    assert interval.high is not None
    assert interval.sd is not None
    by_hand = table.mean(1).var(ddof=1) / n + table.mean(0).var(ddof=1) / m - interaction
    corrected = bootstrap - 2 * interaction + table.mean(1).var(ddof=1) / n / n  # draws of n scatter too little
    assert corrected == pytest.approx(by_hand, rel=0.1)
    assert 1.96 < (interval.high - interval.mean) / math.sqrt(by_hand) < 2.4
    assert crossed_interval(np.ones((3, 9))).high == 1.0


def test_single_seed_tools_are_statsmodels() -> None:
    """Wilson's interval and exact McNemar agree with statsmodels."""
    assert binomial_interval(870, 1000) == pytest.approx(proportion_confint(870, 1000, method="wilson"))
    assert mcnemar(5, 14) == pytest.approx(their_mcnemar([[100, 5], [14, 100]], exact=True).pvalue)
    assert mcnemar(0, 0) == 1.0
