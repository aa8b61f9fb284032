"""`torch.compile` on the encoder's blocks, which the project leaves out: put in for the line that says why."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpml_bench.training import kernels


@torch.library.custom_op("hpml_speed::kept", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def kept(values: Tensor, p: float) -> Tensor:
    """Return dropout's mask as `kernels.drop` draws it; a compiler can't look into numpy, and would break off there."""
    return kernels.kept(values, p)


@kept.register_fake
def _(values: Tensor, p: float) -> Tensor:  # noqa: ARG001 - the operator's own arguments
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def drop(values: Tensor, p: float) -> Tensor:
    """Apply dropout with that mask."""
    mask: Tensor = kept(values.detach(), p)
    return values * mask * (1 / (1 - p))


def compile_blocks(encoder: nn.Module) -> None:
    """Compile the encoder's blocks for batches of any length, and fail where that would be given up silently."""
    kernels.drop = drop
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    blocks = max((part for part in encoder.modules() if isinstance(part, nn.ModuleList)), key=len)
    for block in blocks:
        block.compile(dynamic=True, fullgraph=True)
