"""`torch.compile` on the encoder's blocks, which the project leaves out: measured to say why."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpml_bench.training import kernels


@torch.library.custom_op("hpml_speed::dropout_mask", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def dropout_mask(values: Tensor, p: float) -> Tensor:
    """Return the mask as `kernels.dropout_mask` draws it: a compiler can't trace numpy, and would break the graph."""
    return kernels.dropout_mask(values, p)


@dropout_mask.register_fake
def _(values: Tensor, p: float) -> Tensor:  # noqa: ARG001 - the operator's own arguments
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def apply_dropout(values: Tensor, p: float) -> Tensor:
    """Apply dropout with that mask."""
    mask: Tensor = dropout_mask(values.detach(), p)
    return values * mask * (1 / (1 - p))


def compile_blocks(encoder: nn.Module) -> None:
    """Compile the encoder's blocks for batches of any length, and fail where that would be given up silently."""
    kernels.apply_dropout = apply_dropout
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    blocks = max((part for part in encoder.modules() if isinstance(part, nn.ModuleList)), key=len)
    for block in blocks:
        block.compile(dynamic=True, fullgraph=True)
