"""Fake tensors in place of a run's real ones: its model, and what torch's fake tensors can't run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface, PreTrainedModel

from hpml_bench.fit import quantized
from hpml_bench.fit.kernels import copies
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.model import TaskModel
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import kernels, peft
from hpml_bench.training.model import ModelKind, describe_backbone

CPU = torch.device("cpu")


NONE = "hpml_none"
"""Attribute of the answer whether a mask has any place: no, as most masks are of what is wrong."""


def _scalar(tensor: Tensor) -> float:
    """Return 1.0, true, or the first place."""
    if tensor.dtype == torch.bool:
        return not hasattr(tensor, NONE)
    return 1.0 if tensor.is_floating_point() else 0


def _any(tensor: Tensor, *_: Any) -> Tensor:
    found = torch.empty((), dtype=torch.bool)
    if tensor.dtype == torch.bool:
        setattr(found, NONE, True)
    return found


def _bincount(tensor: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:  # noqa: ARG001
    return tensor.new_empty(minlength)


def _places(tensor: Tensor) -> Tensor:
    """Return the most places that a mask can have."""
    return tensor.new_empty((tensor.numel(), tensor.dim()), dtype=torch.int64)


def _unmasked(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Return indices with masks as places."""
    masks = [index is not None and index.dtype == torch.bool for index in indices]
    found = [list(_places(cast(Tensor, i)).unbind(1)) if m else [i] for i, m in zip(indices, masks, strict=True)]
    return [part for parts in found for part in parts]


MADE_UP: dict[str, Callable[..., Any]] = {
    "aten::_local_scalar_dense": _scalar,
    "aten::any": _any,
    "aten::bincount": _bincount,
    "aten::nonzero": _places,
    "aten::index.Tensor": lambda tensor, indices: torch.ops.aten.index(tensor, _unmasked(indices)),
    "aten::index_put_": lambda tensor, indices, *rest: torch.ops.aten.index_put_(tensor, _unmasked(indices), *rest),
    "bitsandbytes::gemm_4bit": quantized.product,
}
"""Operators whose result depends on values, which fake tensors don't have, or that take memory inside -> what stands in
for them."""


class MadeUp(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets a program read values of tensors that have none, and shows what operators do inside.

    Enter it after the tracker, which then sees what stands in for an operator.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inside = copies if device == "cpu" else (lambda _func, _args: [])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, or what stands in for it."""
        inside = self._inside(func, args)
        result = MADE_UP.get(func.name(), func)(*args, **(kwargs or {}))
        del inside
        return result


@dataclass(frozen=True)
class OneRank(Group):
    """The first of the ranks of a process group that doesn't exist."""

    def barrier(self) -> None:
        """Wait for nobody."""


class Buckets(nn.Module):
    """DDP's memory: gradients are views of a buffer, copied to it when the backward pass has them.

    DDP makes the buffer anew before the second pass that exchanges gradients, in the order in which they came, and
    moves gradients there (torch/csrc/distributed/c10d/reducer.cpp: `rebuild_buckets`, `initialize_bucket_views`).
    """

    def __init__(self, module: TaskModel) -> None:
        super().__init__()
        self.module = module
        self._trained = [weight for weight in module.parameters() if weight.requires_grad]
        self._exchanges = self._again = True
        self._exchanged = False
        self._views = self._buffer()
        for weight in self._trained:
            weight.register_post_accumulate_grad_hook(self._exchange)  # type: ignore[no-untyped-call]

    @property
    def nbytes(self) -> int:
        """Bytes of the gradients of all trained parameters."""
        return sum(weight.nbytes for weight in self._trained)

    def _buffer(self) -> dict[Tensor, Tensor]:
        sizes, kind = [weight.numel() for weight in self._trained], self._trained[0].dtype
        views = torch.split(torch.empty(sum(sizes), dtype=kind), sizes)
        return dict(zip(self._trained, views, strict=True))

    def forward(self, *inputs: Any) -> Tensor:
        """Return the model's outputs."""
        if self._exchanged and self._again and torch.is_grad_enabled():
            self._again = False
            self._views = {}
            self._views = self._buffer()
            for weight in self._trained:
                if weight.grad is not None:
                    self._move(weight)
        return cast(Tensor, self.module(*inputs))

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Leave gradients where they are."""
        self._exchanges = False
        yield
        self._exchanges = True

    def _exchange(self, weight: Tensor) -> None:
        if self._exchanges:
            self._exchanged = True
            self._move(weight)

    def _move(self, weight: Tensor) -> None:
        view, gradient = self._views[weight].view_as(weight), cast(Tensor, weight.grad)
        if gradient.untyped_storage() is not view.untyped_storage():
            view.copy_(gradient)
            weight.grad = view


def wrap(model: TaskModel, _: Group) -> DistributedDataParallel:
    """Return a model with DDP's buckets and no process group."""
    return cast(DistributedDataParallel, Buckets(model))


def to_fake(model: nn.Module) -> None:
    """Replace the tensors of a model on the meta device by fake ones on the CPU, in place; shared ones stay shared.

    Call it under FakeTensorMode. Modules may keep tensors outside parameters and buffers, as some of PEFT's do.
    """
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor
        if id(tensor) not in made:
            like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CPU)
            weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(like, requires_grad=tensor.requires_grad) if weight else like
        return made[id(tensor)]

    for module in model.modules():
        owners: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, vars(module))
        for own in owners:
            for name, value in list(own.items()):
                if isinstance(value, Tensor):
                    own[name] = fake(value)


def describe(folder: Path, settings: Settings, kind: ModelKind, _: torch.device) -> PreTrainedModel:
    """Return a backbone of fake tensors, from config.json alone; call it under FakeTensorMode."""
    with unset_fake_temporarily():
        backbone = describe_backbone(folder, settings, kind)
        quantized.quantize(backbone, settings)
    for layer in backbone.modules() if settings.quantization else ():
        if type(layer).__name__ == "Linear4bit":
            quantized.pack(layer, settings)
    to_fake(backbone)
    return backbone


def _apply(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Convert a module's tensors as torch does real ones: for fake ones it swaps, which weak references forbid."""
    for child in module.children() if recurse else ():
        child._apply(convert)  # type: ignore[no-untyped-call]
    for weight in module._parameters.values():
        if weight is not None:
            weight.data = convert(weight.data)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else convert(buffer)
    return module


def _mask(values: Tensor, p: float) -> Tensor:  # noqa: ARG001 - as kernels.dropout_mask
    """Return memory of a mask like the values; the real one seeds numpy's generator with a value."""
    return torch.empty_like(values)


def _fused_dropout(values: Tensor, p: float) -> Tensor:
    """Apply dropout as the kernel for CUDA, which keeps a mask of one byte per element."""
    return torch.native_dropout(values, p, train=True)[0] if p else values


def _fused_attention(module: nn.Module, query: Tensor, *others: Any, **options: Any) -> tuple[Tensor, None]:
    """Attend as the kernels for CUDA, which keep no scores, with dropout too."""
    return kernels.attention(module, query, *others, **options | {"dropout": 0.0})


def _start(*_: Any) -> None:
    """Refuse a start from rows, which takes memory of its own and depends on values."""
    raise Unsupported("it starts from a decomposition of values, which isn't traced")


@contextmanager
def stand_ins(device: str) -> Iterator[None]:
    """Replace in the body what fake tensors can't run, or what a fake CPU runs otherwise than a GPU."""
    replaced: dict[str, Any] = {"dropout_mask": _mask} if device == "cpu" else {"apply_dropout": _fused_dropout}
    attention = kernels.attention if device == "cpu" else _fused_attention
    starts = mock.patch.multiple(peft, start_eva=_start, start_corda=_start)
    with mock.patch.multiple(kernels, **replaced), mock.patch.object(nn.Module, "_apply", _apply), starts:
        AttentionInterface.register(kernels.ATTENTION, attention)
        try:
            yield
        finally:
            AttentionInterface.register(kernels.ATTENTION, kernels.attention)
