"""Precision of the forward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from hpml_bench.config.settings import Settings


def autocast(settings: Settings) -> AbstractContextManager[object]:
    """Return the context of a forward pass: bf16 autocast, or nothing."""
    if settings.precision != "bf16":
        return nullcontext()
    return torch.autocast(settings.device, dtype=torch.bfloat16)
