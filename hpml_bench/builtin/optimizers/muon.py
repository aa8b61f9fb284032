"""Muon: orthogonalised momentum for hidden matrices, AdamW for all else (Jordan 2024,
kellerjordan.github.io).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hpml_bench.plugins.optimizer import Groups, Optimizer, TorchOptimizer
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn

EMBEDDINGS = ("lora_embedding_", "trainable_tokens")
"""Parts of the names of PEFT's parameters for embeddings, whose modules are no
`torch.nn.Embedding`.
"""


class Muon(Optimizer):
    """Muon for hidden matrices; AdamW trains embeddings, output layer, head, biases and norms,
    as Jordan advises.
    """

    title = "Muon"

    class Options(Frozen):
        """Muon's options, as in `torch.optim.Muon`; AdamW's are settings."""

        momentum: float = Field(default=0.95, ge=0, lt=1)
        """Decay rate of the momentum."""
        nesterov: bool = True
        """Whether to use Nesterov momentum: the gradient as if taken one step ahead."""
        ns_steps: int = Field(default=5, ge=1, lt=100)
        """Newton-Schulz iterations, which orthogonalise the momentum."""
        adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
        """Scaling of the rate by a matrix's shape [m, n]: times 0.2 sqrt(max(m, n)), so that a
        rate made for AdamW suits (Liu et al. 2025, arXiv:2502.16982), or times sqrt(max(1, m /
        n)), which needs rates near 0.02.
        """
        adamw_lr: float | None = Field(default=None, gt=0)
        """Rate of those of the method's parameters that AdamW trains; empty for the method's."""

    def groups(self, encoder: nn.Module, lr: float) -> Groups:
        from torch import nn

        trained = {
            name: weight for name, weight in encoder.named_parameters() if weight.requires_grad
        }
        modules = [module for module in encoder.modules() if isinstance(module, nn.Embedding)]
        find: Any = getattr(encoder, "get_output_embeddings", None)
        modules += [output] if find is not None and (output := find()) is not None else []
        token_weights = {
            id(weight) for module in modules for weight in module.parameters()
        }  # of embeddings and output
        matrices = {
            name
            for name, weight in trained.items()
            if weight.ndim == 2 and min(weight.shape) > 1 and id(weight) not in token_weights
            if not any(part in name for part in EMBEDDINGS)
        }
        if trained and not matrices:
            raise Unsupported(
                "Muon is for hidden matrices, and the method trains none; take the optimizer adamw"
            )
        others = [weight for name, weight in trained.items() if name not in matrices]
        return [
            {
                "params": [trained[name] for name in trained if name in matrices],
                "lr": lr,
                "use_muon": True,
            },
            {"params": others, "lr": self.options.adamw_lr or lr},
        ]

    def make(self, groups: Groups, settings: Settings) -> TorchOptimizer:
        import torch

        from hpml_bench.training.optimization import Combined, adamw

        options = self.options
        parts: list[TorchOptimizer] = []
        if muon_groups := [group for group in groups if group.get("use_muon")]:
            given = options.model_dump(include={"momentum", "nesterov", "ns_steps"})
            muon = torch.optim.Muon(
                muon_groups,
                weight_decay=settings.weight_decay,
                adjust_lr_fn=options.adjust_lr,
                **given,
            )
            parts.append(muon)
        if adamw_groups := [group for group in groups if not group.get("use_muon")]:
            parts.append(adamw(adamw_groups, settings))
        return Combined(parts)
