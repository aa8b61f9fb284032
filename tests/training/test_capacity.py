"""What lets larger models train: micro-batches, gradient checkpointing, half precision; each to
the same path.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaForCausalLM, RobertaConfig, RobertaModel

from helpers import language_models, tiny
from helpers.loops import Counts, Recorder, run_of, trained, trainer_of
from hpml_bench.builtin.probes.gradient import GradientProbe
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Probe
from hpml_bench.suite import registry
from hpml_bench.suite.settings import RunSpec, Settings
from hpml_bench.system import errors, heartbeat
from hpml_bench.system.errors import Diverged, Unsupported
from hpml_bench.training import assembly as assembly_module
from hpml_bench.training import distributed, evaluation, kernels, quantization, trial, worker
from hpml_bench.training import model as model_module
from hpml_bench.training import peft as peft_method
from hpml_bench.training import trainer as trainer_module
from hpml_bench.training.assembly import assemble
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.distributed import ddp
from hpml_bench.training.trainer import Trainer

CLASSES, WORDS = TASKS = ("sequence_classification", "causal_lm")
LR = {"full": 1e-3, "lora": 1e-2, "adapter": 1e-2, "prompt_tuning": 3e-2}


def out_of_memory() -> torch.OutOfMemoryError:
    """Return a new error: notes are added to it."""
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def spec_of(
    folder: Path, task: str, method: str = "lora", options: Any = None, **changes: Any
) -> RunSpec:
    return run_of(folder / task, task, method, options, LR.get(method, 1e-2), **changes)


@pytest.mark.parametrize(
    ("task", "method", "options"),
    [
        *((task, "full", {}) for task in TASKS),
        (CLASSES, "peft", {"type": "ADALORA"}),
    ],
)
def test_micro_batches_follow_the_same_path(
    task: str, method: str, options: dict[str, Any], task_folder: Path, group: Group
) -> None:
    """One, two and four: the same losses, norms and samples; events, and AdaLoRA's auxiliary
    loss, are once a step.
    """
    runs = [
        trained(spec_of(task_folder, task, method, options, micro_batch=size), group)[1]
        for size in (None, 6, 3)
    ]
    whole = runs[0]
    for run in runs:
        assert run.values("loss") == pytest.approx(whole.values("loss"), abs=2e-5)
        assert run.values("grad_norm") == pytest.approx(whole.values("grad_norm"), rel=1e-3)
        for name in ("samples", "real_tokens"):
            assert run.values(name) == whole.values(name)
        assert run.backwards == len(run.steps) == 6
    assert sum(runs[2].values("padded_tokens")) < sum(whole.values("padded_tokens"))


def watched_backward(patch: pytest.MonkeyPatch, see: Callable[[Trainer, Any], None]) -> None:
    """Let `see` have the trainer and the batch of each backward pass, after it."""
    backward = Trainer._backward

    def watched(self: Trainer, batch: Any, targets: float, *, with_auxiliary: bool) -> Any:
        loss = backward(self, batch, targets, with_auxiliary=with_auxiliary)
        see(self, batch)
        return loss

    patch.setattr(Trainer, "_backward", watched)


@pytest.mark.parametrize(
    ("optimizer", "size"),
    [("adamw", 3), ("muon", 3), *((name, None) for name in registry.names("optimizers"))],
)
def test_the_rehearsal_leaves_no_trace(
    optimizer: str,
    size: int | None,
    task_folder: Path,
    group: Group,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With dropout, every loss and weight stays bit for bit, whatever makes the steps; its state
    and rates too.
    """
    if optimizer == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    spec = spec_of(
        task_folder, WORDS, dropout=0.1, micro_batch=size, optimizer=optimizer, weight_decay=0.1
    )
    with_one, run = trained(spec, group)
    monkeypatch.setattr(Trainer, "rehearse", lambda self: None)
    without, other = trained(spec, group)
    for name in ("loss", "lr"):
        assert run.values(name) == other.values(name)
    for one, weight in zip(with_one.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, weight)


def test_most_targets_at_once_are_rehearsed(
    tmp_path: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits are a language model's largest tensors: the longest batch alone would miss what
    runs out of memory.
    """
    spec = run_of(tmp_path, WORDS, lr=1e-3, validation_samples=12, test_samples=12)
    lines = []
    for row in range(
        96
    ):  # the longest learn two tokens, and those of half that length most of them
        asked, answered = (24, 1) if row % 2 else (2, 12)
        texts = [
            " ".join(f"w{10 + (row * 7 + place) % 140}" for place in range(count))
            for count in (asked, answered)
        ]
        lines.append(json.dumps({"prompt": texts[0], "completion": " " + texts[1]}))
    (tmp_path / "answer.jsonl").write_text("\n".join(lines) + "\n")
    seen: list[tuple[int, int]] = []
    watched_backward(monkeypatch, lambda _, batch: seen.append((batch.padded_tokens, batch.learnt)))
    trainer = trainer_of(spec, group)
    monkeypatch.setattr(trainer, "step", lambda *_: pytest.fail("a step was taken"))
    trainer.rehearse()
    rehearsed = seen[1:]  # after a row by itself
    batches = [trainer.train_rows.batch(indices) for indices in trainer.order()]
    assert max(learnt for _, learnt in rehearsed) == max(batch.learnt or 0 for batch in batches)
    assert max(padded for padded, _ in rehearsed) == max(batch.padded_tokens for batch in batches)
    assert len(rehearsed) < len(batches)


@pytest.mark.parametrize("place", ["rehearsal", "steps"])
def test_sums_are_in_ddps_buckets(
    place: str, task_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step no gradient has memory of its own: a second copy of all would be 32 GB for 8
    billion parameters.
    """
    spec = spec_of(task_folder, WORDS, "full", micro_batch=3)
    trainer = Trainer(assemble(spec, prepare(spec.settings), group), wrap=ddp)
    trainer.model.train()
    if place == "steps":
        trainer.rehearse()
    own: list[int] = []

    def look(seen: Trainer, _: object) -> None:
        gradients = [weight.grad for weight in seen.parameters if weight.grad is not None]
        storages = {
            grad.untyped_storage().data_ptr(): grad.untyped_storage().nbytes() for grad in gradients
        }
        assert sum(storages.values()) == sum(grad.nbytes for grad in gradients)
        own.append(len(storages))

    watched_backward(monkeypatch, look)
    if place == "steps":
        for index, indices in enumerate(list(trainer.order())[:2], start=1):
            trainer.step(index, indices)
    else:
        trainer.rehearse()
    assert len(own) >= 5
    assert max(own) < len(trainer.parameters) / 2


@pytest.mark.parametrize("part", ["losses", "answers", "choices"])
def test_an_evaluation_that_does_not_fit_is_told_before_the_first_step(
    part: str, task_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what makes it smaller, instead of after hours, when the test rows come."""
    spec = spec_of(task_folder, WORDS)
    if part == "choices":
        options = {"scorer": "choice"}
        rows = [
            {"prompt": f"w{n}", "choices": ["w5 w6 w7 w8", "w7"], "answer": 1} for n in range(160)
        ]
        (task_folder / WORDS / "choices.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        dataset = {
            "name": "text_files",
            "options": {"train": f"path:{task_folder / WORDS / 'choices.jsonl'}"},
        }
        values = spec.settings.model_dump() | {
            "task": {"name": WORDS, "options": options},
            "dataset": dataset,
        }
        spec = spec.model_copy(update={"settings": Settings.model_validate(values)})
    trainer, answer = trainer_of(spec, group), evaluation.losses_and_answers

    def only_choices(run: Any, rows: Any, part: Any) -> Any:
        if not rows.has("prompt"):
            raise out_of_memory()
        return answer(run, rows, part)

    calls: dict[str, Any] = {
        "losses": (evaluation, "losses_and_answers"),
        "answers": (LanguageModel, "read"),
    }
    broken = Mock(side_effect=only_choices if part == "choices" else out_of_memory())
    monkeypatch.setattr(*calls.get(part, calls["losses"]), broken)
    monkeypatch.setattr(trainer, "step", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        trainer.train()
    told = worker.run_error(caught.value, rank=0)
    assert "no step was taken: it is the largest evaluation batch; lower eval_batch" in told.message
    assert errors.status_of(told.kind, told.message) == "oom_cuda"


def test_the_rehearsal_ends_before_readings(
    task_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU its kernels would run on while energy and the time to the first step are read."""
    events: list[str] = []

    class Reading(Probe):
        def before_training(self) -> None:
            events.append("read")

    watched_backward(monkeypatch, lambda *_: events.append("backward"))
    monkeypatch.setattr(trainer_module, "settle", lambda device: events.append(f"settled {device}"))
    spec = spec_of(task_folder, CLASSES)
    trainer_of(spec, group, Reading()).train()
    read = events.index("read")
    assert events[read - 2 : read] == ["backward", "settled cpu"]


def test_a_try_out_rehearses_with_a_margin(
    task_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation, optimizer and all, of a GPU without the last twentieth; then two steps."""
    calls: list[Any] = []
    rehearse, step = Trainer.rehearse, Trainer.step
    monkeypatch.setattr(
        distributed, "leave_free", lambda share, device: calls.append((share, device.type))
    )
    monkeypatch.setattr(
        Trainer, "rehearse", lambda made: (calls.append("rehearsed"), rehearse(made))
    )
    monkeypatch.setattr(
        Trainer, "step", lambda own, at, rows: (calls.append((at, own)), step(own, at, rows))
    )
    trainer_module.trial_steps(
        assemble(spec := spec_of(task_folder, WORDS), prepare(spec.settings), group)
    )
    trainer = calls[-1][1]
    assert calls == [(0.05, "cpu"), "rehearsed", (1, trainer), (2, trainer)]
    assert len(trainer.optimizer.state) == len(trainer.parameters)


def test_what_a_cast_leaves_is_given_back(
    task_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the cast, and before anything else is made: else the allocator holds both."""
    events: list[str] = []
    store = kernels.store_frozen_as_bf16
    monkeypatch.setattr(
        kernels, "store_frozen_as_bf16", lambda model: (events.append("cast"), store(model))
    )
    monkeypatch.setattr(
        assembly_module, "release", lambda device: events.append(f"released {device}")
    )
    run = assemble(
        spec := spec_of(task_folder, WORDS, precision="bf16"), prepare(spec.settings), group
    )
    assert events == ["cast", "released cpu"]
    assert torch.bfloat16 in {weight.dtype for weight in run.model.parameters()}


def test_ranks_load_in_turn_where_the_host_holds_the_weights(tmp_path: Path) -> None:
    """Not where they go from the mapped file to a GPU as they are: eight ranks would take eight
    times as long.
    """
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2_000_000_000)
    assert model_module.is_large(tmp_path, tiny.settings())
    assert model_module.is_large(tmp_path, tiny.settings(device="cuda"))
    assert not model_module.is_large(
        tmp_path, tiny.settings(device="cuda", weights="bfloat16", precision="bf16")
    )
    assert not model_module.is_large(tmp_path, tiny.settings(device="cuda"), half=True)
    assert model_module.is_large(tmp_path, tiny.settings(weights="bfloat16", precision="bf16"))


def test_each_micro_batch_is_a_sign_of_life(
    task_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of many on a large model may take longer than the time after which a rank counts
    as hanging.
    """
    trainer = trainer_of(spec_of(task_folder, CLASSES, micro_batch=3), group)
    beats: list[str] = []
    monkeypatch.setattr(heartbeat, "beat", beats.append)
    trainer.step(1, next(trainer.order()))
    assert beats == ["training step 1"] * 4


def keep(kept: list[int], recomputed: bool, tensor: torch.Tensor) -> torch.Tensor:
    kept[recomputed] += tensor.nbytes
    return tensor


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("GPT-2", "full"),
        *(("Llama", method) for method in (*language_models.METHODS, "ADALORA", "CARTRIDGE")),
    ],
)
def test_checkpointing_changes_no_gradient(
    kind: str, method: str, model_folders: dict[str, Path]
) -> None:
    """Of every method, with dropout, and fewer bytes are kept for it; what it breaks is refused
    by its reason.
    """
    name, options = language_models.METHODS.get(method, ("peft", {"type": method}))
    found, kept = [], [0, 0]
    for recomputed in (False, True):
        changes = {"gradient_checkpointing": recomputed, "dropout": 0.1}
        build = partial(
            language_models.trained, model_folders[kind], name, options, steps=0, **changes
        )
        if method in model_module.NOT_CHECKPOINTED and recomputed:
            with pytest.raises(
                Unsupported, match=f"{method} does not work with gradient checkpointing"
            ):
                build()
            return
        model, _, task, _ = build()
        model.train()
        ids, mask, labels = language_models.texts()
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(
            partial(keep, kept, recomputed), lambda tensor: tensor
        ):
            loss = task.loss(model(ids, mask, labels), labels)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        found.append((loss, torch.autograd.grad(loss, weights) if weights else ()))
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert method == "none" or kept[1] < kept[0] / 2


BF16 = {
    "precision": "bf16",
    "weights": "bfloat16",
    "micro_batch": 6,
    "gradient_checkpointing": True,
}
FP16 = {"precision": "fp16", "weights": "float16", "micro_batch": 3, "gradient_checkpointing": True}
QUANTISED = {"quantization": "nf4", "micro_batch": 3, "gradient_checkpointing": True}
HALF = [*((BF16, method, WORDS) for method in LR), *((FP16, method, CLASSES) for method in LR)]
HALF += [
    (QUANTISED | {"precision": "bf16", "weights": "bfloat16"}, "prompt_tuning", WORDS),
    (QUANTISED | {"precision": "fp16"}, "lora", CLASSES),
    ({"quantization": "nf4"}, "adapter", WORDS),
    ({"quantization": "int8", "precision": "bf16"}, "prompt_tuning", WORDS),
    ({"quantization": "int8"}, "lora", CLASSES),
]


@pytest.mark.parametrize(("changes", "method", "task"), HALF)
def test_every_method_trains_in_fewer_bits(
    changes: dict[str, Any], method: str, task: str, task_folder: Path, group: Group
) -> None:
    """Near float32's losses; all that is trained, and the optimizer's state, is float32; what is
    frozen stays so.
    """
    packed = "quantization" in changes
    if packed:
        pytest.importorskip("bitsandbytes", minversion="0.48")
    spec = spec_of(task_folder, task, method, **changes)
    trainer, run = trained(spec, group)
    exact = trained(spec_of(task_folder, task, method), group)[1]
    assert run.values("loss") == pytest.approx(exact.values("loss"), rel=0.1 if packed else 0.03)
    assert sum(run.values("overflowed")) <= 1  # fp16 may find the loss scaled too much at first
    assert min(run.values("grad_norm")) > 0
    assert {weight.dtype for weight in trainer.parameters} == {torch.float32}
    assert len(trainer.optimizer.state) == len(trainer.parameters)
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert {state.dtype for state in states} == {torch.float32}
    assert quantization.is_quantized(trainer.model) == packed
    frozen = {weight.dtype for weight in trainer.model.parameters() if not weight.requires_grad}
    assert packed or frozen <= {getattr(torch, changes["weights"])}
    assert bool(frozen) == (method != "full")
    for name, weight in trainer_of(spec, group).model.named_parameters():
        now = trainer.model.get_parameter(name)
        same = now.to(weight.dtype) == weight.to(now.dtype).to(
            weight.dtype
        )  # biases take the type of the products
        assert bool(same.all()) or weight.requires_grad, name


def scaled_by(scale: float, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        trainer_module, "make_scaler", lambda _: torch.amp.GradScaler("cpu", init_scale=scale)
    )


def test_overflow_is_counted(
    task_folder: Path, tmp_path: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change nothing; the loss is scaled by half as much after each, until the gradient
    fits; no divergence.
    """
    spec = spec_of(task_folder, CLASSES, "full", precision="fp16", steps=40)
    scaled_by(2.0**34, monkeypatch)
    prepared, recorder, probe = prepare(spec.settings), Recorder(), GradientProbe()
    run = assemble(spec, prepared, group)
    probe.start(replace(run, folder=tmp_path))
    trainer = Trainer(run, [recorder, probe])
    trainer.train()
    skipped = recorder.values("overflowed")
    count = sum(skipped)
    assert 0 < count < len(skipped)
    assert skipped == [True] * count + [False] * (len(skipped) - count)
    assert trainer.scaler.get_scale() == 2.0 ** (34 - count)
    assert probe.stop()["skipped_steps"] == count
    assert {metric.name for metric in probe.definitions()} == set(probe.stop())
    assert len({*recorder.values("loss")[: count + 1]}) > 1, "other batches, the same model"


def test_a_skipped_step_is_none_of_the_method(
    task_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdaLoRA would count a gradient that overflowed among its importances, NaN for good."""
    spec = spec_of(task_folder, CLASSES, "peft", {"type": "ADALORA"}, precision="fp16", steps=40)
    scaled_by(2.0**30, monkeypatch)
    seen: list[int] = []
    monkeypatch.setattr(
        registry.plugin("methods", "peft"), "after_step", lambda _, __, step: seen.append(step)
    )
    _, run = trained(spec, group)
    skipped = [step.index for step in run.steps if step.overflowed]
    assert skipped
    assert seen == [step for step in range(1, 41) if step not in skipped]


@pytest.mark.parametrize(
    ("method", "options", "more"), [("lora", {}, 0), ("peft", {"type": "ADALORA"}, 1)]
)
def test_a_step_of_adamw_in_fp16_waits_no_more_than_another(
    method: str, options: dict[str, Any], more: int, task_folder: Path, group: Group
) -> None:
    """But where the method acts after a step, and must know whether it was taken."""
    reads = {}
    for precision in ("fp32", "fp16"):
        trainer = trainer_of(
            spec_of(task_folder, CLASSES, method, options, precision=precision), group
        )
        trainer.model.train()
        batches = trainer.order()
        trainer.step(1, next(batches))
        with Counts(
            lambda name, _: name == "aten::_local_scalar_dense"
        ) as seen:  # numbers asked of a tensor
            trainer.step(2, next(batches))
        reads[precision] = seen.count.total()
    assert reads["fp16"] == reads["fp32"] + more


def test_what_is_made_from_data_is_float32_too(task_folder: Path, group: Group) -> None:
    """EVA makes its matrices anew before the training, in the type of the weights."""
    eva = {"type": "EVA", "r": 4}
    trainer, _ = trained(
        spec_of(task_folder, WORDS, "peft", eva, precision="bf16", weights="bfloat16"), group
    )
    assert {weight.dtype for weight in trainer.parameters} == {torch.float32}


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (6, r"overflowed in fp16 in each of the 6 steps; none was"),
        (32, r".*: 31 steps in a row were skipped up to step 31"),
    ],
)
def test_a_gradient_that_always_overflows_has_diverged(
    steps: int, says: str, task_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short run trained nothing; in a longer one halving the scale does not help: the sentence
    says how often.
    """
    spec = spec_of(task_folder, CLASSES, "full", precision="fp16", steps=steps)
    scaled_by(2.0**120, monkeypatch)
    with pytest.raises(Diverged, match=says):
        trained(spec, group)


@pytest.mark.parametrize(
    "error",
    [
        out_of_memory(),
        torch.AcceleratorError("an illegal memory access was encountered", 700),
        RuntimeError(
            "cuDNN Frontend error: [cudnn_frontend] Error: No execution plans support the graph."
        ),
        RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            "cuda:0 and cpu!"
        ),
    ],
)
def test_an_error_of_the_machine_refuses_no_model(
    error: Exception, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In loading, in the forward pass that is tried, in what PEFT builds: nobody's mistake, and
    not `unsupported`.
    """
    places = (
        (model_module.modeling_auto.AutoModelForCausalLM, "from_pretrained"),
        (LlamaForCausalLM, "forward"),
    )
    for owner, name in (*places, (peft_method, "wrap")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, Mock(side_effect=error))
            with pytest.raises(type(error), match=re.escape(str(error))):
                language_models.trained(model_folders["Llama"], "peft", {"type": "IA3"}, steps=0)


def test_learned_positions_are_counted_before_they_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU an index beyond the table ends the process: the table's size decides, virtual
    tokens included.
    """
    shape = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    gpt2 = GPT2Model(GPT2Config(**shape, max_position_embeddings=24))
    roberta = RobertaModel(RobertaConfig(**shape, max_position_embeddings=26, intermediate_size=8))
    for model in (gpt2, roberta):
        assert trial.positions(model, 24) == 24
        monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("tried"))
        assert trial.positions(model, 25) is None
