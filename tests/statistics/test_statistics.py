"""Intervals, tests, verdicts and ranks against scipy, statsmodels and numbers worked out by
hand.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from hpml_bench import statistics
from hpml_bench.statistics import Comparison, Interval, Membership, OverSeeds
from hpml_bench.statistics.evidence import OverSeedsAndRows, cautious, p_equivalent, seeds_to_decide
from hpml_bench.statistics.intervals import sign_flip
from hpml_bench.statistics.over_rows import OverRows


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


# Means and intervals


@pytest.mark.parametrize(
    ("data", "grid"), [([1, 2, 4, 8], None), ([1, 1.3, 1.6], 0.3), ([1, 1, 1], 0.3)]
)
def test_interval_is_students(data: list[float], grid: float | None) -> None:
    """Scipy's Student-t interval; the variance of rounding to a known grid is in it, and not in
    the sd.
    """
    interval, sd = statistics.mean_interval(data, grid), np.std(data, ddof=1)
    error = math.sqrt((sd**2 + (grid or 0) ** 2 / 12) / len(data))
    low, high = stats.t.interval(0.95, len(data) - 1, loc=np.mean(data), scale=error)
    found = [interval.n, interval.mean, interval.sd, interval.low, interval.high]
    assert found == pytest.approx([len(data), np.mean(data), sd, low, high])


def test_equal_values_have_a_point_and_one_has_no_interval() -> None:
    """Exactly at the value, not NaN; with one seed nothing is said of its spread; missing values
    are refused.
    """
    assert statistics.mean_interval([0.1, 0.1, 0.1]) == Interval(3, 0.1, 0.0, 0.1, 0.1)
    assert statistics.mean_interval([7.0]) == Interval(1, 7.0, None, None, None)
    for bad in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(ValueError, match="finite"):
            statistics.mean_interval(bad)


# Paired tests


def test_a_grid_adds_its_rounding_variance() -> None:
    """On a grid of 1 its rounding variance of 1/12 is added to the differences' own, of which equal
    ones have none.

    Without a known grid differences that happen to tie are tested with their own spread; equal
    ones, or one, have none.
    """
    assert (OverSeeds.of([0.5]), OverSeeds.of([0.5], grid=0.1)) == (None, None)
    assert OverSeeds.of([0.9 - 0.8, 0.8 - 0.7, 0.7 - 0.6]) is None, "equal but for rounding"
    for differences, grid, sd in (
        ([1, 1, 1, 1, 2], 1, math.sqrt(0.2 + 1 / 12)),
        ([3, 3, 3], 1, math.sqrt(1 / 12)),
        ([0.9 - 0.8, 0.8 - 0.7], 0.1, 0.1 / math.sqrt(12)),
        ([1, 1, 1, 1, 2], None, math.sqrt(0.2)),
    ):
        n, mean = len(differences), np.mean(differences)
        found = OverSeeds.of(differences, grid)
        assert found.sd == pytest.approx(sd)
        assert found.p() == pytest.approx(2 * stats.t.sf(mean / (sd / math.sqrt(n)), n - 1))


def test_sign_flip_is_scipys() -> None:
    """The exact p is that of scipy's permutation test on paired samples; the sampled one is near
    it.
    """
    data = np.random.default_rng(2).normal(0.4, 1.0, size=10)
    theirs = stats.permutation_test([data], np.sum, permutation_type="samples", n_resamples=10_000)
    assert sign_flip(data) == pytest.approx(theirs.pvalue)
    assert sign_flip(abs(data)) == 2.0**-9
    many = np.random.default_rng(3).normal(0.3, 1.0, size=20)
    assert sign_flip(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)


@pytest.mark.parametrize("made", [OverRows.of, lambda rows: OverSeedsAndRows.of([rows] * 3)])
def test_a_mean_of_nothing_is_judged_alike_from_both_sides(made: Any) -> None:
    """Rows of which one loses what the others gain: the sign that rounding leaves decides
    nothing.
    """
    rows = np.array([1, -0.25, -0.25, -0.25, -0.25])
    (low, high), (other_low, other_high) = (made(of).accepted(0.05) for of in (rows, -rows))
    assert (low, high) == pytest.approx((-other_high, -other_low))


def test_holm_is_statsmodels() -> None:
    """Holm's adjusted p values are statsmodels', ties and order included."""
    p_values = [0.04, 0.001, 0.04, 0.5, 0.011, 1.0]
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert statistics.holm([]) == []


# Evidence over seeds


@pytest.mark.parametrize("n", [3, 5, 12])
def test_evidence_over_seeds_is_scipys_and_statsmodels(n: int) -> None:
    """Of other seeds, p is that of scipy's ttest_rel, and that of the margin is statsmodels'
    TOST of pairs.
    """
    random = np.random.default_rng(n)
    a, b = random.normal(0.3, 1, n), random.normal(0, 1, n)
    evidence = OverSeeds.of(a - b)
    assert evidence.p() == pytest.approx(stats.ttest_rel(a, b).pvalue)
    for margin in (0.1, 1.0, 3.0):
        assert p_equivalent(evidence, margin) == pytest.approx(
            ttost_paired(a, b, -margin, margin)[0]
        )
    assert (evidence.n, evidence.mean) == (n, pytest.approx((a - b).mean()))
    assert (evidence.error(n), evidence.freedom(n)) == (pytest.approx(stats.sem(a - b)), n - 1)


def test_caution_raises_the_spread_alone() -> None:
    """A cautious evidence has the upper bound of the spread over seeds; mean, rows and
    interaction stay.
    """
    assert cautious(OverSeeds(5, 0.1, 2.0)) == OverSeeds(
        5, 0.1, pytest.approx(statistics.sd_upper_bound(2.0, 5))
    )
    over_rows = cautious(OverSeedsAndRows(5, 100, 0.1, (3.0, 2.0, 1.0)))
    assert over_rows.squares == (
        pytest.approx(3.0 * statistics.sd_upper_bound(1.0, 5) ** 2),
        2.0,
        1.0,
    )


# Evidence over seeds and rows


def test_evidence_over_seeds_and_rows_is_the_two_way_analysis_of_variance() -> None:
    """Mean squares of statsmodels' analysis without replication; error, freedom and both p
    follow by Satterthwaite.
    """
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    n, m = 4, 7
    random = np.random.default_rng(4)
    table = (
        random.normal(0.4, 1, (1, m))
        + random.normal(0, 0.5, (n, 1))
        + random.normal(0, 0.5, (n, m))
    )
    frame = pd.DataFrame(
        [{"y": table[i, j], "i": str(i), "j": str(j)} for i in range(n) for j in range(m)]
    )
    squares = anova_lm(ols("y ~ i + j", frame).fit())["mean_sq"].to_numpy()
    evidence, mean = (
        OverSeedsAndRows.of(table, span=0.0),
        table.mean(),
    )  # without guards against rare rows
    assert (evidence.mean, *evidence.squares) == pytest.approx((mean, *squares))
    assert squares[2] < squares[:2].min(), "neither main effect is below chance"
    variance = (squares @ [1, 1, -1]) / (n * m)
    freedom = (variance * n * m) ** 2 / (squares**2 / [n - 1, m - 1, (n - 1) * (m - 1)]).sum()
    assert (evidence.error(n), evidence.freedom(n)) == pytest.approx((math.sqrt(variance), freedom))
    t = stats.t(freedom)
    assert evidence.p() == pytest.approx(2 * t.sf(abs(mean) / math.sqrt(variance)))
    for margin in (0.1, 0.6, 2.0):
        near = t.sf((margin - abs(mean)) / math.sqrt(variance))
        assert p_equivalent(evidence, margin) == pytest.approx(near)


def test_an_interaction_above_a_main_effect_is_chance() -> None:
    """The variance is never below that of seeds or rows alone, nor the error below one row; freedom
    never below n-1.

    Where every run gets every row right the interval is of the least unit, a row, and not a point.
    """
    assert OverSeedsAndRows(4, 50, 0.0, (2.0, 1.0, 3.0)).error(4) == pytest.approx(
        math.sqrt(2.0 / 200)
    )
    assert OverSeedsAndRows(4, 50, 0.0, (1.0, 2.0, 3.0)).error(4) == pytest.approx(
        math.sqrt(2.0 / 200)
    )
    assert OverSeedsAndRows.of(np.zeros((3, 40))).error(3) == pytest.approx(1 / 40)
    assert OverSeedsAndRows(4, 50, 0.0, (9.0, 0.1, 0.1)).freedom(4) >= 3
    assert OverSeedsAndRows.of(np.zeros((3, 40))).freedom(3) == 2
    interval = statistics.crossed_interval(np.ones((3, 9)))
    half = stats.t.ppf(0.975, 2) / 9
    assert (interval.n, interval.sd, interval.low, interval.high) == pytest.approx(
        (3, 0, 1 - half, 1 + half)
    )


def test_more_seeds_do_not_make_up_for_few_rows() -> None:
    """At more seeds the seeds' part of the variance falls, as the squares' expectations say;
    that of rows stays.
    """
    evidence = OverSeedsAndRows(
        5, 100, 0.0, (3.0, 2.0, 1.0)
    )  # σ² of seeds 2/100, of rows 1/5, of both 1
    for n in (5, 10, 1000):
        by_hand = 0.02 / n + 0.2 / 100 + 1 / (n * 100)
        assert evidence.error(n) == pytest.approx(math.sqrt(by_hand))
    assert statistics.seeds_to_find([evidence], 0.05, 0.05) is None
    assert statistics.seeds_to_find([evidence], 0.15, 0.05)


def test_a_claim_needs_both_evidences() -> None:
    """Over seeds and rows one is never surer than over seeds alone: p and interval are the wider
    ones'.
    """
    random = np.random.default_rng(0)
    for rows in (4, 40, 400):
        right = {
            name: {s: random.random(rows) < share for s in range(4)}
            for name, share in (("a", 0.7), ("b", 0.6))
        }
        (pair,) = statistics.compare_scores(right, 0.01)
        both = statistics.crossed_evidence(
            [right["a"][seed].astype(float) - right["b"][seed] for seed in range(4)]
        )
        assert pair.p == max(one.p() for one in both)
        assert pair.p_equivalent == max(p_equivalent(one, 0.01) for one in both)
        alone = OverSeeds.of(
            [right["a"][s].mean() - right["b"][s].mean() for s in range(4)], grid=1 / rows
        )
        assert pair.p >= alone.p() - 1e-12
        assert pair.difference.low <= alone.mean - stats.t.ppf(0.975, 3) * alone.error(4) + 1e-12


def test_group_scores_mean_what_the_rows_do() -> None:
    """The mean over groups is that over rows, and its standard error that of a ratio of two sums
    over groups.

    By Cochran's formula for clusters of unequal sizes, written out: s_d^2 of the groups' totals
    less the mean times their sizes, over the square of the mean size.
    """
    random = np.random.default_rng(7)
    sizes = random.integers(1, 20, 60)
    groups = np.repeat(random.permutation(60) * 3, sizes)
    order = random.permutation(len(groups))
    rows = random.normal(random.normal(0.4, 1, 60).repeat(sizes), 0.5)[order]
    found = statistics.group_scores(rows, groups[order])
    assert found.shape == (60,)
    assert found.mean() == pytest.approx(rows.mean(), abs=1e-12)
    of = [rows[groups[order] == group] for group in np.unique(groups)]
    residuals = [float(one.sum()) - rows.mean() * len(one) for one in of]
    ratio = math.sqrt(sum(value**2 for value in residuals) / 59 / 60) / sizes.mean()
    assert found.std(ddof=1) / math.sqrt(60) == pytest.approx(ratio)
    in_order = [0.2, 0.4, 0.9]
    assert statistics.group_scores([0.2, 0.9, 0.4], [7, 9, 8]) == pytest.approx(in_order), (
        "of the groups"
    )
    assert statistics.group_scores(
        np.array([True, False, True, True]), [1, 1, 0, 0]
    ) == pytest.approx([1.0, 0.5])


# Power


@pytest.mark.parametrize("n", [5, 9])
def test_what_is_detectable_over_seeds_and_rows_is_found_in_simulations(n: int) -> None:
    """Of 1,500 tables from known effects of seeds, rows and both, four in five show the
    detectable difference.
    """
    m, alpha, (s_seeds, s_rows, s_rest) = 80, 0.01, (0.05, 0.3, 1.0)
    squares = (
        s_rest**2 + m * s_seeds**2,
        s_rest**2 + n * s_rows**2,
        s_rest**2,
    )  # what they are expected to be
    size = statistics.detectable(OverSeedsAndRows(n, m, 0.0, squares), n, alpha)
    random = np.random.default_rng(n)

    def p() -> float:
        effects = random.normal(0, s_seeds, (n, 1)) + random.normal(0, s_rows, (1, m))
        return OverSeedsAndRows.of(size + effects + random.normal(0, s_rest, (n, m))).p()

    assert np.mean([p() < alpha for _ in range(1500)]) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("opposed", [0, 1, 4])
@pytest.mark.parametrize("span", [1.0, 3.0])
def test_rare_rows_may_make_up_for_a_small_difference(opposed: int, span: float) -> None:
    """A gain in nearly all rows is no surer than that more rows would be opposed by the range, by
    scipy's binomial.

    At the least mean that is claimed the p is the level.
    """
    n, m = 5, 400
    random = np.random.default_rng(3)
    table = 0.02 + 1e-4 * random.standard_normal((n, m))
    table[:, :opposed] = -0.9 * span
    evidence = OverSeedsAndRows.of(table * math.copysign(1, table.mean()), span)
    gain = evidence.mean / span
    against = opposed if table.mean() > 0 else 0
    expected = 2 * stats.binom.cdf(against, m, (against / m + gain) / (1 + gain))
    assert evidence.opposed == (against,) * 4, (
        "rows that lose nearly the range, by each of the losses"
    )
    assert evidence.p_rare() == pytest.approx(min(1.0, expected))
    assert evidence.p() >= evidence.p_rare()
    size = evidence.least_rare(0.01)
    assert replace(evidence, mean=size).p_rare() == pytest.approx(0.01)
    assert statistics.detectable(evidence, n, 0.01) >= size


@pytest.mark.parametrize(
    ("loss", "of_range"), [(0.9, 1.0), (0.49, 0.5), (0.24, 0.25), (0.07, 0.125)]
)
def test_rare_rows_may_lose_a_part_of_the_range(loss: float, of_range: float) -> None:
    """Rows that lose less than half the range are opposed too: no surer than were they to lose
    that part of it.
    """
    m, opposed = 400, 3
    rows = np.full(m, 0.01)
    rows[:opposed] = -loss
    evidence = OverRows.of(rows)
    assert evidence
    gain = evidence.mean / of_range
    expected = 2 * stats.binom.cdf(opposed, m, (opposed / m + gain) / (1 + gain))
    assert evidence.opposed == tuple(
        opposed if loss > part / 2 else 0 for part in (1, 1 / 2, 1 / 4, 1 / 8)
    )
    assert evidence.p_rare() >= expected * (1 - 1e-9)
    assert replace(evidence, mean=evidence.least_rare(0.01)).p_rare() == pytest.approx(0.01)


@pytest.mark.parametrize("alpha", [0.05, 0.04 / 30])
@pytest.mark.parametrize("size", [0.02, 0.05])
def test_seeds_to_find_are_the_least_that_detect(size: float, alpha: float) -> None:
    """So many seeds detect it by every evidence, and one seed fewer does not, however many the
    pilot had.
    """
    evidence = [OverSeedsAndRows(5, 2000, 0.0, (1.2, 0.3, 0.2)), OverSeeds(5, 0.0, 0.03)]
    n = statistics.seeds_to_find(evidence, size, alpha)
    assert max(statistics.detectable(one, n, alpha) for one in evidence) <= size
    assert n == 3 or max(statistics.detectable(one, n - 1, alpha) for one in evidence) > size
    pilots = {
        statistics.seeds_to_find([OverSeeds(seeds, 0.0, 0.03)], size, alpha) for seeds in (5, 50)
    }
    assert len(pilots) == 1


def test_seeds_that_show_equivalence_do_so_in_simulations() -> None:
    """Of 3,000 samples of two equal methods with so many seeds, four in five or more are within
    the margin.
    """
    n = statistics.seeds_to_show([OverSeeds(3, 0.0, 1.0)], 1.5, 0.01)
    random = np.random.default_rng(0)

    def share(seeds: int) -> float:
        made = (OverSeeds.of(random.normal(0, 1, seeds)) for _ in range(3000))
        return float(np.mean([p_equivalent(one, 1.5) < 0.01 for one in made if one]))

    assert 0.78 < share(n) < 0.92
    assert share(n - 1) < share(n)


def test_seeds_to_decide_take_the_nearer_verdict() -> None:
    """Fewest of both verdicts: a difference near 0 is shown to be none, a large one to be one, 0
    never to be one.
    """
    evidence = [OverSeeds(5, 0.2, 1.0)]
    found, shown = (
        statistics.seeds_to_find(evidence, 0.2, 0.04),
        statistics.seeds_to_show(evidence, 0.8, 0.01),
    )
    assert shown < found
    assert seeds_to_decide(evidence, 1.0, 0.04, 0.01) == shown
    assert seeds_to_decide(evidence, None, 0.04, 0.01) == found
    assert seeds_to_decide(evidence, 0.1, 0.04, 0.01) == found
    assert seeds_to_decide([OverSeeds(5, 0.0, 1.0)], None, 0.04, 0.01) is None
    assert seeds_to_decide([OverSeeds(5, 9.0, 1.0)], None, 0.04, 0.01) == 3, (
        "the least that any verdict takes"
    )


# Pairs


def test_under_three_shared_seeds_there_is_no_verdict() -> None:
    """Two differences have a mean and a sign-flip p, but neither a test's p nor a verdict; three
    have.

    A method that lacks seeds is compared on those both have; without a shared seed there is no
    comparison.
    """
    lacking = {"a": by_seed(1, 2, 3, 4), "b": {1: 2.5, 3: 4.25}, "c": {9: 1.0}}
    (only,) = statistics.compare_pairs(lacking)
    assert (only.a, only.b, only.difference.n, only.difference.mean) == ("a", "b", 2, -0.375)
    values = {"a": by_seed(1, 2), "b": by_seed(2, 3.1), "c": by_seed(5, 6, 7)}
    two = statistics.decide(statistics.compare_pairs(values, margin=10))
    found = {(c.p, c.p_equivalent, c.verdict, c.detectable, c.seeds_needed) for c in two}
    assert found == {(None, None, "untested", None, None)}
    assert [c.p_sign_flip for c in two] == [0.5, 0.5, 0.5]
    (three,) = statistics.decide(
        statistics.compare_pairs({"a": by_seed(1, 2, 3), "b": by_seed(9, 10.1, 11)})
    )
    assert three.verdict == "different"


@pytest.mark.parametrize(
    ("a", "p"),
    [
        ([1.0] * 5, 0.0625),
        ([0.81, 0.82, 0.83, 0.84, 0.85], 0.0625),
        ([0.8, 0.81, 0.82, 0.83, 0.84], 1.0),
    ],
)
def test_nothing_is_told_without_a_spread(a: list[float], p: float) -> None:
    """On no known grid, differences that are all equal tell no spread: no interval, nothing
    detectable, no verdict.
    """
    b = [0.0] * 5 if a[0] == 1 else [0.8, 0.81, 0.82, 0.83, 0.84]
    (pair,) = statistics.decide(
        statistics.compare_pairs({"a": by_seed(*a), "b": by_seed(*b)}, margin=5.0)
    )
    assert (pair.difference.low, pair.detectable, pair.seeds_needed, pair.p_equivalent) == (
        None,
        None,
        None,
        None,
    )
    assert pair.p == p
    assert pair.verdict == "undecided"


def test_costs_are_compared_by_their_factor() -> None:
    """A factor's mean, interval and p are those of the logarithms; a margin of 5 % is as wide
    upwards as downwards.

    Of values on a known grid, a factor's grid is that share of the smallest of them.
    """
    a, b = [2.0, 4.4, 8.1], [1.0, 2.1, 4.2]
    (pair,) = statistics.compare_costs({"a": by_seed(*a), "b": by_seed(*b)}, 0.05)
    logs = np.log(a) - np.log(b)
    assert pair.ratio
    assert pair.difference.mean == pytest.approx(logs.mean())
    theirs = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert (pair.difference.low, pair.difference.high) == pytest.approx(theirs)
    assert pair.p == pytest.approx(stats.ttest_rel(np.log(a), np.log(b)).pvalue)
    assert pair.p_equivalent == pytest.approx(
        ttost_paired(np.log(a), np.log(b), -math.log(1.05), math.log(1.05))[0]
    )
    (mirrored,) = statistics.compare_costs({"b": by_seed(*b), "a": by_seed(*a)}, 0.05)
    assert (mirrored.p, mirrored.p_equivalent) == pytest.approx((pair.p, pair.p_equivalent))
    (pair,) = statistics.compare_costs(
        {"a": by_seed(200, 200, 200), "b": by_seed(100, 100, 100)}, 0.05, grid=4.0
    )
    (evidence,) = pair.evidence
    assert isinstance(evidence, OverSeeds)
    assert evidence.sd == pytest.approx(0.04 / math.sqrt(12))
    assert statistics.decide([pair])[0].verdict == "different"


def test_exactness_is_a_pairs_own() -> None:
    """Of counts any difference is real, equality is equality; a method that jitters, or has one
    seed, proves none.
    """
    values = {
        "a": by_seed(500, 500),
        "b": by_seed(400, 400),
        "c": by_seed(450, 451),
        "d": by_seed(300),
        "e": by_seed(500, 500),
    }
    compared = {
        f"{c.a}{c.b}": c for c in statistics.decide(statistics.compare_pairs(values, exact=True))
    }
    exact = {pair: c.verdict for pair, c in compared.items() if c.exact}
    assert exact == {"ab": "different", "ae": "equivalent", "be": "different"}
    assert not compared["ad"].differs


def test_winners_follow_the_good_direction() -> None:
    """The winner is the higher or the lower one, as the metric has it; no one wins by a metric of
    no direction.

    P(A > B) is the share of seeds in which A is higher, ties half.
    """
    (pair,) = statistics.compare_pairs({"a": by_seed(1, 2, 3, 3), "b": by_seed(0, 2, 4, 1)})
    assert pair.superiority == 2.5 / 4
    (pair,) = statistics.decide(
        statistics.compare_pairs({"a": by_seed(1, 2, 3), "b": by_seed(9, 10.1, 11)})
    )
    assert [pair.winner(better) for better in ("higher", "lower", "neither")] == ["b", "a", None]
    assert (pair.other("a"), pair.other("b")) == ("b", "a")


# Families


def made(a: str = "a", b: str = "b", *, mean: float = 1.0, **fields: Any) -> Comparison:
    return Comparison(
        a,
        b,
        Interval(5, mean, 1.0, None, None),
        **({"p": None, "p_equivalent": None, "margin": None} | fields),
    )


def test_the_shares_are_borders() -> None:
    """Of a single pair a p just under 3.17 % is a difference, and of the margin just under 0.5 % an
    equivalence.

    A first look has two thirds of the 5 %, of which a pair of two methods has all but the share of
    guessing, with a margin as without one. Of several pairs the first step of either claim has an
    equal part.
    """
    for p, q, verdict in (
        (0.0316, 1.0, "different"),
        (0.0317, 0.0049, "equivalent"),
        (0.0317, 0.0051, "undecided"),
    ):
        assert statistics.decide([made(p=p, p_equivalent=q, margin=0.1)])[0].verdict == verdict
    (both,) = statistics.decide([made(p=0.001, p_equivalent=0.001, margin=0.1)])
    assert (both.verdict, both.equivalent) == ("different", True)
    assert [statistics.decide([made(p=p)])[0].verdict for p in (0.0316, 0.0317)] == [
        "different",
        "undecided",
    ]
    three = statistics.decide(
        made(*pair, p=0.02, p_equivalent=q, margin=0.1)
        for pair, q in zip(("ab", "ac", "bc"), (0.3, None, 0.1), strict=True)
    )
    assert [c.first_levels for c in three] == [
        pytest.approx((0.05 * 2 / 3 * 0.8 / 3, 0.005 / 2))
    ] * 3


def test_untested_and_exact_pairs_cost_a_family_nothing() -> None:
    """Pairs without a p, and counts that decide themselves, are not among the pairs that Holm
    adjusts for.
    """
    family = statistics.decide(
        [made(p=0.03, margin=0.1), made(), made(p=0.0, exact=True), made(p=1.0, exact=True)]
    )
    assert [c.p_adjusted for c in family] == [pytest.approx(0.03 / (2 / 3 * 0.95)), None, 0.0, 1.0]
    assert [c.verdict for c in family] == ["different", "untested", "different", "equivalent"]
    assert statistics.levels({"score": family})["score"][0] == pytest.approx(0.05 * 2 / 3 * 0.95)
    assert statistics.decide([]) == ()


def test_ranks_are_intervals() -> None:
    """Ties are not transitive: the middle method ties with both neighbours, which differ from
    one another.
    """
    noise = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5])
    low, middle, high = noise * 0, 1.0 + 1.5 * noise, 2.0 + 0.01 * noise
    values = {"low": by_seed(*low), "middle": by_seed(*middle), "high": by_seed(*high)}
    undecided = statistics.compare_pairs(values)
    family = statistics.decide(undecided)

    def ranks(better: Any, pairs: Any = family) -> dict[str, tuple[int, int]]:
        return statistics.rank_intervals(pairs, list(values), better)

    assert ranks("higher") == {"low": (2, 3), "middle": (1, 3), "high": (1, 2)}
    assert ranks("lower")["low"] == (1, 2)
    assert {*ranks("neither").values(), *ranks("higher", undecided).values()} == {(1, 3)}


# The Pareto front


def shown(metric: dict[tuple[str, str], str]) -> list[Comparison]:
    """Return pairs with a verdict each: `>` and `<` by the higher mean, `=` equivalent, `?`
    undecided.
    """
    p = {">": (0.0, 1.0), "<": (0.0, 1.0), "=": (1.0, 0.0), "?": (1.0, 1.0)}
    return [
        made(
            a,
            b,
            mean=-1.0 if sign == "<" else 1.0,
            p=1.0,
            p_adjusted=p[sign][0],
            p_equivalent_adjusted=p[sign][1],
        )
        for (a, b), sign in metric.items()
    ]


HIGHER_AND_LOWER: Any = {"score": "higher", "cost": "lower"}


@pytest.mark.parametrize(
    ("score", "cost", "first", "second"),
    [
        (">", "<", Membership("on"), Membership("off", ("a",))),
        (">", "=", Membership("on"), Membership("off", ("a",))),
        ("=", "<", Membership("on"), Membership("off", ("a",))),
        (">", "?", Membership("on"), Membership("undecided")),
        (">", ">", Membership("on"), Membership("on")),
        ("=", "=", Membership("undecided"), Membership("undecided")),
        ("?", "<", Membership("on"), Membership("undecided")),
        ("?", "=", Membership("undecided"), Membership("undecided")),
        ("?", "?", Membership("undecided"), Membership("undecided")),
    ],
)
def test_places_of_two_methods(
    score: str, cost: str, first: Membership, second: Membership
) -> None:
    """On the front who wins somewhere, off it who only loses or matches, undecided who neither
    wins nor is matched.
    """
    family = {"score": shown({("a", "b"): score}), "cost": shown({("a", "b"): cost})}
    assert statistics.pareto_membership(("a", "b"), family, HIGHER_AND_LOWER) == {
        "a": first,
        "b": second,
    }


def test_places_of_three_methods() -> None:
    """To be on the front takes a win against each other method; to be off it one that dominates,
    named, is enough.

    Without a pair there is neither a win nor a match, and a real difference within the margin is a
    win.
    """
    score = {("a", "b"): "?", ("a", "c"): ">", ("b", "c"): ">"}
    cost = {("a", "b"): "?", ("a", "c"): "<", ("b", "c"): "="}
    on, open_ = Membership("on"), Membership("undecided")
    found = statistics.pareto_membership(
        "abc", {"score": shown(score), "cost": shown(cost)}, HIGHER_AND_LOWER
    )
    assert found == {"a": open_, "b": open_, "c": Membership("off", ("a", "b"))}
    better = shown({("a", "b"): ">"})
    assert statistics.pareto_membership("ab", {"score": better, "cost": []}, HIGHER_AND_LOWER) == {
        "a": on,
        "b": open_,
    }
    assert statistics.pareto_membership("a", {"score": []}, HIGHER_AND_LOWER) == {"a": on}
    little = [made("a", "b", p=0.0, p_adjusted=0.0, p_equivalent_adjusted=0.0)]
    assert statistics.pareto_membership(
        "ab", {"score": little, "cost": better}, HIGHER_AND_LOWER
    ) == {"a": on, "b": on}


def test_skewed_noise_of_unequal_spread_is_marked() -> None:
    """One far outlier of the noisier method is marked; equal spreads, symmetry and three seeds
    are not.
    """
    outlier, calm, still = (
        np.array([0.0, 0.1, 0.0, 0.1, 5.0]),
        np.array([0.0, 0.1, 0.1, 0.0, 0.1]),
        np.zeros(5),
    )
    for pair in ((outlier, calm), (calm, outlier), (outlier, still)):
        assert statistics.looks_skewed(*pair)
    for pair in (
        (outlier, outlier[::-1]),
        (np.arange(-2.0, 3.0), calm),
        (outlier[2:], calm[2:]),
        (still, still),
    ):
        assert not statistics.looks_skewed(*pair)


def test_single_seed_tools_are_statsmodels() -> None:
    """Wilson's and Clopper and Pearson's intervals are those of statsmodels."""
    assert statistics.share_interval(0.87, 1000) == pytest.approx(
        proportion_confint(870, 1000, method="wilson")
    )
    for k, n in ((0, 299), (3, 40), (59, 59)):
        assert statistics.clopper_pearson(k, n, 0.1) == pytest.approx(
            proportion_confint(k, n, 0.1, method="beta")
        )


def test_few_rows_that_carry_a_difference_are_marked() -> None:
    """Of a score without a range; where it has one the error already counts rows that aren't
    there.
    """
    random = np.random.default_rng(0)
    even, few = (random.standard_normal((3, 300)) for _ in range(2))
    few[:, :2] += 40
    for rows, marked in ((even, False), (few, True)):
        scores = {"a": dict(enumerate(rows)), "b": dict(enumerate(np.zeros((3, 300))))}
        assert statistics.compare_scores(scores, 0.01, span=0.0)[0].skewed is marked
        assert statistics.compare_scores(scores, 0.01, span=1.0)[0].skewed is False
