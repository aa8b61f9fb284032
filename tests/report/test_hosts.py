"""Costs and hosts: methods are ranked by costs only where their runs of a seed share a host, which the page names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_sections import load, said, section

from helpers import made_records
from helpers.made_records import METHODS, SETTINGS, sweep
from hpml_bench.plugins.blocks import Table
from hpml_bench.records.run import RunRecord
from hpml_bench.report.comparability import hosts_of
from hpml_bench.report.results import TIME
from hpml_bench.report.seed_plan import plan
from hpml_bench.system.errors import UserError


def on(host: Callable[[RunRecord], str | None], records: list[RunRecord] | None = None) -> list[RunRecord]:
    """Return runs on hosts by name; None names none, as records of before."""
    found = []
    for record in sweep() if records is None else records:
        name = host(record)
        named = {} if name is None else {"hosts": [name]}
        found.append(record.model_copy(update={"environment": record.environment | named}))
    return found


def slower(record: RunRecord, factor: float = 1.08) -> RunRecord:
    """Return a run as it is on a slower host."""
    return record.model_copy(update={"metrics": record.metrics | {TIME: factor * (record.metrics[TIME] or 0.0)}})


def a_method_a_host(record: RunRecord) -> str:
    """Return the host of a sweep that does each method elsewhere."""
    return f"n{METHODS.index(record.spec.method.name)}"


def test_a_method_on_a_host_of_its_own_is_not_slower(tmp_path: Path) -> None:
    """Of two like hosts one is 8 % slower: methods that share none are not ranked by costs, and the page says why."""
    made = on(lambda r: {"lora": "n1", "full": "n2"}[r.spec.method.name], sweep(["lora", "full"]))
    results = load(tmp_path, [slower(r) if r.spec.method.name == "full" else r for r in made])
    assert results.selection.unranked == ("hosts",)
    assert results.headline == ("test_accuracy",)
    text = said("takeaways", results)
    assert "Methods are not ranked by costs: the runs of a seed were spread over hosts (n1 and n2), and" in text
    assert "The line unit: seed in the profile" in text
    assert "exclusive: true" in text
    assert "trained fastest" not in text
    assert "did not share a host within a seed" in said("summary", results)
    assert "did not share a host within a seed" in said("throughput", results)
    assert len(results.values(TIME)["full"]) == 5, "costs are shown all the same"
    with pytest.raises(UserError, match="did not share a host within a seed"):
        plan(tmp_path, "train_seconds=3%")


def test_a_seed_a_host_is_ranked_and_the_hosts_are_named(tmp_path: Path) -> None:
    """Where all methods of a seed share a host, each seed another, costs rank; nothing speaks of one machine."""
    results = load(tmp_path, on(lambda r: f"n{r.spec.seed % 2}"))
    assert results.costs_ranked
    assert {c.difference.n for c in results.comparisons(TIME)} == {5}
    text = said("takeaways", results)
    assert "costs for other seeds on n0 and n1, where the runs of a seed share theirs;" in text
    assert "this machine" not in text
    assert "hosts | n0, n1" in said("environment", results)
    runs = section("runs", results)
    assert runs is not None
    assert isinstance(runs.blocks[0], Table)
    assert "Hosts" in runs.blocks[0].columns


def test_one_host_is_named(tmp_path: Path) -> None:
    """Of a sweep on one host the claims are for it, by its name."""
    results = load(tmp_path, on(lambda _: "n1"))
    assert "costs for other seeds on n1;" in said("takeaways", results)
    assert "Hosts" not in section("runs", results).blocks[0].columns  # type: ignore[union-attr]


def test_runs_that_name_no_host_are_taken_to_share_one(tmp_path: Path) -> None:
    """Records of before name none: they are ranked, and the page says what that takes for granted."""
    results = load(tmp_path, sweep())
    assert results.costs_ranked
    assert "on this machine (taken as one: not every record names its host)" in said("takeaways", results)


def test_a_run_with_a_host_is_not_ranked_beside_those_without(tmp_path: Path) -> None:
    """Where one method's records name a host and another's don't, nothing shows that it is the same."""
    results = load(tmp_path, on(lambda r: "n1" if r.spec.method.name == "lora" else None, sweep(["lora", "full"])))
    assert results.selection.unranked == ("hosts",)
    assert "spread over hosts, and hosts of one kind" in said("takeaways", results)


def test_a_stray_run_has_no_cost(tmp_path: Path) -> None:
    """One run of a seed ran elsewhere: its cost enters no mean and no pair, and the page says so."""
    made = on(lambda r: "n9" if (r.spec.method.name, r.spec.seed) == ("full", 2) else "n1")
    results = load(tmp_path, made)
    assert results.costs_ranked
    assert sorted(results.values(TIME)["full"]) == [0, 1, 3, 4]
    assert len(results.values("test_accuracy")["full"]) == 5
    assert "1 of 25 compared runs ran on another host than the runs of their seed" in said("takeaways", results)
    assert "full has no costs of seed 2: it ran on another host than most of its seed." in said("summary", results)
    assert results.hosts == ("n1",)


def test_pairs_that_share_hosts_in_few_seeds_rank_nothing(tmp_path: Path) -> None:
    """Four seeds over two hosts at random: no pair shares one in three seeds, so that no method has a rank."""
    spread = {0: "lora full", 1: "lora head", 2: "full head", 3: "lora full"}
    made = on(
        lambda r: "n1" if r.spec.method.name in spread[r.spec.seed].split() else f"n-{r.spec.method.name}",
        sweep(["lora", "full", "head"], 4),
    )
    assert load(tmp_path, made).selection.unranked == ("hosts",)


@pytest.mark.parametrize(("same", "scales"), [("n1", True), ("n2", False)])
def test_speed_ups_are_of_runs_that_share_a_host(tmp_path: Path, same: str, scales: bool) -> None:
    """A sweep on one rank beside one on two: the speed-up is told where both ran on one host."""
    one = SETTINGS.model_copy(update={"world_size": 1})
    made = [*on(lambda _: "n1"), *on(lambda _: same, sweep(["lora"], 3, settings=one))]
    results = load(tmp_path, made)
    assert (section("scaling", results) is not None) == scales
    assert bool(results.left_out.excluded) != scales


def test_hosts_are_read_of_jobs_and_of_runs() -> None:
    """Of a run itself, else of the job that did it; sorted, so that the order of nodes makes no other host."""
    (run,) = made_records.by_jobs([made_records.record()])
    assert hosts_of(run) == ("n1",)
    own: dict[str, Any] = {"environment": run.environment | {"hosts": ["n3", "n2"]}}
    assert hosts_of(run.model_copy(update=own)) == ("n2", "n3")
    assert hosts_of(made_records.record()) is None


def test_a_slow_node_makes_no_method_slower(tmp_path: Path) -> None:
    """Each run a job of its own (unit: run), on two nodes of which one is 20 % slower: only runs of one are paired."""
    made = on(lambda r: f"n{((r.order or 0) + r.spec.seed) % 2}", sweep(METHODS[:4], 4))
    made = [slower(r, 1.2) if hosts_of(r) == ("n1",) else r for r in made]
    results = load(tmp_path, made)
    for seed in range(4):
        costed = {hosts_of(r) for r in results.compared if r.spec.seed == seed and r.run_id in results.selection.costed}
        assert len(costed) == 1 or not results.costs_ranked
