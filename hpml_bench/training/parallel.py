"""Wrapping of a model for the ranks of a run: DDP, or nothing for one. Another strategy is another function here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpml_bench.plugins.group import Group
from hpml_bench.plugins.model import TaskModel


class Wrapped(Protocol):
    """A model whose gradients are the mean over ranks after a backward pass."""

    def __call__(self, *inputs: Any, **more: Tensor) -> Tensor:
        """Return the model's outputs."""

    def no_sync(self) -> AbstractContextManager[object]:
        """Return a context in which gradients are added up without an exchange."""


Wrap = Callable[[TaskModel, Group], Wrapped]


class Alone(nn.Module):
    """The model of one rank: DDP would scale each gradient, and its library reserve memory, for nothing."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **more: Tensor) -> Tensor:
        return cast(Tensor, self.module(*inputs, **more))

    def no_sync(self) -> AbstractContextManager[object]:
        return nullcontext()


def wrap(model: TaskModel, group: Group) -> Wrapped:
    return Alone(model) if group.world == 1 else ddp(model, group)


def ddp(model: TaskModel, group: Group) -> Wrapped:
    return DistributedDataParallel(
        model,
        device_ids=[group.device.index] if group.device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
