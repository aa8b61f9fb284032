"""Stand-in for torch's attention, which a card does by one kernel each way, and which keeps no scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from fake_card.tensors import CUDA, Card, CardTensor, held

attend: Any = torch.nn.functional.scaled_dot_product_attention


class Attention(torch.autograd.Function):
    """Attention on what tensors of the card hold; its graph stands beside the card's."""

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
