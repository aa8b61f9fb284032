"""Optimizers: each against the one outside that it is, on the same gradients, and each training
methods and tasks.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers import tiny
from helpers.commands import called
from helpers.loops import run_of, trainer_of
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import check_methods
from hpml_bench.plugins.optimizer import choose_optimizer
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.training.optimization import make_optimizer
from hpml_bench.training.trainer import Trainer

NAMES = registry.names("optimizers")
LR, HEAD_LR = 1e-2, 3e-3


class Small(nn.Module):
    """An encoder with one parameter of each kind: embedding, hidden matrix, bias, norm, vector
    of two dimensions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.hidden = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.ones(1, 8))
        self.frozen = nn.Parameter(torch.ones(8, 8), requires_grad=False)


def small() -> tuple[Small, nn.Linear]:
    """Return such an encoder and a head, always with the same weights."""
    torch.manual_seed(0)
    return Small(), nn.Linear(8, 3)


def trained(*modules: nn.Module) -> dict[str, Tensor]:
    named = (item for module in modules for item in module.named_parameters())
    return {name: weight for name, weight in named if weight.requires_grad}


def moved(weights: Iterable[Tensor], step: Callable[[], Any], steps: int = 5) -> list[Tensor]:
    """Take steps with gradients that depend on the step and the place alone; return where the
    weights are.
    """
    weights = list(weights)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        step()
    return [weight.detach().clone() for weight in weights]


def ours(name: str, options: dict[str, Any] | None = None, **changes: Any) -> torch.optim.Optimizer:
    """Return the optimizer of such an encoder and head; they are in its groups."""
    encoder, head = small()
    settings = tiny.settings(
        optimizer={"name": name, "options": options or {}}, head_lr=HEAD_LR, **changes
    )
    return make_optimizer(encoder, head, MethodSpec(name="m", method="full", lr=LR), settings)


def path(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return moved(weights, optimizer.step)


def plain(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]) -> list[Tensor]:
    """Take the same steps with an optimizer made of two groups, of the encoder's and of the
    head's parameters.
    """
    encoder, head = small()
    groups = [
        {"params": [*trained(encoder).values()], "lr": LR},
        {"params": [*head.parameters()], "lr": HEAD_LR},
    ]
    return path(make(groups))


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Tell whether all are equal, bit for bit, and have moved at all."""
    start = [*trained(*small()).values()]
    assert not any(one.equal(other) for one in found for other in start if one.shape == other.shape)
    return len(found) == len(expected) and all(
        one.equal(other) for one, other in zip(found, expected, strict=True)
    )


# Against those outside


def test_adamw_is_torchs() -> None:
    """Fused, with the betas, epsilon and weight decay of the settings, to the bit."""
    expected = plain(
        lambda g: torch.optim.AdamW(g, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, fused=True)
    )
    assert same(path(ours("adamw", betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)), expected)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.0}, {"momentum": 0.8, "nesterov": True}])
def test_sgd_is_torchs(options: dict[str, Any]) -> None:
    """With and without momentum, to the bit; all parameters count as reached, of which plain SGD
    keeps no state.
    """
    given = {"momentum": 0.9} | options
    optimizer = ours("sgd", options, weight_decay=0.1)
    assert same(path(optimizer), plain(lambda g: torch.optim.SGD(g, weight_decay=0.1, **given)))
    assert set(optimizer.state) == {
        weight for group in optimizer.param_groups for weight in group["params"]
    }


def test_lion_is_the_papers() -> None:
    """Algorithm 2 of Chen et al. 2023, written out in float64; by default its betas, whatever
    AdamW's are.
    """
    assert {group["betas"] for group in ours("lion", betas=(0.5, 0.6)).param_groups} == {
        (0.9, 0.99)
    }
    encoder, head = small()
    optimizer = ours("lion", {"betas": (0.8, 0.95)}, weight_decay=0.1)
    starts = [weight.detach().double().numpy() for weight in trained(encoder, head).values()]
    rates = [LR] * len(trained(encoder)) + [HEAD_LR] * 2
    generator, momenta = (
        torch.Generator().manual_seed(1),
        [np.zeros_like(start) for start in starts],
    )
    for _ in range(5):
        for place, (lr, m) in enumerate(zip(rates, momenta, strict=True)):
            g = torch.randn(starts[place].shape, generator=generator).double().numpy()
            direction = np.sign(0.8 * m + (1 - 0.8) * g)
            starts[place] = starts[place] - lr * (direction + 0.1 * starts[place])
            momenta[place] = 0.95 * m + (1 - 0.95) * g
    for found, expected in zip(path(optimizer), starts, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
def test_muon_is_torchs_with_adamw_beside_it(adjust: str) -> None:
    """The hidden matrix is torch's Muon's, all else torch's AdamW's, each at its rate, to the
    bit.
    """
    optimizer = ours(
        "muon", {"adjust_lr": adjust, "momentum": 0.9, "adamw_lr": 5e-3}, weight_decay=0.1, eps=1e-6
    )
    encoder, head = small()
    weights = trained(encoder)
    matrix = weights.pop("hidden.weight")
    one = torch.optim.Muon([matrix], lr=LR, weight_decay=0.1, momentum=0.9, adjust_lr_fn=adjust)
    groups = [
        {"params": [*weights.values()], "lr": 5e-3},
        {"params": [*head.parameters()], "lr": HEAD_LR},
    ]
    other = torch.optim.AdamW(groups, weight_decay=0.1, eps=1e-6, fused=True)

    def step() -> None:
        one.step()
        other.step()

    assert same(path(optimizer), moved([matrix, *weights.values(), *head.parameters()], step))
    assert optimizer.param_groups[0]["lr"] == LR


def test_adamw_8bit_is_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit; moments are of 8 bits from `min_8bit_size` values on; it waits for no GPU
    after each parameter.
    """
    bitsandbytes = pytest.importorskip("bitsandbytes")
    waits: list[Tensor] = []
    monkeypatch.setattr(bitsandbytes.optim.optimizer, "sync_gpu", waits.append)
    optimizer = ours("adamw_8bit", {"min_8bit_size": 48}, weight_decay=0.1, eps=1e-6)
    made, found = bitsandbytes.optim.AdamW8bit, path(optimizer)
    assert not waits
    assert same(found, plain(lambda g: made(g, weight_decay=0.1, eps=1e-6, min_8bit_size=48)))
    assert waits
    kinds = {
        tuple(weight.shape): state["state1"].dtype for weight, state in optimizer.state.items()
    }
    assert kinds[8, 6] == torch.uint8
    assert kinds[3, 8] == torch.float32


def peft_model(**options: Any) -> Any:
    """Return a small GPT-2 with LoRA on its layers and on its embeddings."""
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(vocab_size=20, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    config = LoraConfig(
        r=2, target_modules=["wte", "c_attn", "c_proj"], fan_in_fan_out=True, **options
    )
    return get_peft_model(model, config)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_lora_plus_is_pefts(options: dict[str, Any]) -> None:
    """The groups of `create_loraplus_optimizer`, and the same steps."""
    from peft.optimizers import create_loraplus_optimizer

    def rates(model: Any, groups: list[dict[str, Any]]) -> dict[str, float]:
        names = {id(weight): name for name, weight in model.named_parameters()}
        return {names[id(weight)]: group["lr"] for group in groups for weight in group["params"]}

    method = MethodSpec(name="lora", method="lora", lr=LR)
    settings = tiny.settings(
        optimizer={"name": "lora_plus", "options": {"ratio": 8}}, weight_decay=0.1
    )
    model, other = peft_model(**options), peft_model(**options)
    made = make_optimizer(model, nn.Identity(), method, settings)
    kind, given = (
        torch.optim.AdamW,
        {"loraplus_lr_ratio": 8, "loraplus_weight_decay": 0.1, "fused": True},
    )
    expected = create_loraplus_optimizer(other, kind, lr=LR, **given)
    found = rates(model, made.param_groups)
    assert found == rates(other, expected.param_groups)
    assert set(found.values()) == {LR, 8 * LR, 1e-6}
    assert made.param_groups[0]["lr"] == LR
    paths = [
        moved(trained(one).values(), by.step) for one, by in ((model, made), (other, expected))
    ]
    assert all(one.equal(two) for one, two in zip(*paths, strict=True))


def test_muon_takes_hidden_matrices_only() -> None:
    """Of GPT-2 and of LoRA on it: no embedding, LoRA's of one neither, no output layer, bias or
    norm.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    chosen = choose_optimizer(
        MethodSpec(name="m", method="full", lr=LR), tiny.settings(optimizer="muon")
    )

    def of_muon(model: Any) -> set[str]:
        first = {id(weight) for weight in chosen.groups(model, LR)[0]["params"]}
        return {name for name, weight in model.named_parameters() if id(weight) in first}

    config = GPT2Config(
        vocab_size=20, n_positions=8, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=False
    )
    layers = {
        f"transformer.h.0.{name}.weight"
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert of_muon(GPT2LMHeadModel(config)) == layers
    found = of_muon(peft_model())
    assert len(found) == 2 * 3
    assert all("lora_A" in name or "lora_B" in name for name in found)


# As parts of a run

TASKS = ("sequence_classification", "causal_lm")
UNFIT = {("muon", "prompt_tuning"), ("muon", "peft")}
"""Pairs that are refused; `peft` is IA3, whose parameters are vectors of two dimensions."""


TRAINED = [
    *((name, "lora", TASKS[1]) for name in NAMES),
    *(("muon", method, TASKS[1]) for method in ("full", "adapter", "prompt_tuning", "peft")),
    *((name, "peft", TASKS[1]) for name in ("sgd", "lion")),
    *((name, method, TASKS[0]) for name in ("muon", "lora_plus") for method in ("lora", "head")),
]
"""Optimizers, methods and tasks: LoRA's by each, and each kind of parameter by Muon; a head
beside LoRA, and alone.
"""


def build(folder: Path, task: str, method: str, optimizer: str, group: Group) -> Trainer:
    """Return the trainer of such a run with another method and optimizer."""
    if optimizer == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    options = {"size": 8} if method == "adapter" else {}  # of two units none may be alive
    few = {"steps": 3, "validation_samples": 8, "test_samples": 8}
    return trainer_of(run_of(folder, task, method, options, LR, optimizer=optimizer, **few), group)


@pytest.mark.parametrize(("name", "method", "task"), TRAINED)
def test_an_optimizer_trains_a_method(
    name: str, method: str, task: str, task_folder: Path, group: Group
) -> None:
    """In three steps all that is trained moves and nothing else, and all of it is held and
    reached; or it's refused.
    """
    if (name, method) in UNFIT:
        with pytest.raises(Unsupported, match="the method trains none"):
            build(task_folder, task, method, name, group)
        return
    trainer = build(task_folder, task, method, name, group)
    before = {key: weight.clone() for key, weight in trainer.model.named_parameters()}
    done = trainer.train()
    after = dict(trainer.model.named_parameters())
    changed = {key for key, weight in after.items() if not weight.equal(before[key])}
    assert changed == {key for key, weight in after.items() if weight.requires_grad}
    assert all(weight.isfinite().all() for weight in after.values())
    count = sum(weight.numel() for weight in after.values() if weight.requires_grad)
    assert (done.optimized, done.reached) == (count, count)


@pytest.mark.parametrize("name", ["muon", "lora_plus"])
def test_a_schedule_scales_all_rates(name: str, task_folder: Path, group: Group) -> None:
    """The first group has the method's rate and the last the head's, before the first step and
    halfway down.
    """
    trainer = build(task_folder, TASKS[0], "lora", name, group)
    groups = trainer.optimizer.param_groups
    first = [part["lr"] for part in groups]
    assert (first[0], first[-1]) == (LR, trainer.settings.head_lr)
    for index, indices in enumerate(list(trainer.order())[:2], start=1):
        trainer.model.train()
        trainer.step(index, indices)
    assert [part["lr"] for part in groups] == pytest.approx([lr / 2 for lr in first])


# What can't be


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["optimizer=lyon"],
            "there is no optimizer 'lyon'; registered are adamw, adamw_8bit, lion",
        ),
        (
            ["optimizer=lion", "optimizer.options.beta=1"],
            "optimizer.options: beta is not known; did you mean betas?",
        ),
        (["optimizer=sgd", "optimizer.options.momentum=2"], "optimizer.options: momentum is 2"),
        (
            ["optimizer=sgd", "optimizer.options={momentum: 0, nesterov: true}"],
            "nesterov needs a momentum above 0",
        ),
        (
            ["methods.lora.optimizer={name: muon, options: {lr: 1}}"],
            "suite colours: methods.lora.optimizer.options: lr is not known",
        ),
        (
            ["schedule=wsd", "lr_warmup=0.5", "lr_decay=0.6"],
            "lr_warmup 0.5 and lr_decay 0.6 are together more",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(
    overrides: list[str], words: str, tmp_path: Path
) -> None:
    """One sentence with the name, status 2, no results."""
    suite = tiny.local_suite(tmp_path)
    options = [part for override in overrides for part in ("--set", override)]
    done = called("run-all", suite, "--out", tmp_path / "out", "--wandb", "off", *options, status=2)
    assert words in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_missing_bitsandbytes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how it is installed; methods that train nothing need none."""
    monkeypatch.setattr("hpml_bench.plugins.method.find_spec", lambda _: None)
    settings = tiny.settings(optimizer="adamw_8bit")
    check_methods([MethodSpec(name="base", method="none", lr=1)], settings)
    with pytest.raises(
        UserError, match=r"adamw_8bit needs one more package: .*pip install .bitsandbytes"
    ):
        check_methods([MethodSpec(name="lora", method="lora", lr=LR)], settings)
