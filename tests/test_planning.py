"""The planner against the noncentral t, and what it says to those who ask for what can't be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import recorded
from click.testing import CliRunner
from recorded import sweep
from statsmodels.stats.power import TTestPower

from hpml_bench.cli import main
from hpml_bench.errors import UserError
from hpml_bench.planning import plan
from hpml_bench.statistics import detectable_difference, paired_t_power, sd_upper_bound, seeds_needed


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pilot of three methods and five seeds."""
    return recorded.write(tmp_path_factory.mktemp("out") / "example", sweep(["lora", "full", "head"]))


@pytest.mark.parametrize(("size", "sd", "alpha"), [(1.0, 1.0, 0.05), (0.5, 1.3, 0.005), (3.0, 1.0, 0.05)])
def test_seeds_are_statsmodels(size: float, sd: float, alpha: float) -> None:
    """The number of seeds is the least at which statsmodels' power of a paired t test reaches the wish."""
    n = seeds_needed(size, sd, alpha, 0.8)
    assert n
    theirs = TTestPower()
    assert theirs.power(size / sd, n, alpha) >= 0.8 > theirs.power(size / sd, n - 1, alpha)
    assert paired_t_power(size, sd, n, alpha) == pytest.approx(theirs.power(size / sd, n, alpha))
    assert detectable_difference(sd, n, alpha) <= size


def test_too_small_a_difference_needs_no_number() -> None:
    """Above 10,000 seeds there is no answer but that."""
    assert seeds_needed(1e-6, 1.0) is None


def test_upper_bound_of_a_spread() -> None:
    """Of 5 normal values the 80 % upper bound is sqrt(4 / 1.6488) times the estimate (a table of chi-squared)."""
    assert sd_upper_bound(2.0, 5) == pytest.approx(2 * (4 / 1.6488) ** 0.5, rel=1e-4)


def test_plan_of_a_pilot(pilot: Path) -> None:
    """The noisiest pair decides seeds; hours are seeds times the pilot's mean seconds of every method."""
    made = plan(pilot, "accuracy=0.5pp")
    assert len(made.pairs) == 3
    worst = made.pairs[0]
    assert made.seeds == worst.seeds == seeds_needed(0.005, worst.sd, 0.05 / 3)
    assert worst.alone
    assert worst.cautious
    assert worst.alone < worst.seeds < worst.cautious
    seconds = sum(r.seconds for r in sweep(["lora", "full", "head"])) / 5
    assert made.hours == pytest.approx(made.seeds * seconds / 3600)


def test_units_agree(pilot: Path) -> None:
    """A relative size is of the mean over methods, and an absolute one is in the metric's unit."""
    mean = plan(pilot, "samples_per_second=3%").seeds
    means = [850.0, 760.0, 1800.0]
    near = plan(pilot, f"samples_per_second={0.03 * sum(means) / 3:.4f} samples/s").seeds
    assert mean
    assert near == pytest.approx(mean, abs=1)


def accuracies(folder: Path, values: dict[str, list[float]], **changes: Any) -> Path:
    """Write a pilot with these accuracies, a value a seed."""
    records = sweep(list(values), len(next(iter(values.values()))), **changes)
    return recorded.write(
        folder,
        [
            r.model_copy(update={"metrics": r.metrics | {"test_accuracy": values[r.spec.method.name][r.spec.seed]}})
            for r in records
        ],
    )


def test_a_pair_without_spread_is_named(tmp_path: Path) -> None:
    """A pair that differs by the same in every seed is not planned from a spread of zero or of rounding, but named."""
    lora = [0.81, 0.82, 0.83, 0.84, 0.85]
    full = [0.8, 0.81, 0.82, 0.83, 0.84]
    made = plan(
        accuracies(tmp_path / "a", {"lora": lora, "full": full, "head": [0.7, 0.74, 0.71, 0.75, 0.7]}), "accuracy=1pp"
    )
    assert {(p.a, p.b) for p in made.pairs} == {("full", "head"), ("head", "lora")}
    assert made.unknown == ("full − lora",)
    assert made.sentences[0].startswith("The differences of full − lora are equal in all seeds of the pilot")
    assert "enough for every other pair" in made.sentences[1]
    assert made.pairs[0].seeds == seeds_needed(0.01, made.pairs[0].sd, 0.05 / 3)  # the named pair is tested as well
    with pytest.raises(UserError, match="spread is unknown; add seeds"):
        plan(accuracies(tmp_path / "b", {"lora": lora, "full": full}), "accuracy=1pp")


def test_ties_are_planned_with_the_tests_spread(tmp_path: Path) -> None:
    """Tied differences 1, 1, 1, 1, 2 points are planned with the variance of rounding that their test adds."""
    made = plan(accuracies(tmp_path, {"full": [0.51, 0.51, 0.51, 0.51, 0.52], "lora": [0.5] * 5}), "accuracy=1pp")
    assert made.pairs[0].sd == pytest.approx(0.01 * (0.2 + 1 / 12) ** 0.5)
    assert made.unknown == ()


def test_several_machines_give_no_hours(tmp_path: Path) -> None:
    """A pilot from two machines plans seeds by accuracy, and says why it plans no hours and no share of time."""
    share = recorded.DEFINITIONS[0].model_copy(
        update={"name": "communication_percent", "unit": "%", "phase": "train", "format": ".1f"}
    )
    elsewhere = recorded.ENVIRONMENT | {"fingerprint": "another"}
    both = [*sweep(["lora"], 3), *sweep(["full"], 3, environment=elsewhere)]
    records = [
        r.model_copy(
            update={
                "definitions": (*r.definitions, share),
                "metrics": r.metrics | {"communication_percent": 9.0 + r.spec.seed},
            }
        )
        for r in both
    ]
    folder = recorded.write(tmp_path / "two", records)
    made = plan(folder, "accuracy=1pp")
    assert made.seeds
    assert made.hours is None
    assert "The pilot's runs come from different hardware or versions, so that they tell no hours." in made.sentences
    assert not any("one after another" in sentence for sentence in made.sentences)
    with pytest.raises(UserError, match="different hardware or versions"):
        plan(folder, "communication_percent=1%")


@pytest.mark.parametrize(
    ("detect", "message"),
    [
        ("speed=3%", "no metric 'speed'; it has .*samples_per_second"),
        ("accuracy=1", "given in pp"),
        ("accuracy=1%", "given in pp"),
        ("train_seconds=1pp", "given in % "),
        ("accuracy", "write METRIC=SIZE"),
        ("accuracy=0pp", "above 0"),
        ("trainable_parameters=5", "the same in every seed"),
    ],
)
def test_wrong_wishes_are_told(pilot: Path, detect: str, message: str) -> None:
    """What can't be planned is a sentence that says what can."""
    with pytest.raises(UserError, match=message):
        plan(pilot, detect)


def test_too_little_of_a_pilot(tmp_path: Path) -> None:
    """No records, one seed, or two machines: each is said."""
    with pytest.raises(UserError, match="no pilot here; run a few seeds first"):
        plan(tmp_path / "none", "accuracy=1pp")
    with pytest.raises(UserError, match="at least 2 methods x 2 seeds"):
        plan(recorded.write(tmp_path / "one", sweep(seeds=1)), "accuracy=1pp")
    elsewhere = recorded.ENVIRONMENT | {"fingerprint": "another"}
    mixed = [*sweep(["lora"], 3), *sweep(["full"], 3, environment=elsewhere)]
    with pytest.raises(UserError, match="different hardware or versions"):
        plan(recorded.write(tmp_path / "two", mixed), "train_seconds=1")


def test_the_command_prints_the_plan(pilot: Path) -> None:
    """`hpml-bench plan SUITE --detect ...` prints pairs, seeds and time; a mistake is status 2."""
    arguments = ["plan", "example", "--out", str(pilot.parent), "--detect"]
    done = CliRunner().invoke(main, [*arguments, "accuracy=1pp"])
    assert done.exit_code == 0, done.output
    assert "seeds are enough for every pair" in done.output
    assert CliRunner().invoke(main, [*arguments, "accuracy=x"]).exit_code == 2
    assert CliRunner().invoke(main, [*arguments, "accuracy=1pp", "--power", "2"]).exit_code == 2
