"""Gradient checkpointing: activations are computed again in the backward pass (Chen et al. 2016, arXiv:1604.06174)."""

from __future__ import annotations

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from hpml_bench.errors import Unsupported

IN_THE_CACHE = frozenset({"PREFIX_TUNING", "CARTRIDGE"})
"""PEFT's types whose prefix is in the cache; of the first PEFT says so itself."""


def checkpoint_activations(backbone: PreTrainedModel) -> None:
    """Let a backbone keep the input of each block alone while it trains.

    By torch's non-reentrant kind: DDP takes it as it is, and inputs need no gradient.

    Raises:
        Unsupported: transformers has no checkpoints in this model.

    """
    if not backbone.supports_gradient_checkpointing:
        raise Unsupported(f"transformers has no gradient checkpointing for {backbone.config.model_type}")
    backbone.gradient_checkpointing_enable({"use_reentrant": False})


def check_checkpointed(encoder: nn.Module) -> None:
    """Refuse a method that checkpointing would switch off.

    Raises:
        Unsupported: its prefix is in the cache (huggingface/peft#869).

    """
    kind = encoder.active_peft_config.peft_type if isinstance(encoder, PeftModel) else None
    if kind in IN_THE_CACHE:
        raise Unsupported(
            f"{kind.value} does not work with gradient checkpointing: its prefix is in the cache of keys and values, "
            "which blocks are not given then"
        )
