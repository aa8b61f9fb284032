"""What is faster must compute the same: activations, dropout, attention, frozen weights, casts."""

import gc
import weakref
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support_table
import torch
from torch import nn
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from helpers import tiny
from helpers.classifiers import build
from helpers.loops import Counts, run_of, trainer_of
from hpml_bench.builtin.methods import peft
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Probe
from hpml_bench.suite import registry
from hpml_bench.training import kernels
from hpml_bench.training.kernels import Casts

BACKBONES = support_table.BACKBONES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [kernels.SMALL // 2, 400_001])
def test_dropout_drops_the_share_asked_for_and_scales_the_rest(
    dtype: torch.dtype, size: int
) -> None:
    """Of n ones, n p are dropped (within five standard deviations) and the others are 1 / (1 -
    p), as gradients are.
    """
    torch.manual_seed(0)
    values = torch.ones(size, dtype=dtype, requires_grad=True)
    output = kernels.apply_dropout(values, 0.1)
    output.sum().backward()
    assert torch.equal(values.grad, output)
    dropped = int((output == 0).sum())
    assert abs(dropped - 0.1 * size) < 5 * (0.09 * size) ** 0.5
    assert output.unique().numel() == 2
    assert output.max() == torch.tensor(1 / 0.9, dtype=dtype)


@pytest.mark.parametrize(
    ("p", "most"), [(1 - 2**-16, 60), (1 - 2**-17, 20), (0.999999, 20), (1.0, 0)]
)
def test_dropout_of_nearly_everything(p: float, most: int) -> None:
    """A p that rounds to 1 keeps next to nothing, and 1 nothing."""
    torch.manual_seed(0)
    assert all(
        int((kernels.apply_dropout(torch.ones(size), p) != 0).sum()) <= most
        for size in (4096, 400_001)
    )


def test_dropout_depends_on_torchs_generator_alone() -> None:
    """The same seed gives the same mask, the next call another; in evaluation nothing is
    dropped.
    """
    layer, values = kernels.Dropout(0.3), torch.ones(100_000)
    torch.manual_seed(7)
    first, second = layer(values), layer(values)
    torch.manual_seed(7)
    assert torch.equal(layer(values), first)
    assert not torch.equal(first, second)
    assert torch.equal(layer.eval()(values), values)


def test_dropout_masks_have_no_pattern() -> None:
    """Neighbours, and elements one 64-bit word apart, are dropped independently: the share of
    pairs is p squared.
    """
    torch.manual_seed(1)
    gone = kernels.apply_dropout(torch.ones(1_000_000), 0.2) == 0
    for distance in (1, 2, 3, 4, 8):
        share = (gone[distance:] & gone[:-distance]).double().mean().item()
        assert abs(share - 0.04) < 5 * (0.04 * 0.96 / 1e6) ** 0.5


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("masked", ["padding", "causal", "none"])
def test_our_attention_is_torchs(
    monkeypatch: pytest.MonkeyPatch, heads: int, masked: str, kind: torch.dtype
) -> None:
    """With dropout's effect taken out, outputs and gradients are those of torch's in float32, to
    bf16's roundings.
    """
    monkeypatch.setattr(kernels, "apply_dropout", lambda values, _: values)
    torch.manual_seed(0)
    mask = None
    if masked == "padding":
        mask = (torch.arange(21) < torch.tensor([21, 9, 1])[:, None])[:, None, None, :].expand(
            3, 1, 21, 21
        )
    module = SimpleNamespace(is_causal=masked == "causal", num_key_value_groups=4 // heads)
    tensors = [torch.randn(3, count, 21, 8).bfloat16() for count in (4, heads, heads)]
    results = []
    for function, own, dropout in (
        (kernels.attention, kind, 0.1),
        (sdpa_attention_forward, torch.float32, 0.0),
    ):
        inputs = [tensor.to(own, copy=True).requires_grad_() for tensor in tensors]
        with torch.autocast("cpu", torch.bfloat16, enabled=own == torch.bfloat16):
            output, _ = function(module, *inputs, mask, dropout=dropout)
        output.float().square().sum().backward()
        results.append((output, *(tensor.grad for tensor in inputs)))
    for ours, theirs in zip(*results, strict=True):
        if kind == torch.bfloat16:
            assert (ours.float() - theirs).norm() < 2 * 2**-8 * theirs.norm()
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


class OnCard(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    device = torch.device("cuda", 0)


@pytest.mark.parametrize(
    "case",
    [  # types of query and autocast, capability, whether rows are padded, keys repeated
        (torch.float32, None, (9, 0), False, True),
        (torch.float32, torch.bfloat16, (9, 0), False, False),
        (torch.float32, torch.float16, (7, 5), False, True),
        (torch.float16, None, (8, 0), False, False),
        (torch.float32, None, (9, 0), True, False),
    ],
)
def test_shared_keys_are_repeated_where_no_fast_kernel_takes_them(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU in float32, or without flash attention: with a mask transformers does it; results
    are the same.
    """
    kind, autocast, capability, padded, repeated = case
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: autocast is not None)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: autocast)
    heads: list[int] = []
    monkeypatch.setattr(
        kernels,
        "sdpa_attention_forward",
        lambda *given, **more: (
            heads.append(given[2].shape[1]) or sdpa_attention_forward(*given, **more)
        ),
    )
    torch.manual_seed(0)
    module = SimpleNamespace(is_causal=True, num_key_value_groups=2)
    plain = [torch.randn(3, count, 7, 8).to(kind) for count in (4, 2, 2)]
    mask = torch.ones(3, 1, 7, 7, dtype=torch.bool).tril() if padded else None
    found, _ = kernels.attention(module, *(tensor.as_subclass(OnCard) for tensor in plain), mask)
    assert heads == [4 if repeated else 2]
    expected, _ = sdpa_attention_forward(module, *plain, mask)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), expected)


def test_a_row_that_may_attend_to_nothing_is_a_number() -> None:
    """A mask that leaves a row nothing, as a sliding window over padding does, gives no NaN,
    forward or backward.
    """
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    mask[..., 3, :] = False
    module = SimpleNamespace(is_causal=True)
    inputs = torch.randn(3, 1, 2, 5, 8, requires_grad=True)
    output, _ = kernels.attention(module, *inputs, mask, dropout=0.1)
    output.square().sum().backward()
    assert torch.isfinite(output).all()
    assert torch.isfinite(inputs.grad).all()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_attention_drops_its_weights(
    backbone_folders: dict, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training every layer drops its weights [B, H, L, L] with the model's p; in evaluation
    none does.
    """
    model = build(backbone_folders[backbone], "head", dropout=0.25, device="cpu")
    ids, mask, _ = support_table.batch()
    length, seen = ids.shape[1], []
    monkeypatch.setattr(
        kernels, "apply_dropout", lambda values, p: seen.append((values.shape[-2:], p)) or values
    )
    model.train()(ids, mask)
    layers = model.encoder.config.num_hidden_layers
    assert seen.count((torch.Size([length, length]), 0.25)) == layers
    seen.clear()
    model.eval()(ids, mask)
    assert not seen


def test_what_is_replaced(backbone_folders: dict) -> None:
    """GPT-2's activation and all its dropouts are replaced on a CPU, with their p; evaluation
    stays as it was.
    """
    model = build(backbone_folders["GPT-2"], "head", dropout=0.25, device="cpu")
    kinds = {type(module) for module in model.modules()}
    assert nn.GELU in kinds
    assert kernels.Dropout in kinds
    assert not kinds & {NewGELUActivation, nn.Dropout}
    assert {module.p for module in model.modules() if isinstance(module, kernels.Dropout)} == {0.25}


OWN = [name for name in registry.names("methods") if registry.plugin("methods", name).trains]
FROZEN = [(name, {}) for name in OWN if name not in {"peft", "qlora"}]
FROZEN += [("peft", {"type": kind}) for kind in sorted(peft.FORWARD_ONLY)]
"""Methods that train beside frozen weights in floats, or whole; a bare backbone with a new head
is refused.
"""
FROZEN_OF = [("GPT-2", *method) for method in FROZEN]
FROZEN_OF += [
    (of, name, {})
    for of in BACKBONES
    if of != "GPT-2"
    for name in ("full", "lora", "prompt_tuning")
]


@pytest.mark.parametrize(("backbone", "name", "options"), FROZEN_OF)
def test_frozen_bf16_is_equal_in_autocast(
    backbone_folders: dict, name: str, options: dict, backbone: str
) -> None:
    """Logits and gradients are the same bit for bit, for every method that doesn't read frozen
    weights itself.
    """
    model = build(backbone_folders[backbone], name, options=options, dropout=0.0, device="cpu")
    ids, mask, labels = support_table.batch()
    results = []
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids, mask)
        nn.functional.cross_entropy(logits, labels).backward()
        results.append([logits, *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
        model.zero_grad()
        kernels.store_frozen_as_bf16(model.encoder)
    assert all(torch.equal(before, after) for before, after in zip(*results, strict=True))
    frozen = [p for p in model.encoder.parameters() if not p.requires_grad and p.dim() == 2]
    assert name == "full" or any(weight.dtype == torch.bfloat16 for weight in frozen)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_frozen_weights_of_an_adapter_keep_their_type(backbone_folders: dict) -> None:
    """PEFT multiplies them with trained ones when it merges: those of MiCA's second matrix."""
    model = build(backbone_folders["GPT-2"], "lora", device="cpu")
    own = {name: weight for name, weight in model.encoder.named_parameters() if "lora_" in name}
    for name, weight in own.items():
        weight.requires_grad_("lora_A" in name)
    kernels.store_frozen_as_bf16(model.encoder)
    assert {weight.dtype for weight in own.values()} == {torch.float32}


def test_types_that_read_frozen_weights_keep_them() -> None:
    """DoRA takes the norms of the weights, and of types that aren't known it is assumed."""
    kinds = {"LORA": False, "ia3": False, "DORA": True, "OFT": True, "PISSA": False}
    given = [
        *(({"type": kind}, reads) for kind, reads in kinds.items()),
        ({"type": "LORA", "use_dora": True}, True),
    ]
    for options, reads in given:
        assert peft.Peft(peft.Peft.Options.model_validate(options)).reads_frozen_weights == reads, (
            options
        )


# What a step leaves out: casts of single weights, DDP of one rank, garbage collections; losses stay
# as they were


def steps(
    folder: Path, group: Group, method: str, task: str, **changes: Any
) -> tuple[Any, Any, Counter[str]]:
    """Return losses and norms of three steps, the trained weights, and the operators of the last
    step.
    """
    trainer = trainer_of(
        run_of(folder, task, method, precision="bf16", steps=3, dropout=0.1, **changes), group
    )
    trainer.model.train()
    trainer.log.begin_window()
    mode = Counts()
    for index, indices in enumerate(trainer.order(), start=1):
        with mode if index == 3 else nullcontext():
            trainer.step(index, indices)
    values = [(step.loss, step.grad_norm) for step in trainer.log.reduce()]
    return values, [weight.detach().clone() for weight in trainer.parameters], mode.count


@pytest.mark.parametrize(
    ("method", "task", "changes"),
    [
        ("lora", "causal_lm", {}),
        ("full", "causal_lm", {}),
        ("full", "sequence_classification", {"micro_batch": 2}),
        ("lora", "sequence_classification", {"gradient_checkpointing": True}),
    ],
)
def test_weights_are_cast_at_once(
    method: str,
    task: str,
    changes: dict[str, Any],
    group: Group,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losses, norms and weights are autocast's to the bit, by fewer casts; a weight's layer is
    as it was afterwards.
    """
    values, weights, count = steps(tmp_path, group, method, task, **changes)
    monkeypatch.setattr(
        "hpml_bench.training.trainer.Casts", lambda *_: nullcontext
    )  # autocast casts each weight
    plain, others, many = steps(tmp_path, group, method, task, **changes)
    assert values == plain
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))
    assert count["aten::_to_copy"] + 10 < many["aten::_to_copy"]


@pytest.mark.parametrize("trained", [True, False])
def test_an_input_of_several_layers_is_cast_once(trained: bool) -> None:
    """Queries, keys and values: outputs and gradients are autocast's to the bit; one that was
    changed is cast anew.
    """
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
    """Else a block that is computed again would stay in memory with its graph until the next
    one's first cast.
    """
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
    """Its gradients need no exchange, and DDP would scale each; garbage is collected between
    windows alone.
    """
    collecting: list[bool] = []

    class Looks(Probe):
        def before_step(self, index: int) -> None:
            collecting.append(gc.isenabled())

        def wrapped(self, model: nn.Module) -> None:
            raise AssertionError(model)

    trainer = trainer_of(run_of(tmp_path, "sequence_classification", steps=2), group, Looks())
    assert trainer.wrapped is trainer.model
    trainer.train()
    assert collecting == [False, False]
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("method", "changes", "kind"),
    [
        ("lora", {}, torch.bfloat16),
        ("full", {}, torch.float32),
        ("full", {"trained_weights": "bfloat16"}, torch.bfloat16),
        ("lora", {"weights": "float32"}, torch.float32),
    ],
)
def test_the_residual_stream_is_recorded_as_it_is(
    method: str, changes: dict[str, Any], kind: torch.dtype, task_folder: Path, group: Group
) -> None:
    """The type of what goes from block to block."""
    given = {"weights": "bfloat16", "precision": "bf16"} | changes
    spec = run_of(task_folder, "causal_lm", method, steps=1, **given)
    trainer = trainer_of(spec, group)
    passed = set[torch.dtype]()

    def note(_: Any, __: Any, output: Any) -> None:
        passed.add((output[0] if isinstance(output, tuple) else output).dtype)

    blocks = next(part for part in trainer.model.modules() if isinstance(part, torch.nn.ModuleList))
    for block in blocks:
        block.register_forward_hook(note)
    stream = kernels.watch_residual(trainer.model)
    trainer.train()
    assert passed == {kind}
    assert f"torch.{stream.dtype}" == str(kind)


class PostNorm(torch.nn.Module):
    """Half-precision embeddings before blocks that take float32, as a layer norm gives it under
    autocast on a GPU.
    """

    def __init__(self, by_name: bool) -> None:
        super().__init__()
        self.by_name = by_name
        self.embeddings = torch.nn.Embedding(4, 2, dtype=torch.bfloat16)
        self.blocks = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embeddings

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        passed: torch.Tensor = self.embeddings(ids).float()
        for block in self.blocks:
            passed = block(input=passed) if self.by_name else block(passed)
        return passed


@pytest.mark.parametrize("by_name", [False, True])
def test_the_residual_stream_is_measured_once(by_name: bool) -> None:
    """Its type is that of the last block's input, not of the embeddings, and later passes are not
    looked at; a model without blocks has none.
    """
    model = PostNorm(by_name)
    stream = kernels.watch_residual(model)
    assert stream.dtype == ""
    model(torch.tensor([[1, 2]]))
    assert stream.dtype == "float32"
    assert not any(part._forward_pre_hooks for part in model.modules())
    assert kernels.watch_residual(torch.nn.Linear(2, 2)).dtype == ""
