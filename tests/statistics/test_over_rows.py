"""Tests over rows alone agree with scipy, and their intervals leave out 0 just where they
reject.
"""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from simulation import cases

from hpml_bench import statistics
from hpml_bench.statistics import (
    OverRows,
    compare_rows,
    compare_shares,
    decide,
    group_scores,
    mean_of_rows,
)
from hpml_bench.statistics.evidence import (
    Evidence,
    OverSeedsAndRows,
    acceptance,
    effective_number,
    p_equivalent,
)
from hpml_bench.statistics.over_rows import RightAndWrong, TwoShares, fisher

RANDOM = np.random.default_rng(5)


def test_few_heavy_groups_tell_little_of_their_variance() -> None:
    """Where six of 60 groups carry it, p is below 5 % in about 5 % of equal pages; by their
    number it is in 12 %.
    """
    sizes, random = np.array([30] * 6 + [1] * 54), np.random.default_rng(3)
    groups, many = np.repeat(np.arange(60), sizes), effective_number(sizes)
    assert many == pytest.approx((sizes**2).sum() ** 2 / (sizes**4).sum())
    assert effective_number([30] * 60) is None
    made = [group_scores(random.standard_normal(60)[groups], groups) for _ in range(1500)]
    below = [
        np.mean([of.p() < 0.05 for one in made if (of := OverRows.of(one, 0.0, by))])
        for by in (many, None)
    ]
    assert below[0] < 0.06 < 0.1 < below[1]
    tables = [np.stack([one, one + 1e-6 * random.standard_normal(60)]) for one in made[:300]]
    assert np.mean([OverSeedsAndRows.of(of, 0.0, many).p() < 0.05 for of in tables]) < 0.08


def test_many_rows_are_the_paired_t_test() -> None:
    """Where no guard binds, p and interval are those of scipy's paired t test."""
    a, b = np.array([[0.08], [0.0]]) + RANDOM.standard_normal((2, 2000))
    (found,) = compare_rows({"a": a, "b": b}, span=float(np.ptp([a, b])))
    theirs = stats.ttest_rel(a, b)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        theirs.confidence_interval(0.95)
    )
    assert found.difference.n == 2000


@pytest.mark.parametrize(
    ("only_a", "only_b", "both"), [(9, 1, 50), (3, 0, 20), (40, 22, 300), (0, 0, 30), (1, 9, 0)]
)
def test_right_and_wrong_is_mcnemars_exact_test(only_a: int, only_b: int, both: int) -> None:
    """Of discordant rows, the binomial test at a half, as scipy has it."""
    a = np.repeat([1.0, 0.0, 1.0, 0.0], [only_a, only_b, both, 10])
    b = np.repeat([0.0, 1.0, 1.0, 0.0], [only_a, only_b, both, 10])
    (found,) = compare_rows({"a": a, "b": b})
    discordant = only_a + only_b
    assert found.p == pytest.approx(
        stats.binomtest(only_a, discordant).pvalue if discordant else 1.0
    )


def test_two_shares_are_agresti_and_caffo() -> None:
    """Unpaired: a success and a failure more in each, then Wald's interval, without 0 only where
    Fisher rejects too.
    """
    (found,) = compare_shares({"a": 11 / 12, "b": 7 / 12}, 12)  # their example
    assert found.p == pytest.approx(
        2 * stats.fisher_exact([[11, 1], [7, 5]], alternative="greater").pvalue
    )
    (found,) = compare_shares({"a": 110 / 120, "b": 70 / 120}, 120)
    p, q = 111 / 122, 71 / 122
    error = np.sqrt((p * (1 - p) + q * (1 - q)) / 122)
    wald = 2 * stats.norm.sf((p - q) / error)
    exact = 2 * stats.fisher_exact([[110, 10], [70, 50]], alternative="greater").pvalue
    assert found.p == pytest.approx(max(wald, exact))
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (p - q - 1.959964 * error, p - q + 1.959964 * error), abs=1e-6
    )


def test_a_range_other_than_one_scales_means() -> None:
    """Means of scores from -5 to 5 are shares of that range: the same p, and an interval ten
    times as wide.
    """
    (ours,) = compare_shares({"a": 2.0, "b": 1.0}, 400, bounds=(-5.0, 5.0))
    (share,) = compare_shares({"a": 0.7, "b": 0.6}, 400)
    assert ours.p == pytest.approx(share.p)
    assert ours.difference.mean == 1.0
    assert ours.difference.high == pytest.approx(10 * share.difference.high)


counts = st.integers(0, 60)
EVIDENCE: dict[str, st.SearchStrategy[Evidence]] = {
    "McNemar": st.builds(
        lambda *rows: RightAndWrong.of_rows(
            *(np.repeat(of, rows) for of in ([1.0, 0.0, 1.0], [0.0, 1.0, 1.0]))
        ),
        counts,
        counts,
        st.integers(2, 400),
    ),
    "shares": st.builds(
        lambda a, b, n: TwoShares(n, a - b, a, b),
        st.floats(0, 1),
        st.floats(0, 1),
        st.integers(3, 5000),
    ),
    "rows": st.builds(
        OverRows,
        st.integers(3, 500),
        st.floats(-1, 1),
        st.floats(0.001, 0.5),
        st.just(1.0),
        st.lists(st.integers(0, 5), min_size=1, max_size=4).map(
            lambda counts: tuple(sorted(counts))
        ),
    ),
}


@pytest.mark.parametrize("kind", EVIDENCE)
@given(data=st.data(), alpha=st.sampled_from([0.2, 0.05, 0.036, 0.001, 8e-5]))
def test_an_interval_agrees_with_its_test(kind: str, data: st.DataObject, alpha: float) -> None:
    """At every level it leaves out 0 just where p is below it."""
    evidence = data.draw(EVIDENCE[kind])
    low, high = acceptance([evidence], alpha)
    p = evidence.p()
    if abs(p / alpha - 1) > 1e-6:  # at the level itself rounding decides
        assert (low > 0 or high < 0) == (p < alpha)
    assert low <= high


@given(st.integers(0, 60), st.integers(0, 60), st.integers(60, 80))
def test_shares_are_no_surer_than_fishers_test(a: int, b: int, n: int) -> None:
    """P is at least Fisher's, as scipy has it, and never claims what a normal approximation
    alone would.
    """
    more, less = max(a, b), min(a, b)
    theirs = stats.fisher_exact([[more, n - more], [less, n - less]], alternative="greater").pvalue
    assert fisher(a, b, n) == pytest.approx(min(1.0, 2 * theirs), rel=1e-6)
    assert TwoShares(n, (a - b) / n, a / n, b / n).p() >= fisher(a, b, n)


def test_fishers_test_of_the_most_rows_takes_little_memory() -> None:
    """Only counts whose chance is above 0 in floats are summed, and the sum is scipy's."""
    n = 10_000_000
    tracemalloc.start()
    found = fisher(5_003_000, 5_000_000, n)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == pytest.approx(2 * stats.hypergeom.sf(5_002_999, 2 * n, 10_003_000, n), rel=1e-6)
    assert peak < 50e6
    assert fisher(n, 0, n) == 0


def test_rare_rows_keep_a_small_difference_from_being_claimed() -> None:
    """48 rows, all of them a little better: the other system may be better by the range in rows
    that aren't here.
    """
    a, b = 0.001 * RANDOM.standard_normal((2, 48)) + [[0.707], [0.7]]
    assert stats.ttest_rel(a, b).pvalue < 1e-10
    (found,) = decide(compare_rows({"a": a, "b": b}))
    assert found.verdict == "undecided"
    assert found.p > 0.5
    (wide,) = decide(compare_rows({"a": a + 0.3, "b": b}))
    assert wide.verdict == "different"


@pytest.mark.parametrize("kind", ["rows", "shares", "right and wrong"])
def test_the_planned_rows_decide(kind: str) -> None:
    """So many rows as a pair needs find a difference of its size in about 80 % of samples, and
    not in all.
    """
    random = np.random.default_rng(0)

    def differs(n: int) -> bool:
        a, b = (random.random((2, n)).T < [0.7, 0.6]).T.astype(float)
        if kind == "rows":
            a, b = 0.5 * random.standard_normal((2, n)) + [[0.1], [0.0]]
        pairs = compare_rows({"a": a, "b": b}, span=4.0 if kind == "rows" else 1.0)
        if kind == "shares":
            pairs = compare_shares({"a": a.mean(), "b": b.mean()}, n)
        return decide(pairs)[0].differs

    of_a_pair = {
        "rows": OverRows(200, 0.1, 0.5 * 2**0.5, 4.0),
        "shares": TwoShares(200, 0.1, 0.7, 0.6),
        "right and wrong": RightAndWrong(
            200, 0.1, (0.46 - 0.01) ** 0.5, 1.0, (36,), only_a=56, only_b=36
        ),
    }[kind]
    need = statistics.seeds_to_find([of_a_pair], 0.1, 0.036)
    assert 0.7 < np.mean([differs(need) for _ in range(300)]) < 0.92


def test_scores_of_no_range() -> None:
    """Where few rows carry a difference, the claim carries a mark; of equal scores p is 1, and
    nothing is claimed.

    Under three rows nothing is tested.
    """
    a = np.zeros(200)
    a[:4] = 100.0
    for bounded in (False, True):
        (found,) = compare_rows({"a": a, "b": np.zeros(200)}, span=100.0, bounded=bounded)
        assert found.skewed is not bounded
    (found,) = decide(compare_rows({"a": np.ones(20), "b": np.ones(20)}, span=0.0))
    assert (found.p, found.verdict) == (1.0, "undecided")
    assert decide(compare_rows({"a": np.ones(2), "b": np.zeros(2)}))[0].verdict == "untested"


@pytest.mark.parametrize("rows", [100, 1000])
def test_a_margin_may_be_carried_by_rare_rows(rows: int) -> None:
    """A difference of the margin has the score test's error, however alike all rows are: few
    rows can't exclude it.
    """
    alike, error = np.ones(rows), np.sqrt(0.02 * 0.98 / rows)
    over_seeds = OverSeedsAndRows.of([0 * alike] * 3)
    of_rows = (
        OverRows.of(0 * alike),
        RightAndWrong.of_rows(alike, alike),
        TwoShares(rows, 0.0, 1.0, 1.0),
    )
    for evidence in (*of_rows, over_seeds):
        assert p_equivalent(evidence, 0.02) == pytest.approx(
            stats.t.sf(0.02 / error, evidence.freedom(evidence.n))
        )


@pytest.mark.parametrize(
    ("right", "rows", "group"), [(0.98, 20, 5), (0.95, 20, 5), (0.98, 50, 5), (0.5, 20, 1)]
)
def test_the_interval_of_a_mean_covers_it_where_nearly_all_are_right(
    right: float, rows: int, group: int
) -> None:
    """Also where all that were drawn are: it is no point then, but the one by Clopper and
    Pearson.
    """
    random = np.random.default_rng(3)
    drawn = [(random.random(rows) < right).astype(float) for _ in range(1000)]
    groups = np.arange(rows * group) // group
    found = [mean_of_rows(group_scores(np.repeat(of, group), groups), 1.0) for of in drawn]
    covered = sum(ends is not None and ends[0] <= right <= ends[1] for ends in found)
    assert covered >= 0.95 * len(drawn) - 3 * (0.95 * 0.05 * len(drawn)) ** 0.5
    low, _ = mean_of_rows(np.ones(rows), 1.0) or (0.0, 0.0)
    assert low == pytest.approx(stats.binomtest(rows, rows).proportion_ci().low)
    assert mean_of_rows(np.ones(rows), 0.0) is None


def test_few_rows_all_to_one_side_are_no_surer_than_mcnemar() -> None:
    """Four rows all to one side: 1 of 8 by chance, by McNemar's test and by Student's t with its
    guards.
    """
    assert OverRows.of(np.ones(4)).p() == pytest.approx(1 / 8)
    (found,) = compare_rows({"a": np.ones(4), "b": np.zeros(4)})
    assert found.p == pytest.approx(1 / 8)


def test_rows_claim_little_where_rare_rows_carry_the_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows gain a little but for a share of them that lose: equal means; in the worst world no more
    than the level.

    Were only rows counted that lose more than half the range, worlds that lose a little less would
    be worse by a third.
    """
    found = cases.few_rows(0, (4, 6, 20, 50, 200, 1000))
    for name, share in found.items():
        assert share <= 1.03 * cases.LEVELS[name.split(", ")[1]], name
    assert found["4 rows, without"] == 0
    monkeypatch.setattr("hpml_bench.statistics.evidence.LOSSES", (1.0,))
    for name, share in cases.few_rows(0, (50, 200)).items():
        assert share > 1.3 * cases.LEVELS[name.split(", ")[1]], name


@given(st.data())
def test_the_p_of_two_points_is_the_packages(data: st.DataObject) -> None:
    """The exact sums over worlds of two values have the package's p of each number of losing
    rows.
    """
    rows = data.draw(st.sampled_from([4, 10, 49, 500]))
    lost = data.draw(st.integers(0, rows))
    loss, gain = (
        data.draw(st.sampled_from(list(cases.LOST))),
        data.draw(st.sampled_from(list(cases.GAINED))),
    )
    package = OverRows.of(np.repeat([-loss, gain], [lost, rows - lost]))
    ours = cases.p_of_two_points(rows, np.array([float(lost)]), loss, gain)
    assert ours == pytest.approx([package.p() if package else 1.0], abs=1e-9)
