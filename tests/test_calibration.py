"""The statistics keep their promises, by simulation: false claims, coverage and power (`benchmarks/calibration.py`)."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hpml_bench import statistics


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "calibration", Path(__file__).parents[1] / "benchmarks" / "calibration.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


calibration = _script()
TRIALS = 20_000


def tolerance(rate: float, trials: int = TRIALS) -> float:
    """Three standard deviations of a simulated rate: at the true rate, one seed in 700 would lie above."""
    return 3 * math.sqrt(rate * (1 - rate) / trials)


@pytest.mark.parametrize("noise", calibration.NOISE)
@pytest.mark.parametrize("n", [5, 10])
def test_the_twins_are_the_library(noise: str, n: int) -> None:
    """On 100 sweeps the vectorised p, Holm's p, verdicts and intervals equal those of the library's own functions."""
    values = calibration.simulate(calibration.NOISE[noise], calibration.NULLS["partial, two groups"], n, 100)
    difference, adjusted = calibration.adjusted_p(values)
    low, high = calibration.student_intervals(values)
    for trial, sweep in enumerate(values):
        compared = statistics.compare_pairs({f"m{i}": dict(enumerate(row)) for i, row in enumerate(sweep)})
        assert [c.p_adjusted for c in compared] == pytest.approx(adjusted[trial], rel=1e-9)
        assert [c.difference.mean for c in compared] == pytest.approx(difference[trial], abs=1e-12)
        assert [c.differs for c in compared] == (adjusted[trial] < statistics.ALPHA).tolist()
        intervals = [statistics.mean_interval(row) for row in sweep]
        assert [i.low for i in intervals] == pytest.approx(low[trial])
        assert [i.high for i in intervals] == pytest.approx(high[trial])


@pytest.mark.parametrize("noise", calibration.NOISE)
@pytest.mark.parametrize("null", calibration.NULLS)
@pytest.mark.parametrize("n", [5, 10])
def test_false_claims_are_rare(noise: str, null: str, n: int) -> None:
    """Under complete and partial nulls at most 5 % of sweeps hold any false "better", whatever the noise."""
    rate = calibration.false_claims(calibration.NOISE[noise], calibration.NULLS[null], n, TRIALS)
    assert rate <= 0.05 + tolerance(0.05)


@pytest.mark.parametrize("grid", [0.25, 0.5, 1.5, 3.0])
def test_false_claims_are_rare_on_any_grid(grid: float) -> None:
    """Ties of every coarseness, from many values to three, do not lead to more false claims at five seeds."""

    def noise(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(np.round(random.standard_normal(shape) / grid) * grid)

    rate = calibration.false_claims(noise, calibration.NULLS["complete"], 5, TRIALS)
    assert rate <= 0.05 + tolerance(0.05)


@pytest.mark.parametrize("n", [5, 10])
def test_intervals_of_normal_data_cover(n: int) -> None:
    """The 95 % interval holds the true mean of normal data in 93-97 % of samples."""
    assert 0.93 < calibration.coverage(calibration.NOISE["normal"], n, TRIALS) < 0.97


def test_crossed_intervals_cover_where_seeds_alone_do_not() -> None:
    """For another test set the crossed interval covers in 93-98 %; the one over seeds alone is far below."""
    alone, crossed = calibration.crossed_coverage(0.05, 5, 500, 1000)
    assert alone < 0.9
    assert 0.93 < crossed < 0.98


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("family", [1, 10])
@pytest.mark.parametrize("difference", [0.8, 2.0])
def test_power_is_as_theory_says(n: int, family: int, difference: float) -> None:
    """A pair tested alone, and at Holm's first step of ten, is found as often as the noncentral t says."""
    alpha = statistics.ALPHA / family
    theory = statistics.paired_t_power(difference, 1.0, n, alpha)
    assert calibration.power(difference, n, alpha, TRIALS) == pytest.approx(theory, abs=tolerance(theory) + 1e-4)


def test_the_detectable_difference_is_found_8_times_in_10() -> None:
    """Differences of the printed size are found in 80 %, alone and at Holm's first step."""
    for alpha in (0.05, 0.005):
        size = statistics.detectable_difference(1.0, 5, alpha)
        assert calibration.power(size, 5, alpha, TRIALS) == pytest.approx(0.8, abs=tolerance(0.8))
