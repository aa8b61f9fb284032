"""Casts to half precision: of all trained weights by one kernel, and of an input of several layers once.

Autocast launches a kernel for each weight and each layer's input. Values and gradients are those of autocast, to the
bit: weights are copied to half precision before a forward pass, linear layers multiply by the copies, and gradients of
copies are added to those of weights and inputs in float32, one after another.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from hpml_bench.suite.settings import Settings
from hpml_bench.training.kernels import AUTOCAST, linear_weights

GROUP_BYTES = 25 * 2**20
"""Bytes of weights whose gradients are cast together, as DDP exchanges them (its `bucket_cap_mb`)."""


class _CastWeights(torch.autograd.Function):
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


class _CastInput(torch.autograd.Function):
    """A copy of an input in another type that was made already; its gradient is in the input's own."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, copy: Tensor) -> Tensor:
        ctx.own = value.dtype
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.to(ctx.own), None


class Casts:
    """The linear layers of an encoder under autocast, and their trained weights in float32; none in full precision."""

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        self.dtype = AUTOCAST.get(settings.precision)
        own = (weight for weight in linear_weights(encoder) if not isinstance(weight, DTensor))  # no sharded ones
        trained = {id(of): of for of in own if of.requires_grad and of.dtype == torch.float32}
        linear = (layer for layer in encoder.modules() if type(layer) in {nn.Linear, Conv1D})
        self.layers = [*linear] if self.dtype else []
        self.groups = _grouped([*trained.values()]) if self.layers and trained else []
        self._input: tuple[weakref.ref[Tensor], int, Tensor] | None = None
        """The last that was cast, its version, and its copy; an input kept alive would keep a block's activations."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Multiply by copies in the body: a forward and its backward pass, which may compute activations again."""
        copies: dict[int, Tensor] = {}
        for group in self.groups:
            made: tuple[Tensor, ...] = _CastWeights.apply(self.dtype, *group)  # type: ignore[no-untyped-call]
            copies.update(zip(map(id, group), made, strict=True))
        for layer in self.layers:
            vars(layer)["forward"] = partial(self._product, layer, layer.forward, copies)
        try:
            yield
        finally:
            self._input = None
            for layer in self.layers:
                del vars(layer)["forward"]

    def _product(
        self, layer: nn.Module, own: Callable[[Tensor], Tensor], copies: Mapping[int, Tensor], x: Tensor
    ) -> Tensor:
        """Return a layer's product by copies; by its own weights where a model leaves autocast, as for some routers."""
        parameters = layer._parameters  # read now: those of a sharded layer are whole during its pass alone
        weight, bias = (copies.get(id(of), of) for of in (parameters.get("weight"), parameters.get("bias")))
        if weight is None or not torch.is_autocast_enabled(x.device.type):
            return own(x)
        x = self._cast(x)
        if type(layer) is not Conv1D or bias is None:
            return nn.functional.linear(x, weight, bias)
        return torch.addmm(bias, x.view(-1, x.shape[-1]), weight).view(*x.shape[:-1], -1)

    def _cast(self, x: Tensor) -> Tensor:
        """Return an input in half precision: that of the layer before is not cast again, as of queries and keys."""
        if x.dtype != torch.float32:
            return x
        if self._input is None or self._input[0]() is not x or self._input[1] != x._version:
            self._input = weakref.ref(x, self._forget), x._version, x.detach().to(self.dtype)
        return cast(Tensor, _CastInput.apply(x, self._input[2]))  # type: ignore[no-untyped-call]

    def _forget(self, _: weakref.ref[Tensor]) -> None:
        self._input = None


def _grouped(weights: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return weights in groups of `GROUP_BYTES` at least, but for the last."""
    groups: list[list[nn.Parameter]] = [[]]
    for weight in weights:
        if sum(of.nbytes for of in groups[-1]) >= GROUP_BYTES:
            groups.append([])
        groups[-1].append(weight)
    return groups
