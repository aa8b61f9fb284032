"""Weights of classes in the training loss: torch's weighted cross-entropy over the global batch,
in one pass, in micro-batches and over ranks.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from sklearn.utils.class_weight import compute_class_weight

from helpers import tiny
from helpers.loops import Recorder, over_ranks, run_of, trained, trainer_of
from hpml_bench.builtin.tasks.sequence_classification import SequenceClassification
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.group import Group
from hpml_bench.suite.schedule import lr_factor
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import Trainer

TASK = "sequence_classification"
UNEQUAL = {"blue": 0.25, "red": 7.5}  # of blue, green and red
RATE = 1e-3


def spec_of(folder: Path, class_weights: Any, **changes: Any) -> RunSpec:
    options = {} if class_weights is None else {"class_weights": class_weights}
    task = {"name": TASK, "options": options}
    return run_of(folder, TASK, method="full", lr=RATE, task=task, **changes)


def task_of(class_weights: Any, **facts: float) -> SequenceClassification:
    options = SequenceClassification.Options(class_weights=class_weights)
    return SequenceClassification(options, tiny.COLOURS, facts)


@pytest.fixture(scope="module")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classes")


def torchs(spec: RunSpec, weight: list[float], group: Group) -> tuple[list[float], dict[str, Any]]:
    """Return the losses of torch's criterion on whole batches, and the weights after the last
    step.
    """
    trainer = trainer_of(spec, group)
    model = trainer.model.train()
    criterion = torch.nn.CrossEntropyLoss(weight=torch.tensor(weight))
    rates = (RATE, spec.settings.head_lr)
    parts = (model.encoder, model.head)
    parameters = [
        {"params": list(part.parameters()), "lr": rate}
        for part, rate in zip(parts, rates, strict=True)
    ]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    losses = []
    for step, indices in enumerate(trainer.order()):
        for part, rate in zip(optimizer.param_groups, rates, strict=True):
            part["lr"] = rate * lr_factor(step, 6, spec.settings)
        batch = trainer.train_rows.batch(indices)
        loss = criterion(model(batch.input_ids, batch.attention_mask), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("micro_batch", [12, 2, 1])
@pytest.mark.parametrize("given", [UNEQUAL, dict.fromkeys(tiny.COLOURS, 3.0), None])
def test_the_loss_is_torchs_over_the_whole_batch(
    given: dict[str, float] | None, micro_batch: int, class_folder: Path, group: Group
) -> None:
    """Every step's loss and the model after the last one, also where a batch is taken in parts,
    whose weights differ: a mean of means would be another. Equal weights are none.
    """
    weight = [(given or {}).get(name, 1.0) for name in tiny.COLOURS]
    losses, weights = torchs(spec_of(class_folder, given), weight, group)
    trainer, recorder = trained(spec_of(class_folder, given, micro_batch=micro_batch), group)
    assert recorder.values("loss") == pytest.approx(losses, rel=1e-5)
    ours = {name: weight.detach() for name, weight in trainer.model.named_parameters()}
    torch.testing.assert_close(ours, weights, rtol=1e-3, atol=2e-5)


def train_on_ranks(group: Group, spec: RunSpec, prepared: Prepared, folder: Path) -> None:
    recorder = Recorder()
    trainer = Trainer(assemble(spec, prepared, group), [recorder])
    trainer.train()
    if group.main:
        weights = {name: weight.detach() for name, weight in trainer.model.named_parameters()}
        torch.save({"losses": recorder.values("loss"), "weights": weights}, folder / "ranks.pt")


@pytest.mark.parametrize("micro_batch", [6, 2])
def test_two_ranks_divide_by_the_weights_of_both(
    micro_batch: int, class_folder: Path, group: Group, tmp_path: Path
) -> None:
    """Their rows are of unlike weight, and yet the loss is torch's over both."""
    losses, weights = torchs(spec_of(class_folder, UNEQUAL), [0.25, 1.0, 7.5], group)
    spec = spec_of(class_folder, UNEQUAL, world_size=2, micro_batch=micro_batch)
    over_ranks(2, train_on_ranks, spec, prepare(spec.settings), tmp_path)
    ranks = torch.load(tmp_path / "ranks.pt", weights_only=False)
    assert ranks["losses"] == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(ranks["weights"], weights, rtol=1e-3, atol=2e-5)


def test_without_weights_rows_are_counted(class_folder: Path, group: Group) -> None:
    """The loss is the plain sum, bit for bit, and its divisor the whole number of rows."""
    trainer = trainer_of(spec_of(class_folder, None), group)
    outputs, labels = torch.randn(12, 3), torch.arange(12) % 3
    plain = torch.nn.functional.cross_entropy(outputs, labels, reduction="sum")
    assert torch.equal(trainer.task.loss(outputs, labels), plain)
    divisor = trainer.task.divisor(trainer.train_rows, np.arange(12))
    assert (type(divisor), divisor) == (int, 12)


def test_balanced_weights_are_scikit_learns() -> None:
    """Of the classes that have training rows; one without weighs nothing in any loss."""
    labels = [0] * 70 + [1] * 7 + [2] * 23
    rows = Dataset.from_dict({"text": ["a"] * 100, "label": labels})
    facts = task_of("balanced").facts(rows)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    assert [*facts.values()] == pytest.approx(expected.tolist(), rel=1e-12)
    assert [*facts] == ["weight of blue", "weight of green", "weight of red"]
    some = task_of("balanced").facts(rows.select(range(77)))
    expected = compute_class_weight("balanced", classes=np.arange(2), y=np.array(labels[:77]))
    assert [*some.values()][:2] == pytest.approx(expected.tolist(), rel=1e-12)


def test_a_weight_is_of_a_class() -> None:
    """One of another name is refused with the names there are; classes 0 and 1 of YAML are names;
    a weight is a positive number.
    """
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    says = "class_weights has 'yellow', which is no class; the classes are blue, green, red"
    with pytest.raises(UserError, match=says):
        task_of({"yellow": 2}).facts(rows)
    assert SequenceClassification.Options(class_weights={0: 2, 1: 1}).class_weights == {
        "0": 2.0,
        "1": 1.0,
    }
    for wrong in ({"blue": 0}, {"blue": -1}, {"blue": float("inf")}):
        with pytest.raises(ValidationError):
            SequenceClassification.Options(class_weights=wrong)
    for wrong in ("equal", [1, 2, 3]):
        with pytest.raises(ValidationError, match="neither `balanced` nor a weight by class"):
            SequenceClassification.Options(class_weights=wrong)


def test_the_weights_that_were_used_are_recorded(class_folder: Path) -> None:
    """In the notes of the preparation, which records and pages have, and the training loss says
    that it has weights; losses of test rows have none.
    """
    name = "weights of classes in the training loss"
    prepared = prepare(spec_of(class_folder, UNEQUAL).settings)
    assert prepared.notes[name] == "blue 0.25, green 1, red 7.5"
    assert prepared.facts["weight of red"] == 7.5
    assert name not in prepare(spec_of(class_folder, None).settings).notes
    weighted = task_of(UNEQUAL, **prepared.facts)
    definitions = {metric.name: metric.definition for metric in weighted.metrics}
    assert definitions["train_loss"].endswith("Each row counts by the weight of its class.")
    plain = {metric.name: metric.definition for metric in SequenceClassification.metrics}
    assert definitions["test_loss"] == plain["test_loss"]
    assert "weight" not in plain["train_loss"]
    outputs, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    row_losses = weighted.row_losses(outputs, labels)
    assert torch.equal(row_losses, task_of(None).row_losses(outputs, labels))
