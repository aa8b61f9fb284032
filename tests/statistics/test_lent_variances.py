"""Variances over seeds that earlier suites lend, against the formula of the moderated t."""

import math

import numpy as np
import pytest
from scipy import stats

from hpml_bench import statistics
from hpml_bench.statistics import Lent, OverSeedsAndRows


def right(methods: int, seeds: int, rows: int = 200) -> dict[str, dict[int, np.ndarray]]:
    """Return which rows methods get right, by seed."""
    drawn = np.random.default_rng(5).random((methods, seeds, rows))
    return {
        f"m{at}": dict(enumerate((of < 0.6 + 0.02 * at).astype(float)))
        for at, of in enumerate(drawn)
    }


def test_two_methods_are_tested_with_the_lent_variance() -> None:
    """The variance is (d s² + d0 s0²) / (d + d0), s0² being the lent one and the interaction of
    these rows.
    """
    scores = right(2, 3)
    table = np.array([scores["m0"][seed] - scores["m1"][seed] for seed in range(3)])
    (alone,) = statistics.compare_scores(scores, 0.01)
    (pair,) = statistics.compare_scores(scores, 0.01, lent={("m0", "m1"): Lent(0.0004, 3)})
    both, over_seeds = pair.evidence
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    earlier = 0.0004 + float((rest**2).sum()) / (2 * 199) / 200
    own = float(table.mean(axis=1).var(ddof=1))
    for one, grid in ((both, 0.0), (over_seeds, (1 / 200) ** 2 / 12)):
        assert one.prior == 3
        assert isinstance(one, OverSeedsAndRows | statistics.OverSeeds)
        assert one.variance == pytest.approx((2 * (own + grid) + 3 * earlier) / 5)
    t = table.mean() / over_seeds.error(3)
    assert over_seeds.p() == pytest.approx(2 * stats.t.sf(abs(t), 5))
    assert over_seeds.error(3) == pytest.approx(math.sqrt(over_seeds.variance / 3))  # type: ignore[attr-defined]
    assert pair.p != alone.p
    assert [one.prior for one in alone.evidence] == [0, 0]


def test_the_larger_of_two_priors_counts() -> None:
    """With five methods a pair is shrunk to what is lent just where that has more degrees of
    freedom; others aren't.
    """
    scores = right(5, 3)
    shared = {(c.a, c.b): c.evidence for c in statistics.compare_scores(scores, 0.01)}
    lent = {("m0", "m1"): Lent(0.01, 4), ("m0", "m2"): Lent(0.01, 1e-3)}
    found = {(c.a, c.b): c.evidence for c in statistics.compare_scores(scores, 0.01, lent=lent)}
    assert [one.prior for one in found["m0", "m1"]] == [4, 4]
    assert {pair: of for pair, of in found.items() if pair != ("m0", "m1")} == {
        pair: of for pair, of in shared.items() if pair != ("m0", "m1")
    }


def test_without_rows_nothing_is_lent() -> None:
    """What is lent leaves the rows' part out, which means of seeds alone don't tell."""
    values = {"m0": {0: 0.5, 1: 0.6, 2: 0.7}, "m1": {0: 0.4, 1: 0.6, 2: 0.6}}
    lent = {("m0", "m1"): Lent(0.0004, 3)}
    assert statistics.compare_pairs(values, lent=lent) == statistics.compare_pairs(values)


def test_earlier_suites_are_pooled_by_their_seeds() -> None:
    """The mean of (MS_seeds - MS_interaction) / m by degrees of freedom, no less than 0; each
    lends one, up to four.
    """
    few, many = (
        OverSeedsAndRows(3, 100, 0.0, (0.05, 0.2, 0.03)),
        OverSeedsAndRows(5, 50, 0.0, (0.2, 0.3, 0.1)),
    )
    assert statistics.lend([few]) == pytest.approx(Lent(0.02 / 100, 1))
    assert statistics.lend([few, many]) == pytest.approx(
        Lent((2 * 0.02 / 100 + 4 * 0.1 / 50) / 6, 2)
    )
    assert statistics.lend([few] * 7).freedom == 4
    assert statistics.lend([OverSeedsAndRows(3, 100, 0.0, (0.01, 0.2, 0.03))]) == Lent(0.0, 1)
