"""Pages and plans of made folders are the kept ones, word by word; reports/reference has those
of real runs.
"""

import os
from pathlib import Path

import pytest
from report_sections import elsewhere, of
from statsmodels.stats.power import TTestPower

from helpers import made_records
from helpers.commands import called
from helpers.golden import MADE, OVER, PAGES, page
from helpers.made_records import sweep
from hpml_bench.page.export import markdown_table
from hpml_bench.page.seed_plan import plan
from hpml_bench.statistics import OverSeeds, detectable, sd_upper_bound, seeds_to_find
from hpml_bench.system.errors import UserError


def assert_kept(made: str, kept: Path) -> None:
    """Read the difference; if it is meant, `GOLDEN=write python -m pytest
    tests/report/test_golden.py` keeps it.
    """
    if os.environ.get("GOLDEN") == "write":
        kept.write_text(made, encoding="utf-8")
    assert made.splitlines() == kept.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", [*MADE, *OVER])
def test_a_page_is_the_kept_one(name: str, tmp_path: Path) -> None:
    """Of sweeps of every kind, and over suites."""
    assert_kept(page(name, tmp_path), PAGES / f"{name}.md")


# The planner against the noncentral t, and what it says to those who ask for what can't be had


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pilot of three methods and five seeds."""
    return made_records.write(
        tmp_path_factory.mktemp("out") / "example", sweep(["lora", "full", "head"])
    )


def test_upper_bound_of_a_spread() -> None:
    """Of 5 normal values the 80 % upper bound is sqrt(4 / 1.6488) times the estimate (a table of
    chi-squared).
    """
    assert sd_upper_bound(2.0, 5) == pytest.approx(2 * (4 / 1.6488) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("size", "sd", "alpha"), [(1.0, 1.0, 0.05), (0.5, 1.3, 0.005), (3.0, 1.0, 0.05)]
)
def test_seeds_are_statsmodels(size: float, sd: float, alpha: float) -> None:
    """The number of seeds is the least at which statsmodels' power of a paired t test reaches
    the wish.
    """
    n = seeds_to_find([OverSeeds(2, 0.0, sd)], size, alpha)
    assert n
    theirs = TTestPower()
    assert theirs.power(size / sd, n, alpha) >= 0.8 > theirs.power(size / sd, n - 1, alpha)
    assert detectable(OverSeeds(n, 0.0, sd), n, alpha) <= size


def test_plans_are_the_kept_ones(pilot: Path, tmp_path: Path) -> None:
    """Of a score, also one that rows leave open, of costs, of what no verdict is of; of a pair that
    never varies.

    And of two machines, which give no hours.
    """
    memory = {"lora": [500.0, 510.0, 520.0, 530.0], "full": [250.0, 255.0, 260.0, 265.0],
              "head": [100.0, 103.0, 101.0, 99.0]}  # fmt: skip
    runs = of({method: {"peak_memory_mb": values} for method, values in memory.items()}, 4)
    alike = made_records.write(tmp_path / "alike", runs)
    moved = [
        elsewhere(r) if r.spec.method.name == "full" and r.spec.seed > 2 else r
        for r in sweep(["lora", "full"])
    ]
    two = made_records.write(tmp_path / "two", moved)
    made = [
        plan(folder, wish)
        for folder, wishes in (
            (
                pilot,
                (
                    "accuracy=5pp",
                    "accuracy=0.5pp",
                    "train_seconds=5%",
                    "test_loss=0.05",
                    "samples_per_second=3%",
                ),
            ),
            (alike, ("peak_memory_mb=5%",)),
            (two, ("accuracy=5pp", "train_seconds=5%")),
        )
        for wish in wishes
    ]
    pages = (
        ["## " + of.table.caption, "", markdown_table(of.table), "", *of.sentences] for of in made
    )
    assert_kept("\n\n".join(map("\n".join, pages)) + "\n", PAGES / "plans.md")
    fewer = [r for r in runs if r.spec.method.name != "head"]
    with pytest.raises(UserError, match="spread is unknown; add seeds"):
        plan(made_records.write(tmp_path / "fewer", fewer), "peak_memory_mb=5%")


@pytest.mark.parametrize(
    ("detect", "message"),
    [
        ("speed=3%", "no metric 'speed'; it has .*samples_per_second"),
        ("accuracy=1", "given in pp"),
        ("accuracy=1%", "given in pp"),
        ("train_seconds=1pp", "given in % "),
        ("accuracy", "write METRIC=SIZE"),
        ("accuracy=0pp", "above 0"),
        ("accuracy=100pp", "can't differ by so much"),
        ("trainable_parameters=5", "the same in every seed"),
    ],
)
def test_wrong_wishes_are_told(pilot: Path, detect: str, message: str) -> None:
    """What can't be planned is a sentence that says what can."""
    with pytest.raises(UserError, match=message):
        plan(pilot, detect)


def test_too_little_of_a_pilot(tmp_path: Path) -> None:
    """No records, none that can be compared, two seeds, or each method on a machine of its own:
    each is said.
    """
    mixed = [*sweep(["lora"], 3), *map(elsewhere, sweep(["full"], 3))]
    pilots = {
        "no pilot here; run a few seeds first": ([], "accuracy=1pp"),
        r"no run of the pilot can be compared; hpml-bench report .* says why": (
            sweep(["lora", "full"], 3, consumed=None),
            "accuracy=1pp",
        ),
        "at least 2 methods x 3 seeds": (sweep(seeds=2), "accuracy=1pp"),
        "train_seconds needs at least 2 methods": (mixed, "train_seconds=1"),
    }
    for at, (message, (runs, wish)) in enumerate(pilots.items()):
        with pytest.raises(UserError, match=message):
            plan(made_records.write(tmp_path / str(at), runs), wish)


def test_the_command_prints_the_plan(pilot: Path) -> None:
    """`hpml-bench plan SUITE --detect ...` prints pairs, seeds and time; a mistake is status 2."""
    words = ("plan", "example", "--out", pilot.parent, "--detect")
    assert "seeds are enough for every pair" in called(*words, "accuracy=5pp").output
    called(*words, "accuracy=x", status=2)
    called(*words, "accuracy=1pp", "--power", 2, status=2)
