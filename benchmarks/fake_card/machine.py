"""A machine with a card that isn't there: the calls of torch and of the harness that ask a driver, replaced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from inspect import getattr_static
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode
from transformers import PreTrainedModel

from fake_card.backward import backward, note_inputs
from fake_card.tensors import CPU, CUDA, Card, CardTensor, held
from hpml_bench.plugins.group import Group
from hpml_bench.suite.settings import DatasetSpec, Settings
from hpml_bench.training import clock, distributed, evaluation, model, trainer
from hpml_bench.training.distributed import process_group

attend: Any = torch.nn.functional.scaled_dot_product_attention
make_tensor = torch.tensor
load_backbone = model.load_backbone
swap_tensors: Any = torch.utils.swap_tensors
DATA: Any = getattr_static(torch._C.TensorBase, "data")


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return torch.tensor of the CPU, moved: the original asks the driver itself. That copy waits, as torch's does."""
    made = make_tensor(data, dtype=dtype, device=None if device is None else "cpu")
    return (made if device is None else made.to(device)).requires_grad_(requires_grad)


def swap(one: Tensor, other: Tensor) -> None:
    """Give a parameter what it gets when its module moves; torch swaps none that is part of a graph."""
    if isinstance(one, CardTensor) and isinstance(other, CardTensor):
        one.data = other
    else:
        swap_tensors(one, other)


def set_data(tensor: Tensor, value: Tensor) -> None:
    """Replace a tensor's data; one on the CPU moves to the card with it, as in torch."""
    if isinstance(value, CardTensor):
        swap_tensors(tensor, nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value)
    else:
        DATA.__set__(tensor, value)


def load(folder: Path, settings: Settings, kind: Any = "encoder", device: torch.device = CUDA) -> PreTrainedModel:
    """Load a backbone on the CPU and move it: files are read into the memory of a card by the driver."""
    loaded = load_backbone(folder, settings, kind, torch.device("cpu"))
    return loaded.to(device)


def leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Attention(torch.autograd.Function):
    """Torch's attention, which a card does by one kernel each way, on what tensors hold; its graph stands beside."""

    @staticmethod
    def forward(ctx: Any, call: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        count("attention")
        with _disable_current_modes(), torch.set_grad_enabled(any(ctx.needs_input_grad)):
            ctx.inputs = [held(each).detach().requires_grad_(torch.is_grad_enabled()) for each in tensors]
            ctx.output = call(*ctx.inputs)
            return CardTensor(ctx.output.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count("attention_backward")
        with _disable_current_modes():
            return None, *map(CardTensor, torch.autograd.grad(ctx.output, ctx.inputs, held(gradients[0])))


def count(name: str) -> None:
    mode = _get_current_dispatch_mode()
    if isinstance(mode, Card):
        mode.kernels[name] += 1


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Any:
    """Attend as torch does; under autocast in its type."""
    if query.device != CUDA:
        return attend(query, key, value, attn_mask, **options)
    kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    mask = attn_mask if attn_mask is None or attn_mask.dtype == torch.bool else attn_mask.to(kind)

    def call(*tensors: Tensor) -> Any:
        return attend(*tensors, held(mask), **options)

    return Attention.apply(call, *(each.to(kind) for each in (query, key, value)))  # type: ignore[no-untyped-call]


@contextmanager
def card() -> Iterator[tuple[Card, Group]]:
    """Yield the mode in which CUDA's tensors are those of the card, and the group of the only rank, which has it."""
    torch._C._ensureCUDADeviceGuardSet()  # one that does nothing, if there is no driver
    with torch.device("cpu"):  # the first such context keeps the functions that it changes, torch.tensor among them:
        torch.empty(0)  # with the stand-in kept instead, transformers would leave buffers of models uninitialised
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    with ExitStack() as stack:
        for owner, name, value in REPLACED:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch.dict(os.environ, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0"))
        torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter that moves stays the same object
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        stack.callback(leave_group)
        settings = Settings(
            backbone="path:x", dataset=DatasetSpec(name="text_files"), device="cpu", world_size=1, steps=1
        )
        stack.enter_context(process_group(settings))
        yield stack.enter_context(Card()), Group(0, 1, CUDA)


REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (torch, "tensor", tensor),
    (torch.cuda, "_lazy_init", lambda: None),
    (torch.cuda, "synchronize", lambda *_: None),
    (torch.cuda, "current_device", lambda: 0),
    (torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state()),  # random numbers are the CPU's
    (torch.cuda, "set_rng_state", lambda *_: None),
    (torch.cuda, "get_device_capability", lambda *_: (9, 0)),
    (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
    (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
    (torch.utils, "swap_tensors", swap),
    (_foreach_utils, "_foreach_supported_types", [Tensor, CardTensor]),
    (nn.functional, "scaled_dot_product_attention", attention),
    (torch.Tensor, "data", property(DATA.__get__, set_data)),
    (torch.Tensor, "pin_memory", lambda self, *_: self),
    (torch.autograd, "backward", backward),
    (torch._C, "_current_graph_task_id", lambda: 0),  # checkpointing computes again once per number
    (torch.Tensor, "backward", lambda self, gradient=None, *_, **__: backward(self, gradient)),
    (torch.autograd.Function, "apply", note_inputs(getattr_static(torch.autograd.Function, "apply"))),
    # within that of `card`
    (distributed, "process_group", lambda of: nullcontext(Group(0, 1, CUDA if of.device == "cuda" else CPU))),
    (distributed, "uuid", lambda _: ""),
    (model, "load_backbone", load),
    *((owner, "clock", lambda _: clock.CpuClock()) for owner in (trainer, evaluation)),
)
"""Owner, name and stand-in."""
