"""Ranks over suites: Demsar's example, scipy's Friedman, exact signs, and how often claims are
false.
"""

import itertools
from math import comb

import numpy as np
import pytest
from scipy.special import fdtrc
from scipy.stats import friedmanchisquare

from hpml_bench.statistics import least_suites, over_suites, spent_at
from hpml_bench.statistics.intervals import sign_flip
from hpml_bench.statistics.over_suites import (
    friedman,
    p_of_ranks,
    ranked,
    shared_methods,
    sign_patterns,
)

DEMSAR = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975
0.957 0.978 0.946 0.970
"""
"""Areas under the curve of four classifiers on fourteen data sets: table 6 of Demsar 2006, which
ranks the 13th by digits that it rounds away.
"""
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf", "e", "f")


def suites(table: np.ndarray, better: str = "higher", seeds: int = 1) -> list:
    """Return suites of one value per method and seed from [suites, methods]."""
    return [
        (
            {
                name: dict.fromkeys(range(seeds), float(v))
                for name, v in zip(NAMES, row, strict=False)
            },
            better,
        )
        for row in table
    ]


def test_mean_ranks_and_statistic_are_those_of_demsars_paper() -> None:
    """Average ranks 3.143, 2.000, 2.893 and 1.964, chi-squared 9.28 and F 3.69 with 3 and 39
    degrees of freedom.
    """
    table = np.array([[float(x) for x in line.split()] for line in DEMSAR.split("\n") if line])
    found = over_suites(suites(table))
    assert [round(rank, 3) for rank in found.ranks.values()] == [3.143, 2.0, 2.893, 1.964]
    ranks = np.array([ranked(-row) for row in table])
    n, k = ranks.shape
    uncorrected = (
        12 * n / (k * (k + 1)) * (sum(r**2 for r in found.ranks.values()) - k * (k + 1) ** 2 / 4)
    )
    assert uncorrected == pytest.approx(9.28, abs=0.01)
    assert (n - 1) * uncorrected / (n * (k - 1) - uncorrected) == pytest.approx(3.69, abs=0.01)
    assert 0.005 < found.p < 0.03  # ties make it smaller than the paper's, which ignores them


@pytest.mark.parametrize("seed", range(5))
def test_the_statistic_is_scipys(seed: int) -> None:
    """Iman and Davenport's p from scipy's chi-squared, with and without ties."""
    table = np.random.default_rng(seed).normal(size=(8, 4)).round(1 if seed % 2 else 6)
    ranks = np.array([ranked(row) for row in table])
    q, n, k = friedmanchisquare(*table.T).statistic, 8, 4
    assert friedman(ranks) == pytest.approx(
        fdtrc(k - 1, (k - 1) * (n - 1), (n - 1) * q / (n * (k - 1) - q)), rel=1e-9
    )


@pytest.mark.parametrize(("k", "places", "look", "n"), [
    (2, None, 1, 6), (3, None, 1, 8), (5, None, 1, 10), (45, None, 1, 16),
    (2, 1, 1, 6), (3, 1, 1, 13), (5, 1, 1, 29),
    (5, 2.5, 2, 16),
])  # fmt: skip
def test_the_least_suites_are_those_of_the_test(
    k: int, places: float | None, look: int, n: int
) -> None:
    """The least number at which the test of a pair, always so many places apart, is below the
    look's level.
    """
    assert least_suites(k, places, spent_at(look)) == n
    level, apart = 0.05 * spent_at(look) / (k * (k - 1) / 2), places or k - 1.0
    assert (
        p_of_ranks(np.full(n, apart), k - 1.0) < level <= p_of_ranks(np.full(n - 1, apart), k - 1.0)
    )


def test_a_later_look_needs_a_smaller_p() -> None:
    """Six suites show a method at the first look, and five don't; at the second eight do."""
    for n, look, shown in (
        (5, 1, None),
        (6, 1, NAMES[1]),
        (6, 2, None),
        (7, 2, None),
        (8, 2, NAMES[1]),
    ):
        assert (
            over_suites(suites(np.tile([0.1, 0.2], (n, 1))), spent=spent_at(look)).pairs[0].winner
            == shown
        )
    one_of_two = spent_at(
        1, declared=2
    )  # a declared look has less than a first one that nobody declared
    for n, shown in ((6, None), (7, NAMES[1])):
        assert (
            over_suites(suites(np.tile([0.1, 0.2], (n, 1))), spent=one_of_two).pairs[0].winner
            == shown
        )


def test_suites_of_a_block_count_as_one() -> None:
    """Ranks within a block are those of the mean ranks over its suites, also where directions
    differ.

    Where all methods are equal, or one suite or block is all, p is 1 and nobody wins.
    """
    table = np.array([[3, 2, 1.0], [3, 1, 2], [1, 2, 3], [2, 1, 3]])
    found = over_suites([*suites(table[:3]), *suites(-table[3:], "lower")], blocks=(0, 0, 0, 1))
    assert found.by_suite == {"C4.5": (1.0, 2.0), "C4.5+m": (3.0, 3.0), "C4.5+cf": (2.0, 1.0)}
    block = {"blocks": (0,) * 57}
    for table, of in (
        (np.tile([0.1, 0.2], (57, 1)), block),
        (np.ones((6, 3)), {}),
        (np.array([[1.0, 2.0, 3.0]]), {}),
    ):
        nothing = over_suites(suites(table), **of)
        assert (nothing.p, {pair.winner for pair in nothing.pairs}) == (1.0, {None})


@pytest.mark.parametrize("n", [1, 5, 12])
def test_all_patterns_of_signs_count(n: int) -> None:
    """The p of differences of ranks is that of every pattern tried in turn, with ties and
    halves, or of very many.
    """
    differences = np.random.default_rng(n).integers(-4, 5, size=n) / 2
    assert sign_patterns(differences) == pytest.approx(sign_flip(differences), rel=1e-12)
    assert over_suites(suites(np.tile([0.1, 0.2], (17, 1)))).pairs[0].p == 2.0**-16


@pytest.mark.parametrize(("wins", "n"), [(0.95, 6), (0.85, 6), (0.85, 10), (0.9, 15), (0.5, 8)])
def test_intervals_of_mean_ranks_cover_them(wins: float, n: int) -> None:
    """Also where one method was first in all suites: no point then, and within the ranks that
    there are.
    """
    draw, covered = np.random.default_rng(1), 0
    for _ in range(400):
        first = draw.random(n) < wins
        found = over_suites(suites(np.stack([first * 1.0, 0.5 * np.ones(n)], axis=1)))
        low, high = found.intervals[NAMES[0]]
        assert 1 <= low < high <= 2
        covered += low <= 1 * wins + 2 * (1 - wins) <= high
    assert covered >= 400 * 0.95 - 3 * (400 * 0.95 * 0.05) ** 0.5


def test_only_methods_of_every_suite_are_ranked() -> None:
    """A rank among other rivals is another rank."""
    values = {name: {0: 1.0} for name in "abc"}
    assert shared_methods([values, {"b": {0: 1.0}, "a": {0: 2.0}}]) == ("a", "b")
    with pytest.raises(ValueError, match="two methods"):
        over_suites([(values, "higher"), ({"a": {0: 1.0}}, "higher")])


@pytest.mark.parametrize("most", [1, 2, 4, 9])
def test_a_pair_alone_errs_in_at_most_its_level(most: int) -> None:
    """Exact over two-point differences of mean 0: places ahead or behind, at levels of 5 % and
    less.
    """
    for n, ahead, behind in itertools.product((3, 6, 15, 40), *[(0.5, 1, most)] * 2):
        if max(ahead, behind) <= most:
            share = ahead / (ahead + behind)
            p = [
                p_of_ranks(np.r_[np.full(few, behind), np.full(n - few, -ahead)], float(most))
                for few in range(n + 1)
            ]
            chances = [comb(n, few) * share**few * (1 - share) ** (n - few) for few in range(n + 1)]
            for level in (0.045, 0.005):
                assert (
                    sum(c for c, one in zip(chances, p, strict=True) if one < level) <= 1.25 * level
                )


@pytest.mark.calibration
@pytest.mark.parametrize("kind", ["all", "half", "extremes"])
@pytest.mark.parametrize(("n", "k"), [(6, 2), (6, 3), (8, 3), (10, 4), (15, 4), (12, 6)])
def test_false_claims_are_at_most_five_per_cent_of_pages(n: int, k: int, kind: str) -> None:
    """Whether all methods are equal, or only some: at most 5 % and three standard errors of 600
    pages.

    A page is false on which one of two equal methods is called better.
    """
    draw, wrong, pages = np.random.default_rng(n * k), 0, 600
    for _ in range(pages):
        noise = draw.normal(size=(n, k))
        equal = [*itertools.combinations(range(k), 2)]
        if kind == "half":  # two groups, within which methods are equal
            noise[:, : k // 2] += 3.0
            equal = [(i, j) for i, j in equal if (i < k // 2) == (j < k // 2)]
        if (
            kind == "extremes"
        ):  # two equal methods, now first, now last, where mean ranks claim too much
            noise[:, 2:] *= 0.1
            noise[:, :2] += draw.choice([-9.0, 9.0], size=(n, 2))
            equal = [(0, 1)]
        found = {(pair.a, pair.b) for pair in over_suites(suites(noise)).pairs if pair.winner}
        wrong += any((NAMES[i], NAMES[j]) in found for i, j in equal)
    assert wrong / pages <= 0.05 + 3 * (0.05 * 0.95 / pages) ** 0.5
