"""The embedded suites: pretraining matters, as in life, and every kind of task is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import fork_server, preparation
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.devices import resolve_suite
from hpml_bench.suite.suite import load_suite

pytestmark = pytest.mark.suites


def run(folder: Path, prepared: Prepared, suite: str = "quickstart") -> RunRecord:
    """Do a suite's LoRA run, at full budget."""
    (spec,) = resolve_suite(load_suite(suite)).runs(["lora"], [0])
    record = tiny.run(spec, prepared, folder)
    assert record.status == "ok", record.error
    return record


def test_the_pretrained_backbone_beats_a_random_one(tmp_path: Path) -> None:
    """At the same budget the pretrained weights are worth at least 15 points, and nothing beats the best possible."""
    import torch
    from transformers import AutoConfig, AutoModel

    fork_server.start_fork_server()
    prepared = preparation.prepare(resolve_suite(load_suite("quickstart")).settings)
    random = tmp_path / "random"
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(prepared.backbone)).save_pretrained(random)

    pretrained = run(tmp_path / "a", prepared)
    scratch = run(tmp_path / "b", prepared.model_copy(update={"backbone": str(random)}))

    gain = (pretrained.metrics["test_accuracy"] or 0) - (scratch.metrics["test_accuracy"] or 1)
    assert gain >= 0.15
    best = float(pretrained.notes["best possible accuracy"].split("%")[0].split()[-1]) / 100
    assert (pretrained.metrics["test_accuracy"] or 1) < best + 0.02


@pytest.mark.parametrize(
    ("suite", "metric", "low", "high"),
    [("regression", "rmse", 0.8, 1.8), ("tagging", "f1", 0.7, 1), ("chat", "score", 0.7, 0.99)],
)
def test_other_kinds_of_task_are_learnt(suite: str, metric: str, low: float, high: float, tmp_path: Path) -> None:
    """LoRA is better than chance (an RMSE of 2.2, else 0), no better than possible, and its sums agree."""
    fork_server.start_fork_server()
    prepared = preparation.prepare(resolve_suite(load_suite(suite)).settings)
    record = run(tmp_path, prepared, suite)
    assert record.headline == f"test_{metric}"
    assert all(check.passed for check in record.checks)
    assert low < (record.metrics[f"test_{metric}"] or 0) < high
