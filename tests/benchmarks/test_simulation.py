"""The rule's error rates, by simulation of whole trials: what docs/check.md promises."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import check_rates
import check_simulation as simulation
import numpy as np
import pytest

from hpml_bench.gate.decide import rank_tests, verdicts
from hpml_bench.gate.records import Rules
from hpml_bench.statistics import binomial_interval

ROOT = Path(__file__).parents[2]
RULES = Rules()
TRIALS = 20_000
STATUS = {"INCONCLUSIVE": simulation.UNDECIDED, "PASS": simulation.PASS, "FAIL": simulation.FAIL}


def noise(kind: str, sd: float, effect: float) -> Any:
    """Return a drawing of log ratios about a slowdown, of standard deviation `sd` in every kind."""

    def draw(generator: np.random.Generator, shape: tuple[int, int, int]) -> Any:
        if kind == "normal":
            values = generator.standard_normal(shape)
        elif kind == "heavy":
            values = generator.standard_t(3, shape) / math.sqrt(3)
        elif kind == "skewed":
            values = generator.standard_exponential(shape) - 1
        else:  # one method's pair is slow together with the others'
            common = generator.standard_normal((shape[0], 1, shape[2]))
            values = (common + generator.standard_normal(shape)) / math.sqrt(2)
        return math.log1p(effect) + sd * values

    return draw


def upper_bound(events: int, trials: int) -> float:
    """Return the upper end of the rate's 95 % interval."""
    return binomial_interval(events, trials)[1]


@pytest.mark.parametrize("kind", ["normal", "heavy", "common"])
@pytest.mark.parametrize("methods", [1, 3, 8])
@pytest.mark.parametrize("sd", [0.005, 0.015, 0.05])
def test_false_alarms_at_the_boundary(kind: str, methods: int, sd: float) -> None:
    """A slowdown of exactly what is let through: over methods and looks at most alpha of the trials FAIL."""
    rates = simulation.simulate(noise(kind, sd, RULES.null), RULES, methods, TRIALS)
    assert upper_bound(rates.failed, TRIALS) < RULES.alpha


@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed", "common"])
def test_no_change_hardly_ever_fails(kind: str) -> None:
    """Equal versions at 1.5 % spread: the percent that is let through makes false alarms rarer than 1 in 1000."""
    rates = simulation.simulate(noise(kind, 0.015, 0.0), RULES, 3, TRIALS)
    assert upper_bound(rates.failed, TRIALS) < 0.001
    assert rates.passed > 0.95 * TRIALS


@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed", "common"])
@pytest.mark.parametrize("sd", [0.005, 0.01, 0.015])
def test_power_at_the_target(kind: str, sd: float) -> None:
    """A slowdown of 3 % in all three methods is caught in more than 95 % of trials."""
    rates = simulation.simulate(noise(kind, sd, RULES.target), RULES, 3, TRIALS)
    assert 1 - upper_bound(TRIALS - rates.failed, TRIALS) > 0.95


@pytest.mark.parametrize("kind", ["normal", "heavy", "common"])
@pytest.mark.parametrize("sd", [0.01, 0.03, 0.1])
def test_the_target_slowdown_seldom_passes(kind: str, sd: float) -> None:
    """Whatever the spread, a method that is 3 % slower gets a PASS at some look in at most beta of the trials."""
    rates = simulation.simulate(noise(kind, sd, RULES.target), RULES, 1, TRIALS)
    assert upper_bound(rates.slipped, TRIALS) < RULES.beta


@pytest.mark.parametrize(("pairs", "power"), [(12, 0.89), (16, 0.92), (24, 0.94)])
@pytest.mark.parametrize("methods", [1, 3])
def test_the_detectable_effect_is_detected(pairs: int, power: float, methods: int) -> None:
    """A slowdown as large as the printed effect is found about as often as promised (95 %), at Holm's first step."""
    level, sd = RULES.alpha / methods, 0.01
    values = np.random.default_rng(0).normal(0, 1, pairs)
    test = rank_tests.signed_rank((values / values.std(ddof=1) * sd).tolist())
    effect = verdicts.detectable(test, RULES, level)
    assert effect is not None
    slowed = simulation.simulate(noise("normal", sd, effect), Rules(looks=(pairs,), alpha=level), 1, TRIALS)
    assert slowed.failed > power * TRIALS


def test_the_page_of_docs_has_the_simulated_rates() -> None:
    """A row of docs/check.md, made again by benchmarks/check_rates.py, is the same within half a percentage point."""
    found = [float(cell.removesuffix(" %")) for cell in check_rates.row("normal", 0.03)[1:]]
    line = next(
        line for line in (ROOT / "docs" / "check.md").read_text().splitlines() if line.startswith("| normal | 3 %")
    )
    shown = [float(cell.strip().removesuffix(" %")) for cell in line.strip("|").split("|")[1:]]
    assert shown == pytest.approx(found, abs=0.5)


def test_it_is_the_rule_that_checks_use() -> None:
    """Trials decided at once get the verdicts that `verdicts.look` gives one by one, and stop at the same look."""
    draw = noise("normal", 0.02, 0.015)
    effects = draw(np.random.default_rng(5), (60, 4, RULES.looks[-1]))
    status, pairs = simulation.decide(effects, RULES)
    for trial, codes, seen in zip(effects, status, pairs, strict=True):
        values = {f"m{i}": row.tolist() for i, row in enumerate(trial)}
        index = RULES.looks.index(int(seen))
        found = verdicts.look(values, RULES, index)
        assert [STATUS[verdict.status] for verdict in found] == codes.tolist()
        assert index == len(RULES.looks) - 1 or verdicts.settled(found)
    assert {*np.unique(status)} == {*STATUS.values()}, "the drawing shows every status"
