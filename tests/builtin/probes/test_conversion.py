"""Conversion to LoRA: what PEFT's own checkpoint of it scores, the model as it was, and nothing where PEFT can't."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers import tiny
from hpml_bench.builtin.probes.conversion import ConversionProbe
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.probe import Run
from hpml_bench.suite.settings import MethodSpec, TaskSpec
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import make_trainer

pytestmark = pytest.mark.skipif(not hasattr(peft, "convert_to_lora"), reason="PEFT converts to LoRA from 0.19 on")
ANSWERS = {"scorer": "exact", "max_new_tokens": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conversion")


def converted(
    folder: Path, group: Group, options: dict[str, Any], task: dict[str, Any] | None = None
) -> tuple[dict[str, Any], Any, Run, dict[str, float]]:
    """Train one of PEFT's types; return what the probe found, the encoder, and the scores on the test rows before."""
    settings = tiny.task_settings(folder, "causal_lm", world_size=1, steps=6)
    settings = settings.model_copy(
        update={"task": TaskSpec(name="causal_lm", options=ANSWERS if task is None else task)}
    )
    method = MethodSpec(name="x", method="peft", options=options, lr=1e-2)
    spec = tiny.spec("lora", lr=1e-2).model_copy(update={"settings": settings, "method": method})
    probe, assembly = ConversionProbe(), assemble(spec, prepare(settings), group)
    run = assembly.for_probes(folder, time.monotonic())
    probe.start(run)
    trainer = make_trainer(assembly, [probe], lambda _: None)
    trainer.train()
    before = trainer.evaluate(run.test, "test", trainer.steps)
    weights = copy.deepcopy(trainer.model.state_dict())
    found = probe.stop()
    assert trainer.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in trainer.model.state_dict().items())
    assert set(found) == ({metric.name for metric in probe.definitions()} if found else set())
    return found, trainer.model.encoder, run, dict(before.metrics)


def test_the_loss_is_that_of_pefts_checkpoint(folder: Path, group: Group, tmp_path: Path) -> None:
    """Its `save_as_lora`, loaded as any LoRA on the base model, has the loss that the probe found."""
    found, encoder, run, before = converted(folder, group, {"type": "LOHA", "r": 4, "converted_rank": 2})
    peft.save_as_lora(tmp_path, encoder, rank=2)
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    model = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    total = 0.0
    for row in range(len(run.test)):
        batch = run.test.batch(np.array([row]))
        with torch.no_grad():
            loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
        total += float(loss) * int(run.test.targets[row])
    assert found["converted_test_loss"] == pytest.approx(total / run.test.targets.sum(), rel=1e-5)
    assert found["converted_rank"] == 2
    assert found["converted_score_difference"] == found["converted_test_score"] - before["score"]
    assert abs(found["converted_test_loss"] - before["loss"]) > 1e-6, "two of its ranks are lost"


def test_a_rank_that_holds_all_changes_nothing(folder: Path, group: Group) -> None:
    """The same answers, and the same loss to rounding; without answers the loss alone."""
    options = {"type": "VERA", "r": 4, "converted_rank": 4}
    found, _, _, before = converted(folder, group, options)
    assert found["converted_test_loss"] == pytest.approx(before["loss"], rel=1e-5)
    assert (found["converted_answers_changed"], found["converted_score_difference"]) == (0, 0)
    assert set(converted(folder, group, options, {})[0]) == {
        "converted_rank", "converted_test_loss", "converted_evaluation_seconds",
    }  # fmt: skip


@pytest.mark.parametrize("options", [
    {"type": "LOHA", "r": 4},
    {"type": "IA3", "converted_rank": 4},
    {"type": "PROMPT_TUNING", "converted_rank": 4},
    {"type": "LOHA", "r": 4, "converted_rank": 1000},
])  # fmt: skip
def test_what_was_not_asked_for_or_cant_be_is_left_out(options: dict[str, Any], folder: Path, group: Group) -> None:
    """No rank, a type that adds nothing to weights, and a rank above that of the weights."""
    assert converted(folder, group, options)[0] == {}


def test_a_specification_without_it_is_written_as_before() -> None:
    """So that no recorded run has another name."""
    for given in ({"type": "LOHA"}, {"type": "LOHA", "converted_rank": None}):
        method = make_method(MethodSpec(name="x", method="peft", options=given, lr=1))
        assert method.options.model_dump(mode="json") == {"type": "LOHA"}
    assert "converted_rank" not in make_method(
        MethodSpec(name="x", method="peft", options={"type": "LOHA", "converted_rank": 2}, lr=1)
    ).given  # fmt: skip
