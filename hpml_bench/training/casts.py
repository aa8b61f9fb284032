"""Casts of trained weights to half precision: one kernel for all of them, where autocast launches one for each.

Values and gradients are those of autocast, to the bit: weights are copied to half precision before a forward pass,
linear layers multiply by the copies, and the copies' gradients are added to the weights' in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from hpml_bench.suite.settings import Settings
from hpml_bench.training.kernels import AUTOCAST, linear_weights

GROUP_BYTES = 25 * 2**20
"""Bytes of weights whose gradients are cast together, as DDP exchanges them (its `bucket_cap_mb`)."""


class _Cast(torch.autograd.Function):
    """Copies of tensors in another type, whose gradients are in the tensors' own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.own = weights[0].dtype
        copies = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(copies, weights)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        reached = [gradient for gradient in gradients if gradient is not None]
        cast = [torch.empty_like(gradient, dtype=ctx.own) for gradient in reached]
        torch._foreach_copy_(cast, reached)
        found = iter(cast)
        return (None, *(None if gradient is None else next(found) for gradient in gradients))


class Casts:
    """The trained float32 weights of an encoder's linear layers under autocast; none in full precision."""

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        self.dtype = AUTOCAST.get(settings.precision)
        own = (weight for weight in linear_weights(encoder) if not isinstance(weight, DTensor))  # no sharded ones
        trained = {id(of): of for of in own if of.requires_grad and of.dtype == torch.float32}
        self.layers = [
            layer
            for layer in (encoder.modules() if self.dtype else ())
            if type(layer) in {nn.Linear, Conv1D} and not trained.keys().isdisjoint(map(id, layer.parameters()))
        ]
        self.groups = _grouped([*trained.values()]) if self.layers else []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Multiply by copies in the body: a forward and its backward pass, which may compute activations again."""
        copies: dict[int, Tensor] = {}
        for group in self.groups:
            cast: tuple[Tensor, ...] = _Cast.apply(self.dtype, *group)  # type: ignore[no-untyped-call]
            copies.update(zip(map(id, group), cast, strict=True))
        for layer in self.layers:
            weight, bias = (copies.get(id(of), of) for of in (layer._parameters["weight"], layer._parameters["bias"]))
            vars(layer)["forward"] = partial(_product, layer.forward, type(layer) is Conv1D, weight, bias)
        try:
            yield
        finally:
            for layer in self.layers:
                del vars(layer)["forward"]


def _product(
    own: Callable[[Tensor], Tensor], conv: bool, weight: Tensor | None, bias: Tensor | None, x: Tensor
) -> Tensor:
    """Return a layer's product by copies; by its own weights where a model leaves autocast, as for some routers."""
    if weight is None or not torch.is_autocast_enabled(x.device.type):
        return own(x)
    if not conv or bias is None:
        return nn.functional.linear(x, weight, bias)
    return torch.addmm(bias, x.view(-1, x.shape[-1]), weight).view(*x.shape[:-1], -1)


def _grouped(weights: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return weights in groups of `GROUP_BYTES` at least, but for the last."""
    groups: list[list[nn.Parameter]] = [[]]
    for weight in weights:
        if sum(of.nbytes for of in groups[-1]) >= GROUP_BYTES:
            groups.append([])
        groups[-1].append(weight)
    return groups
