"""Wrapping of a model for the ranks of a run: DDP, FSDP, or nothing for one. Another strategy is another function here.

FSDP (`sharding: fsdp`) is torch's second (`fully_shard`; ZeRO stage 3, Rajbhandari et al. 2020, arXiv:1910.02054):
each rank keeps 1 / ranks of every weight, gradient and optimizer state. A block's weights are whole on a rank only
during its own forward and backward pass. Losses and gradients are DDP's but for the order of sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

from hpml_bench.plugins.group import Group
from hpml_bench.plugins.model import TaskModel
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import Unsupported
from hpml_bench.system.text import first_line

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks")
"""Where torch keeps a module's hooks."""


Wrap = Callable[[TaskModel, Group], Any]
"""Returns a model whose gradients are the mean over ranks after a backward pass, but for one in its `no_sync()`."""


class Alone(nn.Module):
    """The model of one rank: DDP would scale each gradient, and its library reserve memory, for nothing.

    And a sharded model, which exchanges gradients by itself: with every micro-batch, since a rank would otherwise keep
    whole gradients until the last.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **more: Tensor) -> Tensor:
        return cast(Tensor, self.module(*inputs, **more))

    def no_sync(self) -> AbstractContextManager[object]:
        return nullcontext()


def is_sharded(settings: Settings) -> bool:
    """Return whether a run is sharded, whose settings are resolved: a single rank is not."""
    return settings.sharding != "none" and (settings.world_size or 1) > 1


def wrapping(sharding: str) -> Wrap:
    """Return what wraps a model by the setting `sharding`."""
    several = {"none": ddp, "fsdp": fsdp}[sharding]
    return lambda model, group: Alone(model) if group.world == 1 else several(model, group)


def ddp(model: TaskModel, group: Group) -> DistributedDataParallel:
    return DistributedDataParallel(
        model,
        device_ids=[group.device.index] if group.device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )


def fsdp(model: TaskModel, group: Group) -> Alone:
    """Shard a model in place, each of its blocks by itself; call it before the optimizer is made.

    Raises Unsupported: weights are shared by blocks, or FSDP can't have a block or weight.
    """
    mesh, found = mesh_of(group.device.type), [*blocks(model)]
    if _share_weights(model, found):
        raise Unsupported("it can't be sharded: its blocks share weights")
    try:
        for block in found:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=False)
    except (NotImplementedError, ValueError) as error:
        raise Unsupported(f"it can't be sharded: {first_line(error)}") from error
    return Alone(model)


def mesh_of(device: str) -> DeviceMesh:
    """Return all ranks of the process group as a mesh of one dimension."""
    return _mesh(device, dist.group.WORLD)


@cache
def _mesh(device: str, group: dist.ProcessGroup) -> DeviceMesh:
    return init_device_mesh(device, (group.size(),))


def _share_weights(model: nn.Module, found: Sequence[nn.Module]) -> bool:
    """Return whether a weight is in two of a model's blocks, or in one and outside: FSDP would make two of it."""
    parts = {number: {*block.modules()} for number, block in enumerate(found)}
    parts[-1] = {*model.modules()}.difference(*parts.values())
    uses = Counter(weight for part in parts.values() for weight in {*_weights(part)})
    return max(uses.values()) > 1


def _weights(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    return (weight for module in modules for weight in module.parameters(recurse=False))


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of a model's outermost lists of modules: the blocks of a transformer."""
    for child in module.children():
        inner = isinstance(child, nn.ModuleList) and not any(isinstance(of, nn.ModuleList) for of in child)
        yield from child.children() if inner else blocks(child)


# Whole weights of a sharded model


def _parts(model: nn.Module) -> list[Any]:
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def _keep_whole(model: nn.Module, *, whole: bool) -> None:
    for part in _parts(model):
        part.set_reshard_after_forward(not whole and part is not model, recurse=False)
        part.unshard() if whole else part.reshard()


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Keep all weights whole on each rank in the body, where ranks may do unequal numbers of passes; all call it."""
    _keep_whole(model, whole=True)
    try:
        yield
    finally:
        _keep_whole(model, whole=False)


def end_sharding(model: nn.Module) -> None:
    """Make a sharded model an ordinary one again, with whole weights on each rank; all call it."""
    _keep_whole(model, whole=True)
    for hooks in (vars(module)[name] for module in model.modules() for name in HOOKS):
        for key in [key for key, hook in hooks.items() if "_fully_shard" in _module_of(hook)]:
            del hooks[key]
    for part in _parts(model):
        part.__class__ = type(part).__bases__[1]  # of FSDPModule and its own


def _module_of(hook: Any) -> str:
    return str(getattr(getattr(hook, "hook", hook), "__module__", ""))


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def clip_grad_norm(parameters: Sequence[Tensor], most: float) -> Tensor:
    """Scale gradients to a norm of at most `most` and return that before: torch's `clip_grad_norm_`, also over parts.

    Parts are added up here: DTensor's operators would take a collective for each parameter. And gradients in bfloat16,
    whose norm would be in that type.
    """
    is_part = any(isinstance(weight, DTensor) for weight in parameters)
    parts = [local(weight.grad) for weight in parameters if weight.grad is not None]
    if not is_part and all(part.dtype == torch.float32 for part in parts):
        return nn.utils.clip_grad_norm_(parameters, most)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(parts, dtype=torch.float32)))
    if is_part:
        square = norm.square()
        dist.all_reduce(square)
        norm = square.sqrt()
    torch._foreach_mul_(parts, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def sharded(part: Tensor, shape: Sequence[int], stride: Sequence[int]) -> DTensor:
    """Return the sharded tensor of a shape of which this rank has this part."""
    device = getattr(dist.group.WORLD, "bound_device_id", None)  # a checkpoint's tensors are on the CPU
    mesh = mesh_of("cpu" if device is None else device.type)
    return DTensor.from_local(part, mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=tuple(stride))
