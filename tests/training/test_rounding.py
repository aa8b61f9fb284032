"""Trained weights in bfloat16: an optimizer's float32 steps, rounded stochastically, alike on all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training.test_sharding import METHODS, NOT_TRIED, method_of

from helpers import tiny
from helpers.loops import run_of, trainer_of
from hpml_bench.plugins.group import Group
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import optimization
from hpml_bench.training.distributed import clip_grad_norm
from hpml_bench.training.optimization import Rounded, make_optimizer, rounded

OPTIMIZERS = ("adamw", "sgd", "lion", "muon", "adamw_8bit")


def neighbours(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of bfloat16 next to float32 values, towards 0 and away from it, by numpy's bits."""
    bits = values.detach().numpy().view(np.uint32)
    below = bits & np.uint32(0xFFFF0000)
    above = np.where(bits == below, below, below + np.uint32(0x10000))
    return torch.from_numpy(below.view(np.float32)), torch.from_numpy(above.view(np.float32))


@given(st.floats(2.0**-100, 2.0**100, width=32), st.booleans(), st.integers(0, 100))
def test_a_value_becomes_one_of_its_neighbours_and_keeps_its_mean(value: float, negative: bool, seed: int) -> None:
    """Up or down with chances by the distance: the mean of 10,000 is within five of its standard errors."""
    values = torch.full((10_000,), -value if negative else value)
    torch.manual_seed(seed)
    found = rounded(values)
    assert found.dtype == torch.bfloat16
    low, high = (float(side[0]) for side in neighbours(values[:1]))
    assert set(found.float().unique().tolist()) <= {low, high}
    step = abs(high - low)
    assert abs(float(found.double().mean()) - float(values[0])) <= 5 * 0.5 * step / 100


def test_not_a_number_stays_so() -> None:
    """Whatever its bits are: those of a GPU, 0x7FFFFFFF, would overflow to those of -0."""
    values = torch.tensor([0x7FFFFFFF, -1, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    assert rounded(values.repeat(100)).isnan().all()


def layers(kind: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96, bias=False), nn.LayerNorm(96), nn.Linear(96, 64))
    for weight in model.parameters():
        start = weight.data.to(torch.bfloat16).to(torch.float32)  # both start from the same values
        weight.data = start.to(kind) if weight.ndim > 1 else start
        weight.grad = torch.randn(weight.shape).to(torch.bfloat16).to(weight.dtype)
    return model


def optimizer_of(model: nn.Module, name: str, kind: str, seed: int = 0) -> torch.optim.Optimizer:
    settings = tiny.settings(
        optimizer={"name": name}, trained_weights=kind, precision="bf16", weight_decay=0.1, device="cpu"
    )
    return make_optimizer(model, nn.Identity(), MethodSpec(name="m", method="full", lr=1e-3), settings, seed)


@pytest.mark.parametrize("together", [1, 1 << 24])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_float32_rounded(name: str, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices move to a neighbour of where float32 ones move, vectors to the same place, however many at a time."""
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(optimization, "STEPPED_TOGETHER", together)
    whole, half = layers(torch.float32), layers(torch.bfloat16)
    optimizer_of(whole, name, "float32").step()
    stepped = optimizer_of(half, name, "bfloat16")
    assert isinstance(stepped, Rounded)
    stepped.step()
    moved = 0
    for (key, expected), found in zip(whole.named_parameters(), half.parameters(), strict=True):
        if expected.ndim == 1:
            assert found.equal(expected), key
            continue
        low, high = neighbours(expected)
        assert found.dtype == torch.bfloat16
        assert ((found.float() == low) | (found.float() == high)).all(), key
        moved += int((found != layers(torch.bfloat16).get_parameter(key)).sum())
    assert moved  # most steps are smaller than the distance of two numbers, and some move all the same
    stepped.zero_grad()
    assert all(weight.grad is None for weight in half.parameters())
    kept = sum(copy.untyped_storage().nbytes() for group in stepped.param_groups for copy in group["params"])
    assert kept <= 4 * len([*half.parameters()]) * 4  # copies have no values between steps


def test_ranks_round_alike_and_seeds_do_not() -> None:
    """The random bits depend on the run's seed and the step alone, not on torch's generator; a state goes on."""
    found = []
    for draws, seed in ((0, 0), (7, 0), (0, 1)):
        model = layers(torch.bfloat16)
        optimizer = optimizer_of(model, "adamw", "bfloat16", seed)
        torch.manual_seed(draws)
        optimizer.step()
        found.append(torch.cat([weight.detach().float().flatten() for weight in model.parameters()]))
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


def test_a_state_goes_on() -> None:
    """Two steps, or one, its state read by another optimizer, and one more: the same bits."""
    for name in OPTIMIZERS:
        if name == "adamw_8bit":
            pytest.importorskip("bitsandbytes")
        twice, anew = layers(torch.bfloat16), layers(torch.bfloat16)
        first, early = optimizer_of(twice, name, "bfloat16"), optimizer_of(anew, name, "bfloat16")
        first.step()
        first.step()
        early.step()
        late = optimizer_of(anew, name, "bfloat16")
        late.load_state_dict(early.state_dict())
        late.step()
        for one, other in zip(twice.parameters(), anew.parameters(), strict=True):
            assert one.equal(other), name


def test_the_norm_of_gradients_in_bfloat16_is_in_float32() -> None:
    """Equal to the norm of the same values in float64 to 1e-5, and the gradients are scaled to the largest norm."""
    weights = [*layers(torch.bfloat16).parameters()]
    values = torch.cat([weight.grad.float().flatten() for weight in weights if weight.grad is not None])
    norm = clip_grad_norm(weights, 1.0)
    assert norm.dtype == torch.float32
    assert float(norm) == pytest.approx(float(values.double().norm()), rel=1e-5)
    assert float(clip_grad_norm(weights, 1.0)) == pytest.approx(1.0, rel=1e-3)


def of_bf16(folder: Path, name: str, task: str = "causal_lm", kind: str = "bfloat16") -> RunSpec:
    return run_of(folder, task, precision="bf16", trained_weights=kind).model_copy(update={"method": method_of(name)})


HERE = ("full", "lora", "adapter", "prompt_tuning", "head", "muon", "qlora")


@pytest.mark.parametrize(
    "name", [*HERE, *(pytest.param(name, marks=pytest.mark.suites) for name in METHODS if name not in HERE)]
)
def test_a_method_trains_so(name: str, group: Group, tmp_path: Path) -> None:
    """Six steps: matrices and gradients in bfloat16, losses close to those of float32 weights, all reached."""
    if name == "qlora":
        pytest.importorskip("bitsandbytes")
    found: list[Any] = []
    for kind in ("float32", "bfloat16"):
        task = "sequence_classification" if name == "head" else "causal_lm"
        trainer = trainer_of(of_bf16(tmp_path, name, task, kind), group)
        trained = trainer.train()
        assert trained.reached == trained.optimized
        found.append([step.loss for step in trainer.seen])
    weights = [weight for weight in trainer.model.encoder.parameters() if weight.requires_grad]
    assert all(weight.dtype == torch.bfloat16 for weight in weights if weight.ndim > 1)
    assert len(found[0]) == 6
    np.testing.assert_allclose(found[1], found[0], rtol=3e-3)


def test_osf_says_why_not(group: Group, tmp_path: Path) -> None:
    """The one type whose gradients must be float32 is unsupported, with the reason."""
    assert "OSF" in NOT_TRIED
    with pytest.raises(Unsupported, match="OSF has no trained_weights in bfloat16: it multiplies gradients"):
        trainer_of(of_bf16(tmp_path, "OSF"), group)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": "fp32"}, "trained_weights bfloat16 need precision bf16, not fp32"),
        ({"weights": "float16"}, "trained_weights bfloat16 need precision bf16, not fp16"),
        ({"precision": "bf16", "sharding": "fsdp", "world_size": 2}, "sharding takes one type of trained weights"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], said: str) -> None:
    """One sentence each."""
    with pytest.raises(ValueError, match=said):
        tiny.settings(**{"precision": "auto", "trained_weights": "bfloat16"} | changes)
