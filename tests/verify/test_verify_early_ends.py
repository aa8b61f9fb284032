"""Runs that end early, by `select: early`: an honest folder holds, and a forged end, plan or selection is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import hpml_bench
from helpers import tiny
from helpers.forging import Forged, edit_points, record_of
from hpml_bench.report.results import Results
from hpml_bench.report.selection import Selection
from hpml_bench.verify.verify import Verified, verify

Json = dict[str, Any]
PLANNED, EVERY, PATIENCE = 60, 4, 2


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three methods whose runs ended early, lora's later than the heads'."""
    folder = tmp_path_factory.mktemp("early")
    settings = {"steps": PLANNED, "eval_every": EVERY, "select": "early", "patience": PATIENCE, "world_size": 1}
    suite = tiny.local_suite(folder, **settings)
    content = yaml.safe_load(suite.read_text())
    suite.write_text(yaml.safe_dump(content | {"seeds": 1, "methods": content["methods"] | {"h": {"method": "head"}}}))
    hpml_bench.run_suite(str(suite), out=folder / "out")
    return folder / "out" / "colours"


@pytest.fixture
def forged(honest: Path, tmp_path: Path) -> Forged:
    """Return a copy of it to edit."""
    return Forged(Path(shutil.copytree(honest, tmp_path / "colours")))


def wrong(made: Verified) -> dict[str, str]:
    """Return check -> what failed, logs' paths apart."""
    return {one.name: one.finding for one in made.checks if one.state == "failed" and one.name != "private paths"}


def test_an_honest_folder_holds(honest: Path) -> None:
    """Runs of unequal steps are compared, and the page says which step was selected."""
    assert wrong(verify(honest)) == {}
    results = Results.of(Selection.load(honest))
    steps = {record.consumed.steps for record in results.compared if record.consumed}
    assert len(results.compared) == 3
    assert len(steps) > 1
    assert max(steps) < PLANNED
    page = (honest / "report.md").read_text()
    assert "test rows never chose" in page
    assert f"A training ended at most {PATIENCE} evaluations later" in page


def cut(made: Forged, run: Path, steps: int, **more: Any) -> Path:
    """Let a run have ended after fewer steps, with points, sums and self-checks that fit; return its folder."""
    edit_points(run, lambda old: [point for point in old if point["step"] <= steps])
    points: list[Json] = []
    edit_points(run, lambda old: points.extend(old) or old)
    timed = [point for point in points if point["metric"] == "step_seconds"]
    seconds = [point["value"] for point in timed]
    losses = [point["value"] for point in points if point["metric"] == "train_loss"][-20:]
    batch = record_of(run)["spec"]["settings"]["global_batch"]
    changes = {
        "consumed__steps": steps, "consumed__samples": batch * steps,
        "consumed__real_tokens": sum(point["real_tokens"] for point in timed),
        "consumed__padded_tokens": sum(point["tokens"] for point in timed),
        "metrics__train_seconds": sum(seconds), "metrics__train_seconds_second_clock": sum(seconds),
        "metrics__samples_per_second": batch * len(seconds[1:]) / sum(seconds[1:]),
        "metrics__train_loss": sum(losses) / len(losses),
    }  # fmt: skip
    made.edit(run, **changes | more)
    return made.seal(run)[0]


def best(old: list[Json]) -> list[Json]:
    """Make the last validation score but one better than those before, so that patience isn't at its end."""
    scores = [point for point in old if point["metric"] == "validation_accuracy"]
    scores[-2]["value"] = max(point["value"] for point in scores) + 0.01
    return old


def shorter(made: Forged) -> Path:
    run = made.run("lora", 0)
    return cut(made, run, record_of(run)["consumed"]["steps"] - EVERY)


def of_other_scores(made: Forged) -> Path:
    edit_points(made.run("lora", 0), best)
    return made.seal(made.run("lora", 0))[0]


def with_(**changes: Any) -> Callable[[Forged], Path]:
    """Return what sets fields of a run's record."""

    def edit(made: Forged) -> Path:
        made.edit(made.run("lora", 0), **changes)
        return made.seal(made.run("lora", 0))[0]

    return edit


def moved_tokens(made: Forged) -> Path:
    """Count tokens of a step in another one, of those that all runs of the seed took."""

    def moved(old: list[Json]) -> list[Json]:
        first, second, *_ = [point for point in old if point["metric"] == "step_seconds"]
        for name in ("tokens", "real_tokens"):
            first[name], second[name] = first[name] + 8, second[name] - 8
        return old

    edit_points(made.run("lora", 0), moved)
    return made.seal(made.run("lora", 0))[0]


@pytest.mark.parametrize(
    ("edit", "check", "what"),
    [
        (shorter, "consumption", "steps, and its validation scores give"),
        (of_other_scores, "consumption", "steps, and its validation scores give"),
        (with_(metrics__selected_step=4.0), "self checks", "fails the self-check selected step"),
        (with_(metrics__selected_seconds=0.001), "self checks", "fails the self-check selected step"),
        (with_(consumed__planned=PLANNED - EVERY), "consumption", "steps 56 instead of 60"),
        (with_(consumed__planned=PLANNED - EVERY), "steps", "took 56 steps, and its settings say 60"),
        (with_(consumed__planned=PLANNED - EVERY), "rates", "its method and schedule give"),
        (with_(consumed__planned=None), "steps", "its plan without an early end is of None steps"),
        (with_(consumed__order="0" * 16), "consumption", "order 0000000000000000 instead of"),
        (with_(spec__settings__select="last", spec__settings__patience=None), "steps", "it has select last"),
        (moved_tokens, "batches", "other numbers of tokens"),
    ],
)  # fmt: skip
def test_a_forgery_is_named(edit: Callable[[Forged], Path], check: str, what: str, forged: Forged) -> None:
    """Hashes, sums and self-checks of the record were made to fit."""
    run = edit(forged)
    found = wrong(verify(forged.folder))
    assert what in found[check]
    assert found[check].startswith(run.name)
