"""LoRA+: AdamW, with a higher rate for LoRA's B matrices than for its A (Hayou et al. 2024,
arXiv:2402.12354).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from hpml_bench.plugins.optimizer import Groups, Optimizer, TorchOptimizer
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn


class LoRAPlus(Optimizer):
    """AdamW with parameters grouped by name, as in `peft.optimizers.create_loraplus_optimizer`."""

    title = "LoRA+"
    shards = True

    class Options(Frozen):
        """Learning rates beside the method's, which is A's."""

        ratio: float = Field(default=16, gt=0)
        """Rate of B, biases and other vectors, divided by that of A."""
        embedding_lr: float = Field(default=1e-6, gt=0)
        """Rate of LoRA's matrices on embeddings."""

    def groups(self, encoder: nn.Module, lr: float) -> Groups:
        trained = {
            name: parameter
            for name, parameter in encoder.named_parameters()
            if parameter.requires_grad
        }
        if trained and not any("lora_B" in name for name in trained):
            raise Unsupported(
                "LoRA+ gives the B matrices of LoRA a rate of their own, and the method trains none"
            )
        on_embeddings = {name for name in trained if "lora_embedding_" in name}
        faster = {
            name for name, weight in trained.items() if "lora_B" in name or weight.ndim == 1
        } - on_embeddings
        parts = (
            (trained.keys() - on_embeddings - faster, lr),
            (on_embeddings, self.options.embedding_lr),
            (faster, lr * self.options.ratio),
        )
        return [
            {"params": [trained[name] for name in trained if name in part], "lr": rate}
            for part, rate in parts
        ]

    def make(self, groups: Groups, settings: Settings) -> TorchOptimizer:
        from hpml_bench.training.optimization import adamw

        return adamw(groups, settings)
