"""The statistics keep their promises, by simulation: false claims, coverage and power (`benchmarks/calibration.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import calibration
import calibration_cases
import numpy as np
import pytest
from scipy import stats

from hpml_bench import statistics
from hpml_bench.statistics import verdicts
from hpml_bench.statistics.evidence import OverSeedsAndRows

TRIALS = 20_000


def tolerance(rate: float, trials: int = TRIALS) -> float:
    """Three standard deviations of a simulated rate: at the true rate, one seed in 700 would lie above."""
    return 3 * math.sqrt(rate * (1 - rate) / trials)


PAGES = 100
"""Pages of each kind: some seconds in all."""


@pytest.mark.calibration
@pytest.mark.parametrize(("noise", "bound"), calibration.BOUNDS.items())
def test_pages_rarely_claim_what_is_false(noise: str, bound: float) -> None:
    """Over all truths, spreads, disturbances and numbers of seeds together a false claim is as rare as promised."""
    worlds = [world for world in calibration.WORLDS.values() if world.noise == noise]
    rates = [calibration.false_pages(world, n, PAGES) for world in worlds for n in (3, 5, 10)]
    assert np.mean(rates) <= bound + tolerance(bound, PAGES * len(rates))
    assert max(rates) <= bound + tolerance(bound, PAGES) + 0.02


@pytest.mark.calibration
@pytest.mark.parametrize("size", [5, 10])
def test_rows_in_groups_claim_what_is_false_unless_the_groups_are_known(size: int) -> None:
    """Taken for independent, rows of one document make a third of the pages false and more; by group at most 5 % are.

    Of groups of one size and of many sizes.
    """
    assert calibration.grouped_pages(size, 40, known=False) > 0.3
    for even in (True, False):
        assert calibration.grouped_pages(size, PAGES, known=True, even=even) <= 0.05 + tolerance(0.05, PAGES)


@pytest.mark.calibration
@pytest.mark.parametrize("groups", [4, 8, 20])
def test_fewer_groups_than_seeds_claim_no_more(groups: int) -> None:
    """Where test rows are in a few groups, with ten seeds, at most 5 % of pages claim what is false."""
    size = calibration.ROWS // groups
    assert calibration.grouped_pages(size, PAGES, known=True, n=10, even=False) <= 0.05 + tolerance(0.05, PAGES)


def test_a_false_claim_is_counted() -> None:
    """The simulation can fail: verdicts at the plain level of 5 % a pair, without a family, make most pages false."""
    world = calibration.WORLDS["normal, all equal"]

    def alone(family: calibration.Family, **_: object) -> calibration.Family:
        return {metric: tuple(replace(c, p_adjusted=c.p) for c in of) for metric, of in family.items()}

    with patch.object(statistics, "decide_family", alone):
        assert calibration.false_pages(world, 5, 40) > 0.5


def test_differences_that_are_there_are_found() -> None:
    """Of pairs that differ by 6 points or a third of a cost most are called better with ten seeds, some with five."""
    world = calibration.WORLDS["normal, two groups"]
    assert calibration.claims(world, 10, 20)[0] > 0.5
    assert calibration.claims(world, 5, 20)[0] > 0.3


def test_equal_costs_are_found_equivalent() -> None:
    """Of equal methods a tenth of the pairs or more are called equivalent with ten seeds."""
    assert calibration.claims(calibration.WORLDS["normal, all equal"], 10, 20)[1] > 0.1


def test_skewed_noise_of_unequal_spread_is_marked_oftener() -> None:
    """With ten seeds the mark stands at four such pairs in ten, and at fewer than one in ten of normal noise."""
    assert calibration.marked("skewed", 10, 500) > 0.35
    assert calibration.marked("normal", 10, 500) < 0.12


CASES = dict(calibration_cases.cases())
FEW = 60
"""Pages of each case: a minute in all."""


@pytest.mark.calibration
@pytest.mark.parametrize("name", CASES)
def test_no_case_makes_pages_false(name: str) -> None:
    """Rare rows, outliers, looks at added seeds, periodic noise: unmarked false pages are as rare as promised."""
    wrong, _ = calibration_cases.rates(CASES[name], FEW)
    assert wrong / FEW <= 0.05 + tolerance(0.05, FEW)


@pytest.mark.calibration
def test_the_cases_find_what_they_are_for() -> None:
    """Without its mend each kind of page is often false: of rare rows, rare failures, outliers, and added seeds."""

    def wrong(name: str, pages: int = 40) -> float:
        return calibration_cases.rates(CASES[name], pages)[0] / pages

    with patch.object(OverSeedsAndRows, "error_at", lambda self, _, n: self.error(n)):
        assert wrong("right and wrong, the margin carried by rare rows, 500 rows", 300) > 0.045
    with patch.object(OverSeedsAndRows, "p_rare", lambda _: 0.0):
        assert wrong("real scores of 0.97, rare failures of one method, 360 rows, 2 methods", 300) > 0.06
    groups = calibration_cases.SCORES["right and wrong in uneven groups, the margin carried by large ones"]
    page = partial(calibration_cases.score_page, replace(groups, span=1.0), 2, 5, len(calibration_cases.LARGE))
    assert calibration_cases.rates(page, 300)[0] > 0.045 * 300
    with patch.object(statistics, "compare_scores", partial(_spanless, statistics.compare_scores)):
        assert wrong("real scores, the margin carried by rare rows, 100 rows") > 0.2
        assert wrong("real scores, rare failures of one method, 100 rows") > 0.1
    with patch.object(verdicts, "ROW_SKEW", math.inf):
        assert wrong("RMSE, outliers, 500 rows", 80) > 0.06
    with patch.object(verdicts, "spent_at", lambda *_: 1.0):
        assert wrong("looks at 5, 7, 10, 14, 20, 30 seeds", 80) > 0.06


def _spanless(compare: Callable[..., Any], scores: Any, margin: float, _: float = 1.0, step: float = 1.0) -> Any:
    return compare(scores, margin, 0.0, step)


@pytest.mark.parametrize("grid", [0.25, 0.5, 1.5, 3.0])
@pytest.mark.parametrize("n", [3, 5])
def test_ties_on_a_known_grid_claim_no_more(grid: float, n: int) -> None:
    """Values rounded to a grid of any coarseness differ at 5 % in at most 5 % of samples, and at 1 % in at most 1 %."""
    random = np.random.default_rng(5)
    samples = np.round(random.standard_normal((2, 4000, n)) / grid) * grid
    found = (statistics.OverSeeds.of(a - b, grid) for a, b in zip(*samples, strict=True))
    p = np.array([1.0 if one is None else one.p() for one in found])
    for level in (0.05, 0.01):
        assert np.mean(p < level) <= level + tolerance(level, 4000)


@pytest.mark.parametrize("n", [5, 10])
def test_intervals_of_normal_data_cover(n: int) -> None:
    """The 95 % interval holds the true mean of normal data in 93-97 % of samples."""
    assert 0.93 < calibration.coverage(calibration.NOISE["normal"], n, TRIALS) < 0.97


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("family", [1, 10])
@pytest.mark.parametrize("difference", [0.8, 2.0])
def test_power_is_as_theory_says(n: int, family: int, difference: float) -> None:
    """A pair tested alone, and at Holm's first step of ten, is found as often as the noncentral t says."""
    alpha = statistics.ALPHA / family
    theory = calibration.paired_t_power(difference, n, alpha)
    values = np.random.default_rng(2).standard_normal((TRIALS, n)) + difference
    found = float(np.mean(stats.ttest_1samp(values, 0.0, axis=1).pvalue < alpha))
    assert found == pytest.approx(theory, abs=tolerance(theory) + 1e-4)


@pytest.mark.parametrize("pilot", [3, 5, 10])
def test_a_pilots_own_spread_plans_too_few_seeds_and_the_cautious_enough(pilot: int) -> None:
    """On average over pilots the first has a power of 55 to 80 %, the second at least 86 %."""
    plain, cautious = calibration.planned_power(pilot, 1.0, 0.04 / 30, 300)
    assert 0.55 < plain < 0.8 < 0.86 < cautious
