"""Sharded runs (FSDP2): losses, gradient norms, saved files and answers are those of DDP; each rank keeps its share."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftType
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from helpers import tiny
from helpers.loops import Recorder, over_ranks
from hpml_bench.builtin.methods.peft import REFUSED as REFUSED_TYPES
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.fit.trace import trace
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.probe import Step
from hpml_bench.plugins.task import make_task
from hpml_bench.records.run import Point
from hpml_bench.suite.settings import MethodSpec, OptimizerSpec, RunSpec, Settings
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import _share_weights, blocks
from hpml_bench.training.model import NOT_SHARDED, build_model
from hpml_bench.training.saving import save_trained
from hpml_bench.training.trainer import Trainer

METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {},
    "adapter": {},
    "prompt_tuning": {},
    "head": {},
    "lion": {"method": "full", "optimizer": OptimizerSpec(name="lion", options={"betas": [0.9, 0.99]})},
    "sgd": {"method": "full", "optimizer": OptimizerSpec(name="sgd", options={"momentum": 0.9, "nesterov": False})},
    "lora_plus": {"method": "lora", "optimizer": OptimizerSpec(name="lora_plus", options={"ratio": 4.0})},
    **{kind: {"method": "peft", "options": {"type": kind}} for kind in ("DORA", "IA3", "OFT", "PREFIX_TUNING", "VERA")},
}
NOT_TRIED = {"ADALORA", *REFUSED_TYPES, *NOT_SHARDED, "TINYLORA", "UNILORA", "VBLORA"}
"""Types of PEFT that are unsupported, sharded or always."""
TYPES = [kind.value for kind in PeftType if kind.value not in {*NOT_TRIED, *METHODS}]
"""The others, beside those above: a part of a type's small tensors may be on every rank."""
METHODS |= {
    kind: {"method": "peft", "options": {"type": kind} | ({"r": 8} if kind == "MISS" else {})} for kind in TYPES
}
REFUSED: dict[str, dict[str, Any]] = {
    "ADALORA": {"method": "peft", "options": {"type": "ADALORA", "tinit": 1, "tfinal": 2, "deltaT": 1}},
    "OSF": {"method": "peft", "options": {"type": "OSF"}},
    "kasa": {"method": "peft", "options": {"type": "LORA", "kasa_config": {"beta": 1e-4}}},
    "adamw_8bit": {"method": "full", "optimizer": OptimizerSpec(name="adamw_8bit")},
    "qlora": {},
    "muon": {"method": "full", "optimizer": OptimizerSpec(name="muon")},
}
RUNS = {
    **{name: ("causal_lm", 2, {}) for name in METHODS if name != "head"},
    "head": ("sequence_classification", 2, {}),
    "four-ranks": ("causal_lm", 4, {"test_samples": 5}),
    "micro-batches": ("token_classification", 2, {"micro_batch": 2, "gradient_checkpointing": True}),
    "bf16": ("causal_lm", 2, {"precision": "bf16", "micro_batch": 2}),
}


class Watch(Recorder):
    """Keeps the share of the weights' bytes that is on this rank between steps, too.

    And the most blocks that are whole at the end of one's pass in the evaluations while training.
    """

    whole = 0

    def before_training(self) -> None:
        self.hooks = [block.register_forward_hook(self.look) for block in blocks(self.run.model)]

    def look(self, *_: object) -> None:
        if not self.run.model.training:
            found = [any(not isinstance(w, DTensor) for w in block.parameters()) for block in blocks(self.run.model)]
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
    return MethodSpec(name=name, **{"method": name if name in METHODS | REFUSED else "lora", "lr": 1e-3} | own)


def specs(folder: Path, name: str) -> list[tuple[RunSpec, Prepared]]:
    """Return a run without sharding, and with it."""
    task, world, more = RUNS[name]
    found: list[Settings] = [
        tiny.task_settings(folder, task, world_size=world, sharding=kind, **more) for kind in ("none", "fsdp")
    ]
    return [
        (RunSpec(suite="tiny", settings=settings, method=method_of(name), seed=0), prepare(settings))
        for settings in found
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
                torch.save((steps, watch.share, watch.whole, watch.evaluations[-1].predictions), where / "found.pt")


def do(folder: Path, names: Iterable[str]) -> Path:
    """Do runs with and without sharding, those of each number of ranks one after another; return where they lie."""
    for world in {RUNS[name][1] for name in names}:
        over_ranks(world, do_all, {name: specs(folder, name) for name in names if RUNS[name][1] == world}, folder)
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what came of all runs but those of further types."""
    return do(tmp_path_factory.mktemp("sharding"), [name for name in RUNS if name not in TYPES])


@pytest.fixture(scope="module")
def types_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what came of all types of PEFT that can be sharded."""
    return do(tmp_path_factory.mktemp("types"), TYPES)


@pytest.mark.parametrize("name", [name for name in RUNS if name not in TYPES])
def test_a_sharded_run_is_the_same_run(done: Path, name: str) -> None:
    """Losses and norms over six steps, losses and answers of test rows, and saved files; each rank has its share."""
    assert_equal(done, name)


@pytest.mark.suites
@pytest.mark.parametrize("name", TYPES)
def test_a_sharded_type_of_peft_is_the_same(types_done: Path, name: str) -> None:
    """The same of every type that isn't refused."""
    assert_equal(types_done, name)


def assert_equal(done: Path, name: str) -> None:
    (steps, _, _, plain), (own, share, whole, sharded) = (
        torch.load(done / f"{name}-{kind}" / "found.pt", weights_only=False) for kind in ("none", "fsdp")
    )
    assert len(steps[0]) == 6
    assert whole <= 1
    close = 1e-6 if name != "bf16" else 1e-5
    torch.testing.assert_close(torch.tensor(own), torch.tensor(steps), rtol=close, atol=0)
    torch.testing.assert_close(torch.tensor(sharded.loss), torch.tensor(plain.loss), rtol=1e-5, atol=1e-6)
    assert str(sharded.prediction) == str(plain.prediction)
    assert plain.texts is None or sharded.texts.answer == plain.texts.answer
    assert share < 1 / RUNS[name][1] + 0.3 if name in TYPES else share == pytest.approx(1 / RUNS[name][1], rel=0.1)
    files = [path.relative_to(done / f"{name}-none") for path in (done / f"{name}-none").rglob("*.safetensors")]
    assert files
    for file in files:
        known, saved = load_file(done / f"{name}-none" / file), load_file(done / f"{name}-fsdp" / file)
        assert saved.keys() == known.keys()
        for key, weight in known.items():
            torch.testing.assert_close(saved[key], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_sharded_says_why(tmp_path: Path, name: str) -> None:
    """Methods and optimizers that need whole matrices are unsupported, with the reason; on one rank they run."""
    for ranks, outcome in ((2, pytest.raises(Unsupported, match="can't be sharded: ")), (1, nullcontext())):
        settings = tiny.task_settings(tmp_path, "causal_lm", world_size=ranks, sharding="fsdp")
        spec = RunSpec(suite="tiny", settings=settings, method=method_of(name), seed=0)
        with outcome:
            build_model(tmp_path / "model", spec, make_method(spec.method), make_task(settings.task, ()))


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


def test_sharding_takes_no_loss_scale() -> None:
    """Ranks would skip different steps in fp16."""
    with pytest.raises(ValueError, match="take bf16"):
        tiny.settings(sharding="fsdp", precision="fp16")


def test_a_forecast_counts_a_ranks_share(tmp_path: Path) -> None:
    """Weights, gradients and optimizer states are a quarter on four ranks while training; all weights after it."""
    found = {}
    for spec, prepared in specs(tmp_path, "four-ranks"):
        full = spec.model_copy(update={"method": method_of("full")})
        found[spec.settings.sharding] = trace(full, prepared)
    one, four = found["none"], found["fsdp"]
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(four, part) == pytest.approx(getattr(one, part) / 4, rel=0.05)
    assert four.buckets == 0
    batch = one.evaluation - one.held
    assert one.weights < four.evaluation - batch < one.weights + four.held  # some blocks are not whole beside the share
    assert four.held < four.step < one.step
