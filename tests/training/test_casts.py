"""What a step leaves out: casts of single weights, DDP of one rank, garbage collections; losses stay as they were."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers import tiny
from helpers.loops import Counts, run_of, trainer_of
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Probe
from hpml_bench.training.distributed import Alone
from hpml_bench.training.kernels import Casts


class Plain(Casts):
    """No copies: autocast casts each weight."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        yield


def steps(folder: Path, group: Group, method: str, task: str, **changes: Any) -> tuple[Any, Any, Counter[str]]:
    """Return losses and norms of three steps, the trained weights, and the operators of the last step."""
    trainer = trainer_of(run_of(folder, task, method, precision="bf16", steps=3, dropout=0.1, **changes), group)
    trainer.model.train()
    trainer.log.begin_window()
    mode = Counts()
    for index, indices in enumerate(trainer.order(), start=1):
        with mode if index == 3 else nullcontext():
            trainer.step(index, indices)
    values = [(step.loss, step.grad_norm) for step in trainer.log.reduce()]
    return values, [weight.detach().clone() for weight in trainer.parameters], mode.count


@pytest.mark.parametrize(("method", "task", "changes"), [
    ("lora", "causal_lm", {}),
    ("full", "causal_lm", {}),
    ("full", "sequence_classification", {"micro_batch": 2}),
    ("lora", "sequence_classification", {"gradient_checkpointing": True}),
])  # fmt: skip
def test_weights_are_cast_at_once(
    method: str, task: str, changes: dict[str, Any], group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, norms and weights are autocast's to the bit, by fewer casts; a weight's layer is as it was afterwards."""
    values, weights, count = steps(tmp_path, group, method, task, **changes)
    monkeypatch.setattr("hpml_bench.training.trainer.Casts", Plain)
    plain, others, many = steps(tmp_path, group, method, task, **changes)
    assert values == plain
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))
    assert count["aten::_to_copy"] + 10 < many["aten::_to_copy"]


@pytest.mark.parametrize("trained", [True, False])
def test_an_input_of_several_layers_is_cast_once(trained: bool) -> None:
    """Queries, keys and values: outputs and gradients are autocast's to the bit; one that was changed is cast anew."""
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(3))
    if not trained:
        layers.requires_grad_(False).to(torch.bfloat16)  # as frozen weights are kept
    casts = Casts(layers, tiny.settings(precision="bf16"))
    found = []
    for context in (casts, nullcontext):
        start = torch.linspace(-1, 1, 32).view(4, 8).requires_grad_()
        mode = Counts()
        with context(), torch.autocast("cpu", dtype=torch.bfloat16):
            x = start * 3
            with mode:
                outputs = [layer(x) for layer in layers]
            with torch.no_grad():
                changed = layers[0](x.add_(1.0))
            sum(output.square().sum() for output in outputs).backward()
        found.append(([*outputs, changed, start.grad], mode.count["aten::_to_copy"]))
    (ours, once), (plain, each) = found
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))
    assert once == 1
    assert each >= 3


def test_a_copy_lives_no_longer_than_its_input() -> None:
    """Else a block that is computed again would stay in memory with its graph until the next one's first cast."""
    layer = nn.Linear(4, 4)
    casts = Casts(nn.Sequential(layer), tiny.settings(precision="bf16"))
    with casts(), torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.ones(2, 4, requires_grad=True) * 3
        output, seen = layer(x), weakref.ref(x)
        del x
        assert seen() is None
        assert casts._input is None
        output.sum().backward()


def test_a_layer_outside_autocast_keeps_its_weights() -> None:
    """As of routers that models compute in float32; and layers are themselves again afterwards."""
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    casts = Casts(layers, tiny.settings(precision="bf16"))
    x = torch.ones(2, 4)
    expected = layers(x)
    with casts():
        assert torch.equal(layers(x), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layers(x).dtype == torch.bfloat16
    assert all("forward" not in vars(layer) for layer in layers)


def test_one_rank_has_no_ddp(group: Group, tmp_path: Path) -> None:
    """Its gradients need no exchange, and DDP would scale each; garbage is collected between windows alone."""
    collecting: list[bool] = []

    class Looks(Probe):
        def before_step(self, index: int) -> None:
            collecting.append(gc.isenabled())

        def wrapped(self, model: nn.Module) -> None:
            raise AssertionError(model)

    trainer = trainer_of(run_of(tmp_path, "sequence_classification", steps=2), group, Looks())
    assert isinstance(trainer.wrapped, Alone)
    trainer.train()
    assert collecting == [False, False]
    assert gc.isenabled()
