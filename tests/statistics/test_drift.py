"""The drift of step times: the estimate and interval of Hodges and Lehmann, and how often they
are wrong.
"""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from hpml_bench.statistics.drift import hodges_lehmann, step_time_drift


def steps(
    n: int, generator: np.random.Generator, noise: float = 0.03
) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds and tokens of steps of 20 ms and 10 µs a token, 3 % noise, one in 20 taking
    up to three times.
    """
    tokens = generator.integers(200, 1200, n).astype(float)
    outliers = np.where(generator.random(n) < 0.05, 1 + 2 * generator.random(n), 1)
    return (0.02 + 1e-5 * tokens) * generator.lognormal(0, noise, n) * outliers, tokens


@pytest.mark.parametrize("n", [12, 40, 100])
def test_the_interval_holds_the_shifts_that_the_test_keeps(n: int) -> None:
    """Shifted back by what lies just inside its ends, samples don't differ at 5 % by scipy's
    test; just outside do.
    """
    generator = np.random.default_rng(n)
    first, last = generator.normal(0, 1, n), generator.normal(0.5, 1, n)
    _, low, high = hodges_lehmann(first, last)

    def p(shift: float) -> float:
        return float(
            mannwhitneyu(first, last - shift, method="asymptotic", use_continuity=False).pvalue
        )

    inside, outside = 1e-9, 6 / n  # a few order statistics further
    assert min(p(low + inside), p(high - inside)) >= 0.05 - 0.01
    assert max(p(low - outside), p(high + outside)) < 0.05


def test_few_steps_have_the_whole_range() -> None:
    """Four against four: the least and the largest difference, which cover 97 %."""
    assert hodges_lehmann(np.arange(4.0), np.arange(4.0) * 3)[1:] == (-3.0, 9.0)


def test_a_known_drift_is_found() -> None:
    """10 % over the last third is in nearly all intervals, whatever the batches' sizes; and no
    drift is in them too.
    """
    for true in (0.0, 0.1):
        found = []
        for seed in range(200):
            seconds, tokens = steps(90, np.random.default_rng([seed, 1]))
            seconds[60:] *= 1 + true
            found.append(step_time_drift(seconds, tokens))
        assert np.mean([d.low <= true <= d.high for d in found]) > 0.9
        assert np.median([d.estimate for d in found]) == pytest.approx(true, abs=0.01)


def test_batches_that_get_longer_are_no_drift() -> None:
    """Steps sorted by their tokens take longer and longer, by the line exactly; one pause of 10
    s doesn't bend it.
    """
    tokens = np.arange(200.0, 1100.0, 10.0)
    seconds = 0.02 + 1e-5 * tokens
    drift = step_time_drift(seconds, tokens)
    assert (drift.estimate, drift.low, drift.high) == pytest.approx((0, 0, 0), abs=1e-9)
    seconds[88] = 10.0
    assert step_time_drift(seconds, tokens).estimate == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "noise"), [(15, 0.03), (15, 0.2), (60, 0.1)])
def test_permuted_steps_are_rarely_called_drifting(n: int, noise: float) -> None:
    """With the order left to chance, an interval lies wholly beyond ±5 % in at most 5 % of
    trials.
    """
    trials, beyond = 400, 0
    for trial in range(trials):
        generator = np.random.default_rng([trial, n])
        seconds, tokens = steps(n, generator, noise)
        order = generator.permutation(n)
        drift = step_time_drift(seconds[order], tokens[order])
        beyond += drift.low > 0.05 or drift.high < -0.05
    assert beyond <= 0.05 * trials


def test_many_steps_are_averaged() -> None:
    """6,000 steps give the drift of 300 blocks a third: quickly, and near the true one."""
    seconds, tokens = steps(6000, np.random.default_rng(0))
    seconds[4000:] *= 1.02
    drift = step_time_drift(seconds, tokens)
    assert drift.low < 0.02 < drift.high < drift.low + 0.02


def test_batches_of_one_size_need_no_line() -> None:
    """Time per token it is then; and also where the line would fall below nothing."""
    seconds = np.array([1.0] * 12 + [1.5] * 6)
    assert step_time_drift(seconds, np.full(18, 64.0)).estimate == pytest.approx(0.5)
    tokens = np.array([100.0, 101, 102, 103, 104, 1.0] * 3)
    steep = np.where(tokens > 50, (tokens - 99) ** 1.0, 0.01)
    assert math.isfinite(step_time_drift(steep, tokens).estimate)


@pytest.mark.parametrize(("n", "known"), [(0, False), (11, False), (12, True)])
def test_few_steps_have_no_drift(n: int, known: bool) -> None:
    """Under four a third nothing is said."""
    drift = step_time_drift(np.ones(n), np.arange(n) + 1.0)
    assert math.isfinite(drift.estimate + drift.low + drift.high) == known
