"""Full fine-tuning: every weight of the backbone is trained."""

from __future__ import annotations

from typing import Any

from hpml_bench.plugins.method import Method


class Full(Method):
    """All weights are trained that the backbone's output depends on; DDP can't have others."""

    title = "Full fine-tuning"
    lr = 5e-5

    def build(self, backbone: Any) -> Any:
        """Return the backbone with its weights trained."""
        from hpml_bench.training.model import freeze_unused

        backbone.requires_grad_(True)
        freeze_unused(backbone)
        return backbone
