"""Head only: the backbone stays frozen, and only the classification head is trained (linear probing)."""

from __future__ import annotations

from typing import Any

from hpml_bench.config.base import Frozen

title = "Head only"
lr = 1e-3  # of no parameter: the head has its own in the settings


class Options(Frozen):
    """No options."""


def build(backbone: Any, options: Options) -> Any:  # noqa: ARG001 - every method's signature
    """Return the backbone frozen."""
    return backbone.requires_grad_(False)
