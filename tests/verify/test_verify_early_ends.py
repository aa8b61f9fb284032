"""Runs that end early, by `select: early`: an honest folder holds, and a forged end, plan or selection is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import hpml_bench
from helpers import tiny
from helpers.forging import Edit, Forged, edit_points, record, record_of, sealed
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


def shorter(made: Forged) -> list[Path]:
    """Let a run have ended an evaluation earlier, with points and sums that fit."""
    run, kept = made.run("lora", 0), list[Json]()
    steps, batch = record_of(run)["consumed"]["steps"] - EVERY, record_of(run)["spec"]["settings"]["global_batch"]
    edit_points(run, lambda old: kept.extend(point for point in old if point["step"] <= steps) or kept)
    timed = [point for point in kept if point["metric"] == "step_seconds"]
    seconds = [point["value"] for point in timed]
    losses = [point["value"] for point in kept if point["metric"] == "train_loss"][-20:]
    made.edit(
        run, consumed__steps=steps, consumed__samples=batch * steps,
        consumed__real_tokens=sum(point["real_tokens"] for point in timed),
        consumed__padded_tokens=sum(point["tokens"] for point in timed),
        metrics__train_seconds=sum(seconds), metrics__train_seconds_second_clock=sum(seconds),
        metrics__samples_per_second=batch * len(seconds[1:]) / sum(seconds[1:]),
        metrics__train_loss=sum(losses) / len(losses),
    )  # fmt: skip
    return [run]


@pytest.mark.parametrize(("edit", "check", "what"), [
    (shorter, "consumption", "steps, and its validation scores give"),
    (record("lora 0", metrics__selected_step=4.0), "self checks", "fails the self-check selected step"),
    (record("lora 0", metrics__selected_seconds=0.001), "self checks", "fails the self-check selected step"),
    (record("lora 0", consumed__planned=PLANNED - EVERY), "consumption", "steps 56 instead of 60"),
    (record("lora 0", consumed__planned=PLANNED - EVERY), "steps", "took 56 steps, and its settings say 60"),
    (record("lora 0", consumed__planned=PLANNED - EVERY), "rates", "its method and schedule give"),
    (record("lora 0", consumed__planned=None), "steps", "its plan without an early end is of None steps"),
    (record("lora 0", consumed__order="0" * 16), "consumption", "order 0000000000000000 instead of"),
    (record("lora 0", spec__settings__select="last", spec__settings__patience=None), "steps", "it has select last"),
])  # fmt: skip
def test_a_forgery_is_named(edit: Edit, check: str, what: str, forged: Forged) -> None:
    """Hashes, sums and self-checks of the record were made to fit."""
    run = sealed(forged, edit)
    found = wrong(verify(forged.folder))[check]
    assert what in found
    assert found.startswith(run)
