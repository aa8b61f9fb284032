"""Schedule: number of steps, and the factor of the learning rates in each."""

from __future__ import annotations

import math

from hpml_bench.suite.settings import Settings


def total_steps(settings: Settings, rows: int) -> int:
    """Return the number of optimizer steps: `steps`, or whole global batches x epochs."""
    if settings.steps is not None:
        return settings.steps
    assert settings.epochs is not None  # noqa: S101 - Settings has exactly one of the two
    return settings.epochs * (rows // settings.global_batch)


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
