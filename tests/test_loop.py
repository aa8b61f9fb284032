"""The training loop in one process: probes leave it alone, schedule and optimizer are the formula's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

from hpml_bench import registry
from hpml_bench.data import Rows
from hpml_bench.distributed import Group, process_group
from hpml_bench.loop import Training, evaluate, lr_factor, total_steps, train
from hpml_bench.models import build_classifier
from hpml_bench.probes import Probe, Run, Step
from hpml_bench.records import Prepared, RunSpec


class Recorder(Probe):
    """Keeps every step."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def after_steps(self, window: list[Step]) -> list:
        """Keep the steps."""
        self.steps.extend(window)
        return []


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    """A process group of this process alone."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="localhost", MASTER_PORT="0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.distributed.init_process_group", _local_group)
        with process_group(tiny.settings(world_size=1)) as found:
            yield found


def _local_group(backend: str, **_: object) -> None:
    from torch.distributed import HashStore
    from torch.distributed.distributed_c10d import init_process_group

    init_process_group(backend, store=HashStore(), rank=0, world_size=1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A tiny backbone and rows."""
    return tiny.prepared(tmp_path_factory.mktemp("prepared"))


def job(spec: RunSpec, prepared: Prepared, group: Group, probes: list[Probe]) -> tuple[Training, Rows]:
    """Return a training of a fresh classifier."""
    train_rows, validation, test = (
        Rows(Path(prepared.data) / s, prepared.pad_id) for s in ("train", "validation", "test")
    )
    classifier = build_classifier(Path(prepared.backbone), spec.settings, spec.method, 3, spec.seed)
    torch.manual_seed(spec.seed)
    module = registry.get("methods", spec.method.method)
    training = Training(
        classifier, spec.method, module, spec.settings, spec.seed, group, train_rows, validation, probes, lambda _: None
    )
    return training, test


def losses(spec: RunSpec, prepared: Prepared, group: Group, folder: Path, probes: list[Probe]) -> list[float]:
    """Train, evaluate and stop the probes; return the losses of the steps and of the test rows."""
    recorder = Recorder()
    training, test = job(spec, prepared, group, [*probes, recorder])
    run = Run(spec.settings, group, training.classifier, training.module, test, folder, time.monotonic())
    for probe in probes:
        probe.start(run)
    train(training)
    result = evaluate(
        training.classifier, test, spec.settings, group, training.probes, training.write, "test", training.steps
    )
    for probe in probes:
        probe.stop()
    return [step.loss for step in recorder.steps] + result.losses.tolist()


@pytest.mark.parametrize("name", registry.names("probes"))
def test_a_probe_changes_nothing(name: str, prepared: Prepared, group: Group, tmp_path: Path) -> None:
    """With and without the probe, dropout on, every loss is the same bit for bit."""
    spec = tiny.spec(world_size=1, dropout=0.1)
    without = losses(spec, prepared, group, tmp_path, [])
    probe: Probe = registry.get("probes", name).Measure()
    assert losses(spec, prepared, group, tmp_path, [probe]) == without


def test_the_learning_rate_warms_up_and_decays() -> None:
    """Linear from a first small step to 1 over the warm-up, then linear down to one step above 0."""
    settings = tiny.settings(steps=10, lr_warmup=0.2)
    factors = [lr_factor(step, 10, settings) for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    constant = tiny.settings(steps=10, lr_warmup=0.2, schedule="constant")
    assert [lr_factor(step, 10, constant) for step in (2, 9)] == [1, 1]


def test_epochs_are_whole_global_batches() -> None:
    """Rows that don't fill a last global batch are left out of an epoch."""
    settings = tiny.settings(steps=None, epochs=3, global_batch=12)
    assert total_steps(settings, rows=40) == 9


def test_the_loop_is_plain_adamw(prepared: Prepared, group: Group, tmp_path: Path) -> None:
    """The losses are those of a loop written out here: cross-entropy, clipping, torch's AdamW, the same batches."""
    spec = tiny.spec("full", lr=1e-3, world_size=1)
    ours = losses(spec, prepared, group, tmp_path, [])[: spec.settings.steps]

    training, _ = job(spec, prepared, group, [])
    model = training.classifier.train()
    parameters = [
        {"params": list(model.encoder.parameters()), "lr": 1e-3},
        {"params": list(model.head.parameters()), "lr": spec.settings.head_lr},
    ]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    theirs = []
    for step, indices in enumerate(training.order()):
        for group_, lr in zip(optimizer.param_groups, (1e-3, spec.settings.head_lr), strict=True):
            group_["lr"] = lr * lr_factor(step, 6, spec.settings)
        batch = training.train.batch(indices)
        loss = torch.nn.functional.cross_entropy(model(batch.input_ids, batch.attention_mask), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        theirs.append(loss.item())
    assert ours == pytest.approx(theirs, abs=1e-5)
