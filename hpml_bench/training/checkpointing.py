"""Gradient checkpointing: activations are computed again in the backward pass (Chen et al. 2016, arXiv:1604.06174)."""

from __future__ import annotations

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from hpml_bench.system.errors import Unsupported

REFUSED = {
    "PREFIX_TUNING": "its prefix is in the cache of keys and values, which blocks are not given then",
    "CARTRIDGE": "its prefix is in the cache of keys and values, which blocks are not given then",
    "POLY": "hooks give its layers the task, and are gone when activations are computed again",
    "XLORA": "its layers mix adapters by a first pass, which is over when activations are computed again",
}
"""PEFT's types that checkpointing breaks, and why; for the first, PEFT says so itself."""


def checkpoint_activations(backbone: PreTrainedModel) -> None:
    """Let a backbone keep only the input of each block while it trains.

    It is torch's non-reentrant kind: DDP needs no change for it, and inputs need no gradient.
    """
    if not backbone.supports_gradient_checkpointing:
        raise Unsupported(f"transformers has no gradient checkpointing for {backbone.config.model_type}")
    backbone.gradient_checkpointing_enable({"use_reentrant": False})


def check_checkpointed(encoder: nn.Module) -> None:
    """Refuse a method that checkpointing would switch off or break (huggingface/peft#869, #1745)."""
    kind = encoder.active_peft_config.peft_type.value if isinstance(encoder, PeftModel) else ""
    if kind in REFUSED:
        raise Unsupported(f"{kind} does not work with gradient checkpointing: {REFUSED[kind]}")
