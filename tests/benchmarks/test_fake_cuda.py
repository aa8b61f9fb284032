"""CUDA without a card: what the command finds wrong, and that its tensors keep torch's rules on
devices.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_cuda
import pytest
import torch
from fake_card.machine import card
from fake_card.tensors import CPU, CUDA, CardTensor, WrongDeviceError
from fake_cuda import Bench, Combination

from helpers import skips, tiny
from hpml_bench.plugins.decoding import Decoding, Generator
from hpml_bench.plugins.probe import Probe
from hpml_bench.suite import registry
from hpml_bench.training import generation
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import Trainer

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason=skips.NO_CUDA_BUILD)
CLASSIFIER = Combination("gpt2", "sequence_classification", "lora")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Models and rows."""
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def on_card() -> Iterator[Any]:
    """The mode in which CUDA's tensors are those of the card."""
    with card() as (mode, _):
        yield mode


def with_hook(
    monkeypatch: pytest.MonkeyPatch, hook: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Let LoRA change the output of its last layer's updates by a hook."""
    kind = registry.plugin("methods", "lora")
    build = kind.build

    def changed(self: Any, backbone: Any) -> Any:
        encoder = build(self, backbone)
        layer = [part for name, part in encoder.named_modules() if name.endswith("lora_B.default")][
            -1
        ]
        layer.register_forward_hook(lambda _, inputs, output: hook(output))
        return encoder

    monkeypatch.setattr(kind, "build", changed)


# The command


HOOKS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str, str]] = {
    "fine": (lambda output: output + torch.zeros(output.shape[-1], device=output.device), "ok", ""),
    "made without a device": (
        lambda output: output + torch.zeros(output.shape[-1]),
        "FAIL",
        "some on the CPU",
    ),
    "out of the graph": (
        lambda output: output.detach().requires_grad_(),
        "FAIL",
        "no gradient reaches",
    ),
    "no number": (lambda output: output * float("nan"), "FAIL", "the loss is nan"),
    "waits": (lambda output: output * (output.abs().sum().item() >= 0), "reads values", ""),
}
"""Name -> change of a layer's output, the status of a run with it, and why."""


@pytest.mark.parametrize("name", HOOKS)
def test_a_method_is_told_as_it_is(
    name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor on the CPU, a parameter without a gradient, a loss of NaN, a wait; one without
    any of them runs.
    """
    hook, status, why = HOOKS[name]
    with_hook(monkeypatch, hook)
    found = fake_cuda.run(bench, CLASSIFIER)
    assert (found.status, why in found.why, bool(found.waits)) == (
        status,
        True,
        status == "reads values",
    ), found


@pytest.mark.parametrize(
    ("method", "kernels"), [("lora", 416), ("full", 312), ("prompt_tuning", 290), ("adapter", 239)]
)
def test_a_step_waits_for_nothing(method: str, kernels: int, bench: Bench) -> None:
    """Of a language model, neither to look for padding nor to copy a prompt's ids; kernels don't
    become more.
    """
    found = fake_cuda.run(bench, Combination("llama", "causal_lm", method))
    assert (found.status, found.waits) == ("ok", []), found
    assert found.kernels <= kernels


def test_a_refusal_that_is_none_on_the_cpu_is_a_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness takes an error of PEFT's for a reason to refuse a type; on a CPU it would be
    the same.
    """
    found = fake_cuda.run(bench, Combination("gpt2", "sequence_classification", "none"))
    assert found.status == "unsupported", found
    kind = registry.plugin("methods", "lora")
    build = kind.build

    def refused(self: Any, backbone: Any) -> Any:
        if backbone.device == CUDA:
            raise ValueError("not on a card")
        return build(self, backbone)

    monkeypatch.setattr(kind, "build", refused)
    found = fake_cuda.run(bench, CLASSIFIER)
    assert (found.status, found.why) == ("FAIL", "not on a card")


@pytest.mark.parametrize("made", ["with the device", "without"])
def test_on_the_cpu_a_tensor_without_a_device_is_told(
    made: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't run on the card takes steps in which such a tensor is on another device."""
    monkeypatch.setattr(fake_cuda, "CANNOT", {"lora": "it is tried here"})
    where = {"device": "cpu"} if made == "with the device" else {}
    with_hook(monkeypatch, lambda output: output + torch.zeros(output.shape[-1], **where))
    found = fake_cuda.run(bench, CLASSIFIER)
    assert found.status == ("ok on the CPU" if where else "FAIL"), found
    assert "it is tried here" in found.why or "meta" in found.why


@pytest.mark.parametrize(
    "changes", [{}, {"gradient_checkpointing": True, "micro_batch": 2}], ids=["", "checkpointed"]
)
@pytest.mark.parametrize(
    "options", [{"type": "LORA"}, {"type": "LOHA"}, {"type": "C3A"}], ids=["LORA", "LOHA", "C3A"]
)
@pytest.mark.parametrize(
    "model", [("gpt2", "sequence_classification"), ("llama", "causal_lm")], ids=["gpt2", "llama"]
)
def test_losses_and_gradients_are_those_on_the_cpu(
    model: tuple[str, str], options: dict[str, Any], changes: dict[str, Any], bench: Bench
) -> None:
    """In float32 the stand-in for the engine gives the gradients of torch's, for functions in
    Python too.
    """
    combination = Combination(*model, "peft", options, changes)
    common = changes | {"precision": "fp32", "dropout": 0.0, "steps": 3}
    steps = []
    for device in ("cpu", "cuda"):
        spec = bench.spec(replace(combination, changes=common | {"device": device}))
        prepared, kept = bench.prepared(combination, spec), Kept()
        with card() if device == "cuda" else tiny.alone() as entered:
            Trainer(
                assemble(spec, prepared, entered[1] if device == "cuda" else entered), [kept]
            ).train()
        steps.append(kept.steps)
    for name in ("loss", "grad_norm"):
        cpu, on_card = ([getattr(step, name) for step in run] for run in steps)
        assert on_card == pytest.approx(cpu, rel=1e-4), name
        assert len({round(value, 4) for value in cpu}) == 3


class Kept(Probe):
    """Keeps the steps."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def after_steps(self, window: list[Any]) -> list[Any]:
        """Keep."""
        self.steps += window
        return []


def test_the_command_ends_with_what_it_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line per combination and counts; the page has those that did not just run; status 1 for
    a failure.
    """
    found = {"lora": fake_cuda.Finding("ok"), "full": fake_cuda.Finding("FAIL", "a | b")}
    monkeypatch.setattr(
        fake_cuda, "combinations", lambda: [Combination("m", "t", name) for name in found]
    )
    monkeypatch.setattr(fake_cuda, "run", lambda _, each: found[each.method])
    page = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["fake_cuda.py", "--markdown", str(page)])
    assert fake_cuda.main() == 1
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("2 combinations: 1 ok, 0 ok on the CPU")
    )
    assert "| m t full | a \\| b |" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["fake_cuda.py", "--only", "lora"])
    assert fake_cuda.main() == 0


# Tensors of the card


def vector(device: Any = "cpu") -> torch.Tensor:
    """Return three numbers."""
    return torch.arange(3.0, device=device)


MIXED: dict[str, tuple[Callable[[], Any], bool]] = {
    "a vector": (lambda: vector(CUDA) + vector(), False),
    "a scalar": (lambda: vector(CUDA) + vector()[0], True),
    "a scalar in place": (lambda: vector().add_(vector(CUDA)[0]), False),
    "stacked scalars": (lambda: torch.stack([vector(CUDA)[0], vector()[0]]), False),
    "indices": (lambda: vector(CUDA)[torch.tensor([0, 2])], True),
    "what is indexed": (lambda: vector()[torch.tensor([0, 2], device=CUDA)], False),
    "values put": (lambda: vector(CUDA).index_put_((torch.tensor([0, 2]),), vector()[:2]), False),
    "random numbers": (lambda: vector(CUDA).normal_(generator=torch.Generator()), False),
    "tokens": (
        lambda: torch.nn.functional.embedding(torch.tensor([1]), vector(CUDA)[:, None]),
        False,
    ),
    "weights": (lambda: torch.nn.functional.linear(vector(CUDA), torch.ones(2, 3)), False),
    "a copy": (lambda: vector(CUDA).copy_(vector()), True),
    "a list": (lambda: torch._foreach_add([vector(CUDA)], [vector()]), False),
}
"""What is on the CPU beside a tensor on the card, and whether torch takes it."""


@pytest.mark.parametrize("name", MIXED)
def test_devices_mix_as_in_torch(name: str, on_card: Any) -> None:
    """Copies, indices and scalars element by element; nothing else."""
    call, taken = MIXED[name]
    if taken:
        assert isinstance(call(), CardTensor)
        return
    with pytest.raises(WrongDeviceError, match="same device"):
        call()


def test_tensors_say_where_they_are_and_keep_their_values(on_card: Any) -> None:
    """Views share memory, data replaced is of the new type, and modules move with the same
    parameters.
    """
    values = vector(CUDA)
    values[1:].mul_(2)
    assert (values.device, values.tolist()) == (CUDA, [0, 2, 4])
    layer = torch.nn.Linear(3, 2)
    weight = layer.weight
    layer.to(CUDA)
    assert layer.weight is weight
    assert weight.device == CUDA
    weight.data = weight.data.to(torch.bfloat16)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert layer(values).dtype == torch.bfloat16
    assert weight.tolist() == weight.cpu().tolist()


def test_a_device_context_that_is_the_first_on_the_card_reaches_each_constructor() -> None:
    """Torch keeps which functions a context changes; a stand-in kept among them left Llama's
    frequencies unset.
    """
    torch.utils._device._device_constructors.cache_clear()
    with card(), torch.device("meta"):
        assert torch.tensor([1.0]).device.type == "meta"
    with torch.device("meta"):
        assert torch.tensor([1.0]).device.type == "meta"


def test_sampling_stays_on_the_card(on_card: Any) -> None:
    """The host waits for no probabilities, and the tokens are those that it would draw."""
    generator = Generator(Decoding(4, temperature=0.8, top_p=0.9), (), lambda _: "", 0, 4, 0)
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    drawn = []
    for device in (CPU, CUDA):
        draws, placed = [torch.Generator().manual_seed(row) for row in range(3)], logits.to(device)
        on_card.waits.clear()
        drawn.append(generation._drawn(placed, generator, draws, [0, 1, 2]))
        assert on_card.waits == []
    assert isinstance(drawn[1], CardTensor)
    assert drawn[1].tolist() == drawn[0].tolist()


def test_waits_are_counted(on_card: Any) -> None:
    """Reading a value, shapes that depend on values, and copies but for those that don't block."""
    values = vector(CUDA)
    on_card.waits.clear()
    vector().to(CUDA, non_blocking=True)
    assert on_card.waits == []
    for call in (
        values.sum().item,
        values.nonzero,
        values.cpu,
        values.tolist,
        lambda: values[values > 1],
    ):
        before = len(on_card.waits)
        call()
        assert len(on_card.waits) > before, call
