"""Full fine-tuning: every weight of the backbone is trained."""

from __future__ import annotations

from typing import Any

from hpml_bench.config.base import Frozen

title = "Full fine-tuning"
lr = 5e-5


class Options(Frozen):
    """No options."""


def build(backbone: Any, options: Options) -> Any:  # noqa: ARG001 - every method's signature
    """Return the backbone with every weight trained that its output depends on; DDP can't have others."""
    from hpml_bench.training.model import freeze_untouched

    backbone.requires_grad_(True)
    freeze_untouched(backbone)
    return backbone
