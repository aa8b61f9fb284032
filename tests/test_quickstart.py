"""The embedded default: its pretraining matters, as in life."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpml_bench.config.devices import resolve_suite
from hpml_bench.config.suite import load_suite
from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import fork_server, launcher, preparation
from hpml_bench.records.run import RunRecord


def run(folder: Path, prepared: Prepared) -> RunRecord:
    """Do quickstart's LoRA run, at full budget."""
    (spec,) = resolve_suite(load_suite("quickstart")).runs(["lora"], [0])
    record = launcher.run(spec, prepared, folder)
    assert record.status == "ok", record.error
    return record


@pytest.mark.slow
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
