"""Optimization: number of steps, optimizer, learning rates."""

from __future__ import annotations

import math

import torch
from torch import nn

from hpml_bench.plugins.optimizer import Groups, choose_optimizer
from hpml_bench.suite.settings import MethodSpec, Settings


def total_steps(settings: Settings, rows: int) -> int:
    """Return the number of optimizer steps: `steps`, or whole global batches x epochs."""
    if settings.steps is not None:
        return settings.steps
    assert settings.epochs is not None  # noqa: S101 - Settings has exactly one of the two
    return settings.epochs * (rows // settings.global_batch)


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


def lr_factor(step: int, steps: int, settings: Settings) -> float:
    """Return the factor of the learning rates in step `step` (from 0): linear warm-up, then the schedule."""
    warmup = math.ceil(settings.lr_warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    left = (steps - step) / max(1, steps - warmup)
    schedules = {
        "constant": 1.0,
        "linear": left,
        "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left))),
        "wsd": min(1.0, (steps - step) / math.ceil(settings.lr_decay * steps)),
    }
    return schedules[settings.schedule]
