"""`select: best` and `early`: what is measured and saved is of the step with the best validation score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import tiny
from helpers.loops import run_of, trainer_of
from hpml_bench.builtin.methods.lora import LoRA
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Evaluation, Probe
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.suite import registry
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.assembly import Assembly, assemble
from hpml_bench.training.saving import save_trained
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
    spec = run_of(tmp_path, "sequence_classification", steps=9, eval_every=3, select=select)
    monkeypatch.setattr(Task, "best_step", lambda _, scores: min(scores))  # so that it isn't the last one
    run = assemble(spec, prepare(spec.settings), group)
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


@pytest.mark.parametrize("at", [4, 12])
def test_a_method_has_the_state_of_its_step(
    at: int, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdaLoRA's files have the ranks that it had then, before or after it has dropped some."""
    monkeypatch.setattr(Task, "validation_score", lambda _, metrics: metrics["loss"])
    monkeypatch.setattr(Task, "best_step", lambda _, scores: at if at in scores else max(scores))
    options = {"type": "ADALORA", "init_r": 6, "target_r": 2, "tinit": 2, "tfinal": 6, "deltaT": 1}
    changes = {"steps": 16, "eval_every": 4, "select": "best"}
    spec = run_of(tmp_path, "sequence_classification", "peft", options, 1e-1, **changes)
    prepared = prepare(spec.settings)
    run = assemble(spec, prepared, group)

    class Saves(Probe):
        """Saves the model at each evaluation."""

        def after_eval(self, evaluation: Evaluation) -> list[Any]:
            save_trained(run.model, run.method, spec, prepared, tmp_path / str(evaluation.step))
            return []

    Trainer(run, [Saves()]).train()
    save_trained(run.model, run.method, spec, prepared, tmp_path / "end")
    files = {path.relative_to(tmp_path / "end") for path in (tmp_path / "end").rglob("adapter*")}
    assert files
    ends = [[(tmp_path / name / file).read_bytes() for file in sorted(files)] for name in ("end", str(at), "16")]
    assert ends[0] == ends[1] != ends[2]


def test_a_state_that_isnt_given_is_refused(group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method would go on with that of the last step."""
    monkeypatch.setattr(LoRA, "state", lambda *_: None)
    with pytest.raises(Unsupported, match="no hook `state` gives it"):
        trainer_of(run_of(tmp_path, "sequence_classification", steps=8, eval_every=4, select="best"), group)


@pytest.mark.parametrize(("task", "best"), [("sequence_classification", 4), ("regression", 2)])
def test_the_best_is_the_first_of_equals(task: str, best: int) -> None:
    """Highest accuracy, lowest error."""
    assert make_task(TaskSpec(name=task), ("a", "b")).best_step({2: 0.5, 4: 0.7, 6: 0.7}) == best


@pytest.mark.parametrize(
    ("scores", "end"),
    [
        ({1: 0.1, 2: 0.2, 3: 0.3}, None),
        ({1: 0.3, 2: 0.3, 3: 0.3, 4: 0.9}, 3),  # equals are no better
        ({1: 0.3, 2: 0.1, 3: 0.4, 4: 0.1, 5: 0.1, 6: 0.9}, 5),
        ({1: np.nan, 2: np.nan, 3: 0.1, 4: 0.1}, None),
        ({1: np.nan, 2: 0.1, 3: np.nan, 4: np.nan}, 4),
    ],
)
def test_an_early_end_follows_evaluations_without_a_better_score(scores: dict[int, float], end: int | None) -> None:
    """Two of them here, in a row; an undefined score is worse than any other."""
    made = make_task(TaskSpec(name="sequence_classification"), ("a", "b"))
    assert made.early_end(scores, 2) == end
    assert made.early_end(scores, None) is None


def test_it_takes_evaluations() -> None:
    """Of which a run has five by default, without answers of language models."""
    with pytest.raises(ValueError, match="give eval_every"):
        tiny.settings(select="best")
    for changes in ({"select": "early"}, {"patience": 2}, {"select": "best", "patience": 2}):
        with pytest.raises(ValueError, match="go together"):
            tiny.settings(eval_every=2, **changes)
