"""Sharded runs (FSDP2) are those of DDP, each rank with its share; and trained weights in
bfloat16.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftType
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor

from helpers import tiny
from helpers.loops import Recorder, over_ranks, run_of, trainer_of
from hpml_bench.builtin.methods.peft import REFUSED as REFUSED_TYPES
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.fit.trace import AFTER, _traced, trace
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.probe import Step
from hpml_bench.plugins.task import make_task
from hpml_bench.records.run import Point
from hpml_bench.suite.settings import MethodSpec, OptimizerSpec, RunSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import optimization
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import _share_weights, blocks, clip_grad_norm
from hpml_bench.training.model import NOT_SHARDED, build_model
from hpml_bench.training.optimization import Rounded, make_optimizer, rounded
from hpml_bench.training.saving import save_trained
from hpml_bench.training.trainer import Trainer

METHODS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("full", "lora", "adapter", "prompt_tuning", "head")},
    "lion": {
        "method": "full",
        "optimizer": OptimizerSpec(name="lion", options={"betas": [0.9, 0.99]}),
    },
    "sgd": {
        "method": "full",
        "optimizer": OptimizerSpec(name="sgd", options={"momentum": 0.9, "nesterov": False}),
    },
    "lora_plus": {
        "method": "lora",
        "optimizer": OptimizerSpec(name="lora_plus", options={"ratio": 4.0}),
    },
}
NOT_TRIED = {"ADALORA", *REFUSED_TYPES, *NOT_SHARDED, "TINYLORA", "UNILORA", "VBLORA"}
"""Types of PEFT that are unsupported, sharded or always."""
TYPES = ["DORA", *(kind.value for kind in PeftType if kind.value not in NOT_TRIED)]
"""The others: a part of a type's small tensors may be on every rank."""
METHODS |= {
    of: {"method": "peft", "options": {"type": of} | ({"r": 8} if of == "MISS" else {})}
    for of in TYPES
}
REFUSED: dict[str, dict[str, Any]] = {
    "ADALORA": {
        "method": "peft",
        "options": {"type": "ADALORA", "tinit": 1, "tfinal": 2, "deltaT": 1},
    },
    "OSF": {"method": "peft", "options": {"type": "OSF"}},
    "kasa": {"method": "peft", "options": {"type": "LORA", "kasa_config": {"beta": 1e-4}}},
    "adamw_8bit": {"method": "full", "optimizer": OptimizerSpec(name="adamw_8bit")},
    "qlora": {},
    "muon": {"method": "full", "optimizer": OptimizerSpec(name="muon")},
}
RUNS = {
    **{name: ("causal_lm", 2, {}) for name in METHODS if name != "head"},
    "head": ("sequence_classification", 2, {}),
    "a-rank-without-rows": ("causal_lm", 2, {"validation_samples": 1, "eval_every": 2}),
    "four-ranks": ("causal_lm", 4, {"test_samples": 5}),
    "micro-batches": (
        "token_classification",
        2,
        {"micro_batch": 2, "gradient_checkpointing": True},
    ),
    "bf16": ("causal_lm", 2, {"precision": "bf16", "micro_batch": 2}),
}


class Watch(Recorder):
    """Keeps this rank's share of the weights' bytes between steps, and the most blocks whole at
    once in evaluations.
    """

    whole = 0

    def before_training(self) -> None:
        self.hooks = [block.register_forward_hook(self.look) for block in blocks(self.run.model)]

    def look(self, *_: object) -> None:
        if not self.run.model.training:
            found = [
                any(not isinstance(w, DTensor) for w in block.parameters())
                for block in blocks(self.run.model)
            ]
            self.whole = max(self.whole, sum(found))

    def after_training(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def after_steps(self, window: list[Step]) -> list[Point]:
        weights = [*self.run.model.parameters()]
        here = sum(getattr(weight, "_local_tensor", weight).nbytes for weight in weights)
        self.share = here / sum(weight.nbytes for weight in weights)
        return super().after_steps(window)


def method_of(name: str) -> MethodSpec:
    own = (METHODS | REFUSED).get(name, {})
    return MethodSpec(
        name=name, **{"method": name if name in METHODS | REFUSED else "lora", "lr": 1e-3} | own
    )


def specs(folder: Path, name: str) -> list[tuple[RunSpec, Prepared]]:
    """Return a run without sharding, and with it."""
    task, world, more = RUNS[name]
    made = (
        tiny.task_settings(folder, task, world_size=world, sharding=kind, **more)
        for kind in ("none", "fsdp")
    )
    return [
        (RunSpec(suite="tiny", settings=of, method=method_of(name), seed=0), prepare(of))
        for of in made
    ]


def do_all(group: Group, runs: dict[str, list[tuple[RunSpec, Prepared]]], folder: Path) -> None:
    """Do each run, evaluate its test rows, and on rank 0 save what came of it."""
    for name, pair in runs.items():
        for spec, prepared in pair:
            watch, run = Watch(), assemble(spec, prepared, group)
            watch.run = run
            trainer = Trainer(run, [watch])
            trainer.train()
            trainer.evaluate(run.test, "test", run.steps)
            if group.main:
                where = folder / f"{name}-{spec.settings.sharding}"
                save_trained(run.model, run.method, spec, prepared, where)
                steps = [watch.values("loss"), watch.values("grad_norm")]
                torch.save(
                    (steps, watch.share, watch.whole, watch.evaluations[-1].predictions),
                    where / "found.pt",
                )


def do(folder: Path, names: Iterable[str]) -> Path:
    """Do runs with and without sharding, those of each number of ranks one after another; return
    where they lie.
    """
    for world in {RUNS[name][1] for name in names}:
        over_ranks(
            world,
            do_all,
            {name: specs(folder, name) for name in names if RUNS[name][1] == world},
            folder,
        )
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return do(tmp_path_factory.mktemp("sharding"), [name for name in RUNS if name not in TYPES])


@pytest.fixture(scope="module")
def types_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return do(tmp_path_factory.mktemp("types"), TYPES)


@pytest.mark.parametrize(
    "name", [pytest.param(of, marks=[pytest.mark.suites] * (of in TYPES)) for of in RUNS]
)
def test_a_sharded_run_is_the_same_run(request: pytest.FixtureRequest, name: str) -> None:
    """Losses and norms over six steps, losses and answers of test rows, and saved files; each
    rank has its share.
    """
    done = request.getfixturevalue("types_done" if name in TYPES else "done")
    folders = {kind: done / f"{name}-{kind}" for kind in ("none", "fsdp")}
    (steps, _, _, plain), (own, share, whole, sharded) = (
        torch.load(folder / "found.pt", weights_only=False) for folder in folders.values()
    )
    assert len(steps[0]) == 6
    assert whole <= 1
    close = 1e-6 if name != "bf16" else 1e-5
    torch.testing.assert_close(torch.tensor(own), torch.tensor(steps), rtol=close, atol=0)
    torch.testing.assert_close(
        torch.tensor(sharded.loss), torch.tensor(plain.loss), rtol=1e-5, atol=1e-6
    )
    assert str(sharded.prediction) == str(plain.prediction)
    assert plain.texts is None or sharded.texts.answer == plain.texts.answer
    assert (
        share < 1 / RUNS[name][1] + 0.3
        if name in TYPES
        else share == pytest.approx(1 / RUNS[name][1], rel=0.1)
    )
    files = [path.relative_to(folders["none"]) for path in folders["none"].rglob("*.safetensors")]
    assert files
    for file in files:
        known, saved = (load_file(folder / file) for folder in folders.values())
        assert saved.keys() == known.keys()
        for key, weight in known.items():
            torch.testing.assert_close(saved[key], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_sharded_says_why(tmp_path: Path, name: str) -> None:
    """Methods and optimizers that need whole matrices are unsupported, with the reason; on one
    rank they run.
    """
    for ranks, outcome in (
        (2, pytest.raises(Unsupported, match="can't be sharded: ")),
        (1, nullcontext()),
    ):
        settings = tiny.task_settings(tmp_path, "causal_lm", world_size=ranks, sharding="fsdp")
        spec = RunSpec(suite="tiny", settings=settings, method=method_of(name), seed=0)
        with outcome:
            build_model(
                tmp_path / "model", spec, make_method(spec.method), make_task(settings.task, ())
            )


@pytest.mark.parametrize(("kind", "share"), [("LORA", False), ("VBLORA", True)])
def test_blocks_that_share_weights_are_seen(tmp_path: Path, kind: str, share: bool) -> None:
    """FSDP would give each block its own; embeddings tied to the output layer are in no block."""
    settings = tiny.task_settings(tmp_path, "causal_lm")
    method = MethodSpec(name=kind, method="peft", lr=1e-3, options={"type": kind})
    spec = RunSpec(suite="tiny", settings=settings, method=method, seed=0)
    model = build_model(tmp_path / "model", spec, make_method(method), make_task(settings.task, ()))
    found = [*blocks(model)]
    assert len(found) == model.encoder.config.get_text_config().num_hidden_layers
    assert _share_weights(model, found) == share


def test_a_forecast_counts_a_ranks_share(tmp_path: Path) -> None:
    """Weights, gradients and optimizer states are a quarter on four ranks while training; all
    weights after it.
    """
    found = {}
    for spec, prepared in specs(tmp_path, "four-ranks"):
        full = spec.model_copy(update={"method": method_of("full")})
        found[spec.settings.sharding] = trace(full, prepared)
    one, four = found["none"], found["fsdp"]
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(four, part) == pytest.approx(getattr(one, part) / 4, rel=0.05)
    assert four.buckets == 0
    batch = one.evaluation - one.held
    assert (
        one.weights < four.evaluation - batch < one.weights + four.held
    )  # some blocks aren't whole beside all states
    assert four.held < four.step < one.step


def test_a_forecast_counts_the_whole_copy_after_training(tmp_path: Path) -> None:
    """Test rows are evaluated with all weights on each rank, beside its share: of many ranks this
    is the most that an evaluation takes.
    """
    _, (spec, prepared) = specs(tmp_path, "four-ranks")
    changes = {"world_size": 16, "global_batch": 16, "eval_batch": 1}
    settings = spec.settings.model_copy(update=changes)
    full = spec.model_copy(update={"method": method_of("full"), "settings": settings})
    traced = _traced(full, prepared, None)
    share = traced.sizes["weights"]
    after_training = traced.peaks[AFTER].most.bytes
    # a share is rounded up for each weight
    assert after_training > 0.99 * (16 * share) + share
    assert after_training > traced.peaks["evaluation"].most.bytes
    assert traced.footprint().evaluation >= after_training
    assert traced.footprint().peak >= after_training


# Trained weights in bfloat16: an optimizer's float32 steps, rounded stochastically, alike on all
# ranks


OPTIMIZERS = ("adamw", "sgd", "lion", "muon", "adamw_8bit")


def neighbours(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of bfloat16 next to float32 values, towards 0 and away from it, by
    numpy's bits.
    """
    bits = values.detach().numpy().view(np.uint32)
    below = bits & np.uint32(0xFFFF0000)
    above = np.where(bits == below, below, below + np.uint32(0x10000))
    return torch.from_numpy(below.view(np.float32)), torch.from_numpy(above.view(np.float32))


@given(st.floats(2.0**-100, 2.0**100, width=32), st.booleans(), st.integers(0, 100))
def test_a_value_becomes_one_of_its_neighbours_and_keeps_its_mean(
    value: float, negative: bool, seed: int
) -> None:
    """Up or down with chances by the distance: the mean of 10,000 is within five of its standard
    errors.
    """
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
        optimizer={"name": name}, trained_weights=kind, precision="bf16", weight_decay=0.1
    )
    return make_optimizer(
        model, nn.Identity(), MethodSpec(name="m", method="full", lr=1e-3), settings, seed
    )


@pytest.mark.parametrize("together", [1, 1 << 24])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_float32_rounded(
    name: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matrices move to a neighbour of where float32 ones move, vectors to the same place,
    however many at a time.
    """
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
    assert (
        moved
    )  # most steps are smaller than the distance of two numbers, and some move all the same
    stepped.zero_grad()
    assert all(weight.grad is None for weight in half.parameters())
    kept = sum(
        copy.untyped_storage().nbytes()
        for group in stepped.param_groups
        for copy in group["params"]
    )
    assert kept <= 4 * len([*half.parameters()]) * 4  # copies have no values between steps


def test_ranks_round_alike_and_seeds_do_not() -> None:
    """The random bits depend on the run's seed and the step alone, not on torch's generator; a
    state goes on.
    """
    found = []
    for draws, seed in ((0, 0), (7, 0), (0, 1)):
        model = layers(torch.bfloat16)
        optimizer = optimizer_of(model, "adamw", "bfloat16", seed)
        torch.manual_seed(draws)
        optimizer.step()
        found.append(
            torch.cat([weight.detach().float().flatten() for weight in model.parameters()])
        )
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
    """Equal to the norm of the same values in float64 to 1e-5, and the gradients are scaled to
    the largest norm.
    """
    weights = [*layers(torch.bfloat16).parameters()]
    values = torch.cat(
        [weight.grad.float().flatten() for weight in weights if weight.grad is not None]
    )
    norm = clip_grad_norm(weights, 1.0)
    assert norm.dtype == torch.float32
    assert float(norm) == pytest.approx(float(values.double().norm()), rel=1e-5)
    assert float(clip_grad_norm(weights, 1.0)) == pytest.approx(1.0, rel=1e-3)


def of_bf16(folder: Path, name: str, task: str = "causal_lm", kind: str = "bfloat16") -> RunSpec:
    return run_of(folder, task, precision="bf16", trained_weights=kind).model_copy(
        update={"method": method_of(name)}
    )


HERE = ("full", "lora", "adapter", "prompt_tuning", "head", "muon", "qlora", "OSF")


@pytest.mark.parametrize(
    "name",
    [
        *HERE,
        *(pytest.param(name, marks=pytest.mark.suites) for name in METHODS if name not in HERE),
    ],
)
def test_a_method_trains_so(name: str, group: Group, tmp_path: Path) -> None:
    """Six steps: matrices and gradients in bfloat16, losses close to those of float32 weights, all
    reached.

    The one type whose gradients must be float32 is unsupported, with the reason.
    """
    if name == "qlora":
        pytest.importorskip("bitsandbytes")
    if name == "OSF":
        with pytest.raises(
            Unsupported, match="OSF has no trained_weights in bfloat16: it multiplies gradients"
        ):
            trainer_of(of_bf16(tmp_path, name), group)
        return
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
