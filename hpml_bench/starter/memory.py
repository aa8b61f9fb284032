"""Memory of a training process, estimated from numbers of parameters and tokens."""

from __future__ import annotations

from typing import Any

import psutil

from hpml_bench.starter.model import Model
from hpml_bench.starter.rates import Published
from hpml_bench.system import gpus

FROZEN, TRAINED = 4, 16
"""Bytes per frozen float32 parameter, and per trained one: weight, gradient and AdamW's moments (docs/memory.md)."""
ACTIVATIONS = 68
"""Bytes that a block keeps per token and unit of its width in float32: twice the 34 of half precision (Korthikanti et
al. 2022, arXiv:2205.05198, equation 2, without the attention matrix)."""
LIBRARIES = 0.5e9
"""Bytes of a process with torch, transformers and PEFT."""


def estimated_bytes(model: Model, method: Published, tokens: int, targets: int = 0) -> float:
    """Return the bytes of a rank that trains a method on a batch of `tokens`, of which `targets` get logits.

    An estimate: kernels and allocators take more.
    """
    weights = model.parameters * (FROZEN + method.trained * (TRAINED - FROZEN))
    kept = ACTIVATIONS * tokens * model.width * (model.layers if method.work > 2 else 1)
    logits = 3 * 4 * targets * model.vocabulary
    return LIBRARIES + weights + (kept + logits if method.work else 0)


def memory_in_words(model: Model, methods: tuple[Published, ...], tokens: int, targets: int, ranks: int) -> str:
    """Return an estimate of each method's memory per rank and what this machine has, as a sentence for a comment."""
    each = ", ".join(f"{m.name} {in_gb(estimated_bytes(model, m, tokens, targets))}" for m in methods)
    return (
        f"Memory of each rank, at least: {each} (4 bytes per parameter, 16 per trained one, and activations of "
        f"{tokens:,} tokens). Here: {room_in_words(ranks)}."
    )


def room(ranks: int) -> float:
    """Return the bytes that each rank can have here: a card's, or its share of the free memory."""
    cards = gpus.visible_gpus()
    if cards:
        return min(float(card["memory_mb"]) for card in cards) * 1e6
    return float(psutil.virtual_memory().available) / max(1, ranks)


def room_in_words(ranks: int) -> str:
    """Return what this machine has, in words."""
    cards: tuple[dict[str, Any], ...] = gpus.visible_gpus()
    if cards:
        return f"{len(cards)} x {cards[0]['name']} of {in_gb(room(ranks))}"
    return f"{in_gb(ranks * room(ranks))} free for {ranks} ranks"


def in_gb(count: float) -> str:
    """Return bytes as GB or MB."""
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
