"""Means, costs and cautions of folders that lack something: seeds, machines, luck, learning, or anything sound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_sections import load, of, said, without

from helpers.made_records import SETTINGS, failed, sweep
from hpml_bench.report.results import Results
from hpml_bench.suite.suite import Margin, MethodEntry, Suite


def test_the_margin_is_the_suites(tmp_path: Path) -> None:
    """What counts as no difference is what the suite beside the runs says, in verdicts and in words."""
    records = of({"lora": {"test_accuracy": [0.90, 0.91, 0.92]}, "full": {"test_accuracy": [0.91, 0.92, 0.91]}}, 3)
    entries = {"lora": MethodEntry(), "full": MethodEntry()}
    wide = Suite(name="example", settings=SETTINGS, methods=entries, margin=Margin(quality=0.1, cost=0.5))
    before = load(tmp_path, records)
    assert before.comparisons("test_accuracy")[0].verdict == "undecided"
    (tmp_path / "suite.json").write_text(wide.model_dump_json())
    results = Results.load(tmp_path)
    assert results.comparisons("test_accuracy")[0].verdict == "equivalent"
    assert re.search(
        r"a difference of 10(\.0)? points of a score, 50 % of a cost or more", said("comparisons", results)
    )
    assert "lora / full | lora is better, within the margin |" in said("comparisons", results)


# The front


def test_places_need_shared_seeds(tmp_path: Path) -> None:
    """A method that shares two seeds with the others neither takes a place on the front nor denies one."""
    few = load(tmp_path / "few", without("head", 0, 1, 2))
    assert {of.place for of in few.front(few.headline).values()} == {"undecided"}
    assert "places of all methods are undecided" in said("comparisons", few)
    enough = load(tmp_path / "enough", without("head", 0))
    assert enough.front(enough.headline)["head"].place == "on"
    noise = {"lora": [2.0, 2.1, 1.9, 2.05, 1.95], "full": [2.02, 1.95, 2.1, 1.9, 2.04]}
    results = load(tmp_path / "noise", of({m: {"train_seconds": values} for m, values in noise.items()}))
    assert {of.place for of in results.front(("test_accuracy", "train_seconds")).values()} == {"undecided"}


# Guessing, learning and failures


@pytest.mark.parametrize(
    ("scores", "by_rows", "below"),
    [
        ({"lora": [0.8, 0.81, 0.8], "full": [0.28, 0.27, 0.285]}, [], ["full"]),
        ({"lora": [0.86, 0.85], "full": [0.28, 0.27]}, ["lora"], ["full"]),
        ({"lora": [0.82, 0.86, 0.9], "full": [0.28, 0.27, 0.28], **{f"m{n}": [0.6, 0.75, 0.9] for n in range(3)}},
         ["lora", "m0", "2 others"], ["full"]),
        ({"lora": [0.86, 0.27], "full": [0.8, 0.8]}, ["full"], ["lora"]),
        ({"lora": [0.86, 0.85, 0.86], "full": [0.8, 0.8, 0.81]}, [], []),
    ],
    ids=["over seeds", "two seeds", "seeds that differ", "one run at guessing", "all"],
)  # fmt: skip
def test_guessing_is_beaten_over_seeds_or_rows(
    scores: dict[str, list[float]], by_rows: list[str], below: list[str], tmp_path: Path
) -> None:
    """From three like seeds on over seeds; else over the rows of each run; a method that isn't above it is named."""
    seeds = len(scores["lora"])
    text = said("cautions", load(tmp_path, of({m: {"test_accuracy": values} for m, values in scores.items()}, seeds)))
    named = re.search(r"by each run's test rows alone, not over seeds: (.*)\.", text)
    assert (re.split(", | and ", named[1]) if named else []) == by_rows
    assert [name for name in scores if f"✕ Not shown to beat guessing: {name}." in text] == below
    assert ("✓ Every method beats guessing." in text) == (not below)


@pytest.mark.parametrize(("runs", "said_first"), [
    (sweep(["lora"], 2, consumed=None), "✕ Every run that ended well was set apart, so there is nothing to compare."),
    ([failed("lora", 0, "failed", "?")], "✕ No run ended well, so there is nothing to compare."),
    (sweep(seeds=3)[:9], "✓ All 9 runs ended well and are compared."),
])  # fmt: skip
def test_the_first_caution_is_on_the_runs(runs: list, said_first: str, tmp_path: Path) -> None:
    """Runs that ended well and were set apart are not called failed."""
    assert said("cautions", load(tmp_path, runs)).startswith(said_first)
