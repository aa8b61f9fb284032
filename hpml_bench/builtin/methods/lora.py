"""LoRA: frozen weights plus trained low-rank updates (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hpml_bench.plugins.method import Method
from hpml_bench.suite.base import Frozen


class LoRA(Method):
    """Updates `alpha / r` * B A beside frozen weights, by PEFT."""

    title = "LoRA"
    lr = 1e-3
    built_by_shape = True
    peft_type = "LORA"

    class Options(Frozen):
        """LoRA's options; the update of a weight is `alpha / r` * B A."""

        r: int = Field(default=8, ge=1)
        """Rank of the updates."""
        alpha: float = Field(default=16, gt=0)
        """Scale of the updates, before division by the rank."""
        dropout: float = Field(default=0.0, ge=0, lt=1)
        """Dropout on the input of the updates."""
        target: str | list[str] = "all-linear"
        """Layers to update: `all-linear`, a list of name endings, or a regular expression for whole names."""

    def build(self, backbone: Any) -> Any:
        from hpml_bench.training.peft import add_lora

        return add_lora(backbone, self.options, self.options.target)

    def merge(self, encoder: Any) -> Any:
        return encoder.merge_and_unload()
