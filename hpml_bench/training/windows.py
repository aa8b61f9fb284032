"""Windows of a training: the steps between two moments at which it stops to evaluate or to write points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpml_bench.suite.settings import Settings


@dataclass(frozen=True)
class Windows:
    """The steps after which the ranks meet and their clocks start again, and the first step of the timed part."""

    settings: Settings
    steps: int
    """Optimizer steps of the run."""

    def evaluates(self, step: int) -> bool:
        """Whether the validation rows are evaluated after this step."""
        every = self.settings.eval_every or max(1, math.ceil(self.steps / 5))
        return step % every == 0 or step == self.steps

    def ends_window(self, step: int) -> bool:
        """Whether points are written after this step; also after the warm-up, where the timed window begins."""
        return step % self.settings.log_every == 0 or step == self.settings.warmup_steps or self.evaluates(step)

    def count(self) -> int:
        """Return the number of windows."""
        return sum(self.ends_window(step) for step in range(1, self.steps + 1))

    def first_timed(self) -> int:
        """Return the first step of the timed window; a run no longer than the warm-up is timed whole."""
        return self.settings.warmup_steps + 1 if self.steps > self.settings.warmup_steps else 1


def step_seconds(ranks: np.ndarray) -> np.ndarray:
    """Return the seconds of a window's steps, [steps], from those of each rank, [world, steps].

    A step ends when the slowest rank has ended it, counted from the start of the window; its seconds are the difference
    to the step before. So they add up to the slowest rank's time of the window, whichever rank was slow in which step.
    """
    seconds: np.ndarray = np.diff(ranks.cumsum(axis=1).max(axis=0), prepend=0.0)
    return seconds
