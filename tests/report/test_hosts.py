"""Costs of runs on several hosts or beside others; means of seeds that methods lack, and what cautions say of both."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from report_sections import load, of, said

from helpers import made_records
from helpers.made_records import failed, sweep
from hpml_bench.records.run import RunRecord, Segment
from hpml_bench.report.results import TIME, Results

THREE = ("lora", "full", "head")


def on(host: Callable[[RunRecord], str | None], records: list[RunRecord] | None = None) -> list[RunRecord]:
    """Return runs on hosts by name; None names none, as records of before."""
    found = []
    for record in sweep() if records is None else records:
        name = host(record)
        named = {} if name is None else {"hosts": [name]}
        found.append(record.model_copy(update={"environment": record.environment | named}))
    return found


def beside(which: Callable[[RunRecord], bool], seeds: int = 4) -> list[RunRecord]:
    """Return three methods of which some runs had a neighbour."""
    runs = made_records.by_jobs(sweep(THREE, seeds))
    return [r.model_copy(update={"neighbours": ("other",) if which(r) else ()}) for r in runs]


# Hosts


@pytest.mark.parametrize(("second", "ranked"), [("n1", True), ("n2", False)])
def test_runs_whose_parts_ran_on_several_hosts_are_not_ranked_by_costs(
    second: str, ranked: bool, tmp_path: Path
) -> None:
    """Not even if all have parts on the same two: one may have done most of its steps on the quicker one."""
    first = Segment(hosts=("n1",), started="2026-01-02T03:00:00+00:00", first=1, last=50, seconds=30)
    again = {"hosts": (second,), "first": 51, "last": 100, "repeated_steps": 3, "repeated_seconds": 4.0}
    own = {"environment": made_records.ENVIRONMENT | {"hosts": tuple(sorted({"n1", second}))},
           "segments": (first, first.model_copy(update=again))}  # fmt: skip
    results = load(tmp_path, sweep(["lora", "full"], 4, **own))
    assert results.costs_ranked == ranked
    cautions = said("cautions", results)
    assert ("Costs are shown, not ranked: seeds were spread over hosts." in cautions) != ranked
    assert "8 runs went on from a checkpoint. Their costs are of steps that count; 24 steps of 32 s" in cautions


# Neighbours


def test_few_runs_alone_rank_where_they_can_be_tested(tmp_path: Path) -> None:
    """Three seeds of two methods alone, of nine of all: these rank, a method without such has no cost; two don't."""

    def alone_in(seeds: int) -> Results:
        runs = beside(lambda r: r.spec.method.name == "head" or r.spec.seed >= seeds, 9)
        return load(tmp_path / str(seeds), runs)

    some = alone_in(3)
    assert some.costs_ranked
    assert {m: sorted(of) for m, of in some.values(TIME).items()} == {"lora": [0, 1, 2], "full": [0, 1, 2]}
    assert len(some.values(some.quality)["head"]) == 9
    assert "not placed, for lack of a cost, head" in said("comparisons", some)
    assert not alone_in(2).costs_ranked
    stray = load(tmp_path / "stray", beside(lambda r: r.order != 5))
    assert not stray.costs_ranked
    assert {len(by_seed) for by_seed in stray.values(TIME).values()} == {4}


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
])  # fmt: skip
def test_the_first_caution_is_on_the_runs(runs: list, said_first: str, tmp_path: Path) -> None:
    """Runs that ended well and were set apart are not called failed."""
    assert said("cautions", load(tmp_path, runs)).startswith(said_first)


def test_a_run_with_a_host_is_not_ranked_beside_those_without(tmp_path: Path) -> None:
    """Where one method's records name a host and another's don't, nothing shows that it is the same."""
    results = load(tmp_path, on(lambda r: "n1" if r.spec.method.name == "lora" else None, sweep(["lora", "full"])))
    assert results.selection.unranked == ("hosts",)
