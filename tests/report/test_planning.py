"""The planner against the noncentral t, and what it says to those who ask for what can't be had."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from report_sections import elsewhere, of
from statsmodels.stats.power import TTestPower

from helpers import made_records
from helpers.made_records import sweep
from hpml_bench.cli import main
from hpml_bench.report.results import Results
from hpml_bench.report.seed_plan import SeedPlan, plan
from hpml_bench.statistics import (
    OverSeeds,
    detectable,
    sd_upper_bound,
    seeds_to_find,
    seeds_to_show,
)
from hpml_bench.system.errors import UserError

OF_THE_SCORE, OF_A_COST = 0.6 * 0.002, 0.2 * 0.002
"""Levels of differences at a second look."""


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pilot of three methods and five seeds."""
    return made_records.write(tmp_path_factory.mktemp("out") / "example", sweep(["lora", "full", "head"]))


def test_upper_bound_of_a_spread() -> None:
    """Of 5 normal values the 80 % upper bound is sqrt(4 / 1.6488) times the estimate (a table of chi-squared)."""
    assert sd_upper_bound(2.0, 5) == pytest.approx(2 * (4 / 1.6488) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(("size", "sd", "alpha"), [(1.0, 1.0, 0.05), (0.5, 1.3, 0.005), (3.0, 1.0, 0.05)])
def test_seeds_are_statsmodels(size: float, sd: float, alpha: float) -> None:
    """The number of seeds is the least at which statsmodels' power of a paired t test reaches the wish."""
    n = seeds_to_find([OverSeeds(2, 0.0, sd)], size, alpha)
    assert n
    theirs = TTestPower()
    assert theirs.power(size / sd, n, alpha) >= 0.8 > theirs.power(size / sd, n - 1, alpha)
    assert detectable(OverSeeds(n, 0.0, sd), n, alpha) <= size


def planned(made: SeedPlan) -> dict[str, Any]:
    """Return the rows' numbers by their pairs."""
    return {row[0]: row[1:] for row in made.table.values or ()}  # type: ignore[misc]


def test_plan_of_a_score(pilot: Path) -> None:
    """Seeds are those that the page's own test over seeds and rows needs, at the level of all its pairs."""
    made = plan(pilot, "accuracy=5pp")
    compared = {f"{c.a} − {c.b}": c for c in Results.load(pilot).comparisons("test_accuracy")}
    found = planned(made)
    assert found.keys() == compared.keys()
    for pair, (n, sd, least, *seeds) in found.items():
        c = compared[pair]
        assert len(c.evidence) == 2
        assert (n, sd, least) == (5, pytest.approx(100 * c.difference.sd), pytest.approx(100 * c.detectable))
        assert seeds == [
            seeds_to_find(c.evidence, 0.05, 0.05), seeds_to_find(c.evidence, 0.05, OF_THE_SCORE / 3),
            seeds_to_find([one.cautious() for one in c.evidence], 0.05, OF_THE_SCORE / 3),
            seeds_to_show(c.evidence, 0.05, 0.000375 / 9),
        ]  # fmt: skip
        assert 3 <= seeds[0] <= seeds[1] <= seeds[2]
    assert [of[2] for of in found.values()] == sorted((of[2] for of in found.values()), reverse=True)
    enough = max(of[4] for of in found.values())
    seconds = sum(r.seconds for r in sweep(["lora", "full", "head"])) / 5
    assert made.sentences[0].startswith(f"{enough:.0f} seeds are enough for every pair")
    assert f"3 methods take {enough * seconds / 60:.1f} minutes" in " ".join(made.sentences)


def test_rows_that_leave_too_much_open_are_said(pilot: Path) -> None:
    """A difference that 1,000 test rows can't show has no number of seeds, and no hours."""
    made = plan(pilot, "accuracy=0.5pp")
    assert {(of[4], of[6]) for of in planned(made).values()} == {(None, None)}
    assert not any(" methods take " in sentence for sentence in made.sentences)
    assert made.sentences[0].startswith("No number of seeds up to 10,000: ")
    assert any("what the 1,000 test rows leave open no seed tells" in sentence for sentence in made.sentences)


def test_plan_of_a_cost(pilot: Path) -> None:
    """A cost is planned by its factor: seeds of the paired t test on the logarithms, and what is detectable in %."""
    made = plan(pilot, "train_seconds=5%")
    compared = {f"{c.a} − {c.b}": c for c in Results.load(pilot).comparisons("train_seconds")}
    for pair, (_, _, least, alone, seeds, cautious, _) in planned(made).items():
        (shared,) = compared[pair].evidence
        assert alone == seeds_to_find([shared], math.log(1.05), 0.05)
        assert seeds == seeds_to_find([shared], math.log(1.05), OF_A_COST / 3)
        wide = replace(shared, sd=sd_upper_bound(shared.sd, 5 + shared.prior))
        assert cautious == seeds_to_find([wide], math.log(1.05), OF_A_COST / 3)
        assert least == pytest.approx(100 * math.expm1(detectable(shared, 5, 0.2 * 0.036 / 3)))
    assert not any("test rows" in sentence for sentence in made.sentences)


def test_a_pair_without_spread_is_named(tmp_path: Path) -> None:
    """A pair whose factor is the same in every seed, on no known grid, is not planned from a spread of 0, but named."""
    memory = {"lora": [500.0, 510.0, 520.0, 530.0], "full": [250.0, 255.0, 260.0, 265.0],
              "head": [100.0, 103.0, 101.0, 99.0]}  # fmt: skip
    runs = of({method: {"peak_memory_mb": values} for method, values in memory.items()}, 4)
    made = plan(made_records.write(tmp_path / "a", runs), "peak_memory_mb=5%")
    assert planned(made).keys() == {"full − head", "head − lora"}
    assert made.sentences[0].startswith("The differences of full − lora are equal in all seeds of the pilot")
    assert "enough for every other pair" in made.sentences[1]
    compared = {f"{c.a} − {c.b}": c for c in Results.load(tmp_path / "a").comparisons("peak_memory_mb")}
    for pair, row in planned(made).items():  # the named pair is tested as well
        assert row[4] == seeds_to_find(compared[pair].evidence, math.log(1.05), OF_A_COST / 3)
    with pytest.raises(UserError, match="spread is unknown; add seeds"):
        plan(made_records.write(tmp_path / "b", [r for r in runs if r.spec.method.name != "head"]), "peak_memory_mb=5%")


def test_several_machines_give_no_hours(tmp_path: Path) -> None:
    """A pilot from two machines plans scores from all runs, costs from the machine that most share, and no hours."""
    runs = [elsewhere(r) if r.spec.method.name == "full" and r.spec.seed > 2 else r for r in sweep(["lora", "full"])]
    folder = made_records.write(tmp_path / "two", runs)
    for wish, seeds in (("accuracy=5pp", 5), ("train_seconds=5%", 3)):
        made = plan(folder, wish)
        assert [of[0] for of in planned(made).values()] == [seeds]
        assert "come from different hardware or versions, so that they tell no hours." in " ".join(made.sentences)


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
    """No records, none that can be compared, two seeds, or each method on a machine of its own: each is said."""
    with pytest.raises(UserError, match="no pilot here; run a few seeds first"):
        plan(tmp_path / "none", "accuracy=1pp")
    with pytest.raises(UserError, match=r"no run of the pilot can be compared; hpml-bench report .* says why"):
        plan(made_records.write(tmp_path / "apart", sweep(["lora", "full"], 3, consumed=None)), "accuracy=1pp")
    for seeds in (1, 2):
        with pytest.raises(UserError, match="at least 2 methods x 3 seeds"):
            plan(made_records.write(tmp_path / str(seeds), sweep(seeds=seeds)), "accuracy=1pp")
    mixed = [*sweep(["lora"], 3), *map(elsewhere, sweep(["full"], 3))]
    with pytest.raises(UserError, match="train_seconds needs at least 2 methods"):
        plan(made_records.write(tmp_path / "two", mixed), "train_seconds=1")


def test_the_command_prints_the_plan(pilot: Path) -> None:
    """`hpml-bench plan SUITE --detect ...` prints pairs, seeds and time; a mistake is status 2."""
    arguments = ["plan", "example", "--out", str(pilot.parent), "--detect"]
    done = CliRunner().invoke(main, [*arguments, "accuracy=5pp"])
    assert done.exit_code == 0, done.output
    assert "seeds are enough for every pair" in done.output
    assert CliRunner().invoke(main, [*arguments, "accuracy=x"]).exit_code == 2
    assert CliRunner().invoke(main, [*arguments, "accuracy=1pp", "--power", "2"]).exit_code == 2


def test_what_no_verdict_is_of_is_its_own_family(pilot: Path) -> None:
    """A metric beside the headline ones is planned by Holm over its own pairs."""
    results = Results.load(pilot)
    for metric, wish, size in (
        ("test_loss", "test_loss=0.05", 0.05), ("samples_per_second", "samples_per_second=3%", math.log(1.03))
    ):  # fmt: skip
        noisiest, row = next(iter(planned(plan(pilot, wish)).items()))
        (pair,) = [c for c in results.comparisons(metric) if f"{c.a} − {c.b}" == noisiest]
        assert row[4] == seeds_to_find(pair.evidence, size, 0.002 / 3)
