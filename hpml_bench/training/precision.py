"""Precision of matrix products: autocast, loss scaling, TensorFloat-32; and the types of weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from hpml_bench.suite.settings import Settings

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
WEIGHTS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(settings: Settings) -> AbstractContextManager[object]:
    """Return the context of a forward pass: autocast, or nothing."""
    if settings.precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(settings.device, dtype=AUTOCAST[settings.precision])


def autocast_of(model: nn.Module) -> AbstractContextManager[object]:
    """Return autocast in the half-precision type of a model's weights, where float32 adapters meet them; or nothing."""
    half = next((p for p in model.parameters() if p.dtype in AUTOCAST.values()), None)
    return nullcontext() if half is None else torch.autocast(half.device.type, dtype=half.dtype)


def make_scaler(settings: Settings) -> torch.amp.GradScaler:
    """Return the scaler of the loss in fp16, where small gradients would be 0 (Micikevicius et al. 2018); else a no-op.

    A step whose gradients overflow is skipped, and the scale halved.
    """
    return torch.amp.GradScaler(settings.device, enabled=settings.precision == "fp16")


def set_float32_products(settings: Settings) -> None:
    """Let float32 products on a GPU round their inputs to TensorFloat-32 for the precision tf32, and for no other."""
    torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"


def leave_out_cudnn_attention() -> None:
    """Keep torch's attention from cuDNN's kernel, which torch prefers on an H100 from 2.11 on.

    With a mask its gradient is NaN at some lengths (pytorch/pytorch#196678), and it plans for half a second at every
    new shape (modelscope/FunASR#3704), which would be part of the times of steps and of generated tokens.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def keep_trained_as_float32(model: nn.Module) -> None:
    """Convert trained parameters to float32: an optimizer's step is often too small to be added in bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in {torch.bfloat16, torch.float16}:
            parameter.data = parameter.data.float()
