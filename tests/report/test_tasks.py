"""Pages of tasks that are no classification: an error in stars of which lower is better, and an F1 of entities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import made_task_records, plugin_tasks
from hpml_bench.builtin.sections.training import Targets
from hpml_bench.plugins.blocks import Table
from hpml_bench.records.predictions import Predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.report.caveats import beside_guess
from hpml_bench.report.render import all_sections, tables_of
from hpml_bench.report.results import Results

BETTER = {"rating": min, "naming": max}


@pytest.fixture(scope="module", autouse=True)
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the tasks."""
    with plugin_tasks.installed(tmp_path_factory.mktemp("tasks")):
        yield


@pytest.fixture(scope="module", params=BETTER)
def task_results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return five methods x five seeds of a task."""
    return Results.load(made_task_records.write(tmp_path_factory.mktemp(request.param), request.param))


def tables(results: Results) -> dict[str, Table]:
    """Return the page's tables by name."""
    return {table.name: table for table in tables_of(all_sections(results))}


def mean_of(results: Results, method: str) -> float:
    """Return the mean of a method's score."""
    return float(np.mean(list(results.values(results.quality)[method].values())))


def test_no_verdict_is_against_the_direction(task_results: Results) -> None:
    """Who is called better in the table of pairs has the better mean, and takes no second place on the front to it."""
    better = BETTER[task_results.task.title.lower()]
    shown = tables(task_results)[f"pairs_{task_results.quality}"]
    claims = [row for row in shown.rows if "is better" in row[1]]
    assert claims
    for row in claims:
        pair = row[0].split(" − ")
        winner = row[1].split(" is better")[0]
        assert winner == better(pair, key=lambda method: mean_of(task_results, method))
        assert task_results.front((task_results.quality, "train_seconds"))[winner].by != (pair[pair.index(winner) - 1],)


def test_targets_lie_between_chance_and_the_best(task_results: Results) -> None:
    """They go from chance to the best in the metric's direction, and a later one is never reached sooner."""
    found = Targets(task_results)
    targets = found.levels
    chance = task_results.task.guess(task_results.test_set.reference).chance  # type: ignore[union-attr]
    best = BETTER[task_results.task.title.lower()](mean_of(task_results, method) for method in task_results.methods)
    way = [abs(target - chance) for target in targets]
    assert len(targets) == 3
    assert way == sorted(way)
    assert way[-1] < abs(best - chance)
    assert all((target - chance) * (best - chance) > 0 for target in targets)
    for record in task_results.compared:
        reached = [found.reached(record, target) for target in targets]
        samples = [one.samples for one in reached if one]
        assert samples == sorted(samples)
        assert None not in reached[: len(samples)]


def test_a_correlation_with_a_constant_is_none_and_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers one number has no correlation: its record says so, and its run is compared all the same."""
    usual = made_task_records._ratings

    def answers(item: RunRecord) -> Predictions:
        found = usual(item)
        loss = (np.asarray(found.reference) - 3.0) ** 2
        return replace(found, prediction=np.full(400, 3.0), loss=loss) if item.spec.method.name == "head" else found

    monkeypatch.setattr(made_task_records, "_ratings", answers)
    folder = made_task_records.write(tmp_path, "regression", ("lora", "head"), 3)
    results = Results.load(folder)
    assert len(results.runs("head")) == 3
    assert "head" not in results.values("test_pearson")
    assert beside_guess(results)["head"] == "not"
