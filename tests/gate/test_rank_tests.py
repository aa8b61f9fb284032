"""Exact rank tests with their bounds, and the levels of looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hpml_bench.gate.decide import rank_tests, spending
from hpml_bench.gate.records import Rules

RULES = Rules()


@pytest.mark.parametrize("n", [1, 5, 12, 24])
def test_the_signed_rank_test_is_scipys(n: int) -> None:
    """P values in both directions, at zero and elsewhere, agree with scipy's exact ones."""
    values = np.random.default_rng(n).normal(0.3, 1, n)
    test = rank_tests.signed_rank(values.tolist())
    for centre in (0.0, 0.5):
        for ours, side in ((test.p_above, "greater"), (test.p_below, "less")):
            exact = stats.wilcoxon(values - centre, alternative=side, method="exact").pvalue
            assert ours(centre) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("m", "n"), [(1, 3), (10, 5), (12, 30)])
def test_the_rank_sum_test_is_scipys(m: int, n: int) -> None:
    """P values in both directions agree with scipy's exact Mann-Whitney test."""
    generator = np.random.default_rng(m)
    x, y = generator.normal(0, 1, m), generator.normal(0.5, 1, n)
    test = rank_tests.rank_sum(x.tolist(), y.tolist())
    for ours, side in ((test.p_above, "greater"), (test.p_below, "less")):
        assert ours(0.0) == pytest.approx(stats.mannwhitneyu(y, x, alternative=side, method="exact").pvalue, rel=1e-12)


@pytest.mark.parametrize("level", [0.3, 0.05, 0.01, 0.001])
def test_a_bound_is_where_its_test_turns(level: float) -> None:
    """Just inside the bound the test rejects at its level, just outside it doesn't."""
    test = rank_tests.signed_rank(np.random.default_rng(3).normal(0, 1, 12).tolist())
    lower, upper = test.lower(level), test.upper(level)
    assert lower is not None
    assert upper is not None
    assert test.p_above(lower - 1e-9) <= level < test.p_above(lower + 1e-9)
    assert test.p_below(upper + 1e-9) <= level < test.p_below(upper - 1e-9)


def test_the_estimate_is_the_median_of_walsh_averages() -> None:
    """Hodges and Lehmann, by hand: of 1, 2, 9 the averages are 1, 1.5, 2, 5, 5.5, 9."""
    assert rank_tests.signed_rank([9.0, 1.0, 2.0]).estimate == 3.5


def test_ties_err_on_the_side_of_no_verdict() -> None:
    """Effects that equal the slowdown let through are no evidence that it is exceeded."""
    assert rank_tests.signed_rank([0.5] * 12).p_above(0.5) == 1.0
    assert rank_tests.signed_rank([0.5] * 12).p_below(0.5) == 1.0


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_no_test_without_finite_values(values: list[float]) -> None:
    """Rather than a p of NaN."""
    with pytest.raises(ValueError, match="finite"):
        rank_tests.signed_rank(values)


@pytest.mark.parametrize("methods", [1, 3, 12, 20, 40])
def test_the_levels_spend_what_was_promised_and_can_be_reached(methods: int) -> None:
    """They sum to alpha, and Holm's first step at each look is above the least p of so many pairs, or passed over."""
    found = spending.alphas(RULES, methods)
    assert sum(found) == pytest.approx(RULES.alpha)
    for level, look in zip(found, RULES.looks, strict=True):
        assert level == 0 or rank_tests.signed_rank_tail(look)[-1] <= level / methods


def test_a_look_that_cannot_reject_leaves_its_share_to_the_next() -> None:
    """Eight pairs can't go below 1/256: the first look spends nothing."""
    assert spending.levels(0.01, (6, 12), 3) == (0.0, pytest.approx(0.01))
