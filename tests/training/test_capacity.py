"""What lets larger models train: micro-batches, gradient checkpointing, half precision; each to the same path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import language
import pytest
import tiny
import torch
from pydantic import ValidationError

from hpml_bench import registry
from hpml_bench.config.devices import resolve_devices
from hpml_bench.config.settings import MethodSpec, RunSpec, Settings
from hpml_bench.data.prepare import prepare
from hpml_bench.errors import Diverged, Unsupported, UserError
from hpml_bench.launch import fork_server, launcher
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.probe import Probe, Step
from hpml_bench.plugins.task import make_task
from hpml_bench.records.points import read_points
from hpml_bench.training import trainer as trainer_module
from hpml_bench.training.distributed import Group
from hpml_bench.training.model import build_model
from hpml_bench.training.trainer import Trainer

TASKS = ("sequence_classification", "causal_lm")
LR = {"full": 1e-3, "lora": 1e-2, "adapter": 1e-2, "prompt_tuning": 3e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for models and rows."""
    return tmp_path_factory.mktemp("capacity")


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    """A process group of this process alone."""
    with tiny.alone() as found:
        yield found


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Path]:
    """Language models of four kinds."""
    return language.save_models(folder / "models")


class Recorder(Probe):
    """Keeps the steps, and counts the events of backward passes."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.backwards = 0

    def after_backward(self, index: int) -> None:
        """Count."""
        self.backwards += 1

    def after_steps(self, window: list[Step]) -> list[Any]:
        """Keep."""
        self.steps += window
        return []


def spec_of(folder: Path, task: str, method: str = "lora", **changes: Any) -> RunSpec:
    """Return a run of six steps of 12 rows of different lengths."""
    settings = tiny.task_settings(folder / task, task, world_size=1, **changes)
    kind = registry.plugin("methods", method)
    chosen = MethodSpec(name=method, method=method, options=kind.Options().model_dump(), lr=LR[method])
    return RunSpec(suite="tiny", settings=settings, method=chosen, seed=0)


def trained(spec: RunSpec, group: Group) -> tuple[Trainer, Recorder]:
    """Train a run."""
    recorder = Recorder()
    trainer = Trainer.build(spec, prepare(spec.settings), group, [recorder])
    trainer.train()
    return trainer, recorder


# Micro-batches


@pytest.mark.parametrize("task", TASKS)
def test_micro_batches_follow_the_same_path(task: str, folder: Path, group: Group) -> None:
    """One, two and four of them: the same losses, norms and samples, and events of probes once a step."""
    runs = [trained(spec_of(folder, task, "full", micro_batch=size), group)[1] for size in (None, 6, 3)]
    whole = runs[0].steps
    for run in runs:
        assert [step.loss for step in run.steps] == pytest.approx([step.loss for step in whole], abs=2e-5)
        assert [step.grad_norm for step in run.steps] == pytest.approx([step.grad_norm for step in whole], rel=1e-3)
        assert [(s.samples, s.real_tokens) for s in run.steps] == [(s.samples, s.real_tokens) for s in whole]
        assert run.backwards == len(run.steps) == 6
    assert sum(step.padded_tokens for step in runs[2].steps) < sum(step.padded_tokens for step in whole)


@pytest.mark.parametrize("task", TASKS)
def test_micro_batches_and_ranks_follow_the_same_path(task: str, folder: Path, tmp_path: Path) -> None:
    """One rank whole, and two ranks with one, two and three micro-batches; the ranks exchange the same bytes."""
    fork_server.start_fork_server()
    losses, exchanged = [], set()
    for ranks, size in ((1, None), (2, None), (2, 3), (2, 2)):
        spec = spec_of(folder, task, "full", micro_batch=size)
        spec = spec.model_copy(update={"settings": spec.settings.model_copy(update={"world_size": ranks})})
        record = launcher.run(spec, prepare(spec.settings), tmp_path / f"{ranks}-{size}")
        assert record.status == "ok", record.error
        points = read_points(tmp_path / f"{ranks}-{size}")
        losses.append([point.value for point in points if point.metric == "train_loss"])
        exchanged.add(record.metrics["allreduced_bytes_per_step"])
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], abs=2e-5)
    assert len(exchanged) == 1


def test_a_micro_batch_that_does_not_divide_is_refused() -> None:
    """By name, with the share that it must divide."""
    with pytest.raises(ValidationError, match="micro_batch 4 does not divide a rank's share of global_batch, 6"):
        tiny.settings(micro_batch=4)
    with pytest.raises(UserError, match="micro_batch 5 does not divide"):
        resolve_devices(tiny.settings(micro_batch=5, world_size=None))


def test_the_auxiliary_loss_counts_once_a_step(folder: Path, group: Group) -> None:
    """AdaLoRA's depends on its weights alone, however many micro-batches there are."""
    paths = []
    for size in (None, 3):
        spec = spec_of(folder, "sequence_classification", micro_batch=size)
        options = registry.plugin("methods", "peft").Options(type="ADALORA").model_dump()
        method = MethodSpec(name="adalora", method="peft", options=options, lr=1e-2)
        _, run = trained(spec.model_copy(update={"method": method}), group)
        paths.append([step.grad_norm for step in run.steps])
    assert paths[1] == pytest.approx(paths[0], rel=1e-3)


def test_the_rehearsal_leaves_no_trace(folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest batch goes forward and backward before the first step; with dropout, every loss stays bit for bit."""
    spec = spec_of(folder, "causal_lm", dropout=0.1)
    seen: list[int] = []
    backward = Trainer._backward

    def watched(self: Trainer, batch: Any, targets: float, *, with_auxiliary: bool) -> Any:
        seen.append(batch.input_ids.shape[1])
        return backward(self, batch, targets, with_auxiliary=with_auxiliary)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_backward", watched)
        _, with_one = trained(spec, group)
    assert len(seen) == 7
    assert seen[0] == max(seen)
    monkeypatch.setattr(Trainer, "rehearse", lambda self: None)
    _, without = trained(spec, group)
    assert [step.loss for step in with_one.steps] == [step.loss for step in without.steps]


# Gradient checkpointing


@pytest.mark.parametrize("kind", ["GPT-2", "Llama"])
@pytest.mark.parametrize("method", [*language.METHODS, "ADALORA", "CARTRIDGE"])
def test_checkpointing_changes_no_gradient(kind: str, method: str, models: dict[str, Path]) -> None:
    """Of every method, with dropout; a prefix in the cache is refused by its reason."""
    name, options = language.METHODS.get(method, ("peft", {"type": method}))
    found = []
    for checkpointing in (False, True):
        spec = language.spec_of(models[kind], name, options, gradient_checkpointing=checkpointing, dropout=0.1)
        task, made = make_task(spec.settings.task), make_method(spec.method)
        if method in {"PREFIX_TUNING", "CARTRIDGE"} and checkpointing:
            with pytest.raises(Unsupported, match=f"{method} does not work with gradient checkpointing"):
                build_model(models[kind], spec, made, task)
            return
        model = build_model(models[kind], spec, made, task).train()
        ids, mask, labels = language.texts()
        torch.manual_seed(0)
        loss = task.loss(model(ids, mask, labels), labels)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        found.append((loss, torch.autograd.grad(loss, weights) if weights else ()))
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_checkpointing_keeps_fewer_activations(models: dict[str, Path]) -> None:
    """Of a model of two blocks, less than half of the bytes that autograd keeps without it."""
    kept = []
    for checkpointing in (False, True):
        spec = language.spec_of(models["Llama"], "lora", gradient_checkpointing=checkpointing)
        task = make_task(spec.settings.task)
        model = build_model(models["Llama"], spec, make_method(spec.method), task).train()
        ids, mask, labels = language.texts()
        total = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            task.loss(model(ids, mask, labels), labels)
        kept.append(total)
    assert kept[1] < kept[0] / 2


# Precision


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", LR)
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp16"},
        {"precision": "bf16", "weights": "bfloat16", "micro_batch": 6, "gradient_checkpointing": True},
        {"precision": "fp16", "weights": "float16", "micro_batch": 3, "gradient_checkpointing": True},
    ],
)
def test_every_method_trains_in_half_precision(
    changes: dict[str, Any], method: str, task: str, folder: Path, group: Group
) -> None:
    """Near float32's losses; what is trained, and the optimizer's state, is float32; what is frozen is as asked for."""
    _, exact = trained(spec_of(folder, task, method), group)
    trainer, run = trained(spec_of(folder, task, method, **changes), group)
    assert [step.loss for step in run.steps] == pytest.approx([step.loss for step in exact.steps], rel=0.03)
    assert sum(step.overflowed for step in run.steps) <= 1  # fp16 may find the loss scaled too much at first
    assert {weight.dtype for weight in trainer.parameters} == {torch.float32}
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert {state.dtype for state in states} == {torch.float32}
    frozen = {weight.dtype for weight in trainer.model.parameters() if not weight.requires_grad}
    assert frozen <= {getattr(torch, changes.get("weights", "float32"))}
    assert bool(frozen) == (method != "full")


def scaled_by(scale: float, patch: pytest.MonkeyPatch) -> None:
    """Let the loss of fp16 be scaled by so much at first."""
    patch.setattr(trainer_module, "make_scaler", lambda _: torch.amp.GradScaler("cpu", init_scale=scale))


def test_steps_that_overflow_are_skipped_and_counted(
    folder: Path, tmp_path: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change nothing, the loss is scaled by half as much from then on, and the run is no diverged one."""
    from hpml_bench.probes.loss_scaling import LossScalingProbe

    spec = spec_of(folder, "sequence_classification", "full", precision="fp16", dropout=0.0)
    scaled_by(2.0**34, monkeypatch)
    recorder, probe = Recorder(), LossScalingProbe()
    trainer = Trainer.build(spec, prepare(spec.settings), group, [recorder, probe])
    probe.scaled, probe.skipped = True, 0
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    skipped = [step.overflowed for step in recorder.steps]
    assert any(skipped)
    assert probe.stop() == {"skipped_steps": sum(skipped)}
    if all(skipped):
        assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())


def test_a_gradient_that_always_overflows_has_diverged(
    folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halving doesn't help; the sentence says how many steps were skipped."""
    spec = spec_of(folder, "sequence_classification", "full", precision="fp16", steps=50)
    scaled_by(2.0**120, monkeypatch)
    with pytest.raises(Diverged, match=r"overflows in fp16 .*: 31 steps in a row were skipped up to step 31"):
        trained(spec, group)


def test_types_that_do_not_go_together_are_refused() -> None:
    """bfloat16 weights need bf16, float16 ones fp16; `auto` takes what they need, and tf32 is for GPUs."""
    with pytest.raises(ValidationError, match="weights bfloat16 need precision bf16, not fp32"):
        tiny.settings(weights="bfloat16")
    for weights, precision in (("bfloat16", "bf16"), ("float16", "fp16")):
        assert resolve_devices(tiny.settings(weights=weights, precision="auto")).precision == precision
    with pytest.raises(UserError, match="precision is tf32, which GPUs have from compute capability"):
        resolve_devices(tiny.settings(precision="tf32"))


def test_settings_as_they_were_have_the_ids_they_had() -> None:
    """What is new is off unless it is asked for."""
    plain = Settings.model_validate({"backbone": "path:a", "dataset": "text_files", "steps": 1})
    assert (plain.micro_batch, plain.gradient_checkpointing, plain.weights) == (None, False, "float32")
