"""Optimization: the optimizer and its learning rates."""

from __future__ import annotations

import torch
from torch import nn

from hpml_bench.plugins.optimizer import Groups, choose_optimizer
from hpml_bench.suite.settings import MethodSpec, Settings


def make_optimizer(encoder: nn.Module, head: nn.Module, spec: MethodSpec, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer of the method's parameters, at its learning rate, and of the head's, at the suite's."""
    chosen = choose_optimizer(spec, settings)
    groups = [*chosen.groups(encoder, spec.lr), {"params": list(head.parameters()), "lr": settings.head_lr}]
    return chosen.make([group for group in groups if group["params"]], settings)


def adamw(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    """Return torch's AdamW for these groups with the settings' options; several optimizers are or contain it."""
    return torch.optim.AdamW(
        groups, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay, fused=True
    )
