"""`select: best`: what is tested and saved is of the step with the best validation score; test rows never choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import tiny
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Evaluation, Probe
from hpml_bench.plugins.task import Task
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.training.assembly import Assembly, assemble
from hpml_bench.training.trainer import Trainer


class Kept(Probe):
    """Keeps the weights and the score at each evaluation of the validation rows."""

    def __init__(self, run: Assembly) -> None:
        self.model, self.found = run.model, dict[int, tuple[float, list[torch.Tensor]]]()

    def after_eval(self, evaluation: Evaluation) -> list[Any]:
        weights = [weight.detach().clone() for weight in self.model.parameters() if weight.requires_grad]
        self.found[evaluation.step] = evaluation.metrics["accuracy"], weights
        return []


@pytest.mark.parametrize("select", ["last", "best"])
def test_weights_are_those_of_the_selected_step(
    select: str, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe reports that step and the seconds up to it; without `select` nothing is kept or reported."""
    settings = tiny.task_settings(
        tmp_path, "sequence_classification", world_size=1, steps=9, eval_every=3, select=select
    )
    spec = RunSpec(suite="s", settings=settings, method=MethodSpec(name="lora", method="lora", lr=1e-2), seed=0)
    monkeypatch.setattr(Task, "best_step", lambda _, scores: min(scores))  # so that it isn't the last one
    run = assemble(spec, prepare(settings), group)
    probe, kept = registry.plugin("probes", "selection")(), Kept(run)
    probe.start(run.for_probes(tmp_path, 0.0))
    trainer = Trainer(run, [probe, kept])
    trainer.train()
    after = [weight for weight in run.model.parameters() if weight.requires_grad]
    expected = 3 if select == "best" else 9
    assert all(torch.equal(one, other) for one, other in zip(after, kept.found[expected][1], strict=True))
    assert not torch.equal(kept.found[3][1][0], kept.found[9][1][0])
    values = probe.stop()
    assert [metric.name for metric in probe.definitions()] == (list(values) if select == "best" else [])
    if select == "best":
        assert values == {"selected_step": 3, "selected_seconds": sum(s.seconds for s in trainer.seen[:3])}


@pytest.mark.parametrize(("task", "best"), [("sequence_classification", 4), ("regression", 2)])
def test_the_best_is_the_first_of_equals(task: str, best: int) -> None:
    """Highest accuracy, lowest error."""
    kind = registry.plugin("tasks", task)
    made = kind(kind.Options(), ("a", "b", "c"))
    assert made.best_step({2: 0.5, 4: 0.7, 6: 0.7}) == best


def test_it_takes_evaluations() -> None:
    """Of which a run has five by default, without answers of language models."""
    with pytest.raises(ValueError, match="give eval_every"):
        tiny.settings(select="best")
