"""Schedule of a training: its steps, the factor of the learning rates, and the windows between
evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_bench.suite.settings import Settings

if TYPE_CHECKING:
    import numpy as np


def total_steps(settings: Settings, rows: int) -> int:
    """Return the number of optimizer steps: `steps`, or whole global batches x epochs."""
    if settings.steps is not None:
        return settings.steps
    assert settings.epochs is not None  # noqa: S101 - Settings has exactly one of the two
    return settings.epochs * (rows // settings.global_batch)


def lr_factor(step: int, steps: int, settings: Settings) -> float:
    """Return the factor of the learning rates in step `step` (from 0): linear warm-up, then the
    schedule.
    """
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


@dataclass(frozen=True)
class Windows:
    """The steps after which the ranks meet and their clocks start again, and the first step of
    the timed part.
    """

    settings: Settings
    steps: int

    def evaluates(self, step: int) -> bool:
        every = self.settings.eval_every or max(1, math.ceil(self.steps / 5))
        return step % every == 0 or step == self.steps

    def ends_window(self, step: int) -> bool:
        """Whether points are written after this step; also after the warm-up, where the timed
        window begins.
        """
        return (
            step % self.settings.log_every == 0
            or step == self.settings.warmup_steps
            or self.evaluates(step)
        )

    def count(self) -> int:
        return sum(self.ends_window(step) for step in range(1, self.steps + 1))

    def first_timed(self) -> int:
        """Return the first step of the timed window; a run no longer than the warm-up is timed
        whole.
        """
        return self.settings.warmup_steps + 1 if self.steps > self.settings.warmup_steps else 1


def step_seconds(ranks: np.ndarray) -> np.ndarray:
    """Return the seconds of a window's steps, [steps], from those of each rank, [world, steps].

    A step ends when the slowest rank has ended it, counted from the start of the window; its
    seconds are the difference to the step before. So they add up to the slowest rank's time of the
    window, whichever rank was slow in which step.
    """
    seconds: np.ndarray = ranks.cumsum(axis=1).max(axis=0)
    seconds[1:] -= seconds[:-1].copy()
    return seconds
