"""Busy work injected into a method's steps, for trials of the gate itself."""

from __future__ import annotations

import statistics
from typing import Any, Protocol

import numpy as np

from hpml_bench.gate.measure.machine import Stopwatch, without_waiting
from hpml_bench.plugins.method import Method
from hpml_bench.training.trainer import Trainer

REPEATS = 3
"""Passes over the batches to time a step, or the busy work beside it."""
TURNS = 50_000
"""Turns of busy work that are timed beside each of those steps: about a millisecond."""


class Steps(Protocol):
    """A method that takes steps on batches: the part of a job that a delay needs."""

    trainer: Trainer
    batches: list[np.ndarray]

    def run(self, steps: int, first: int = 0) -> tuple[float, float]:
        """Take steps from batch `first` on; return the seconds, and those in which others had the core."""


class Delay:
    """Busy work after each step of a job's method, inside what the training loop times."""

    def __init__(self, job: Steps) -> None:
        self._job = job
        self.turns = 0

    def install(self, method: Method) -> None:
        """Let the busy work follow every step of a method."""
        after = method.after_step

        def after_step(encoder: Any, index: int) -> None:
            after(encoder, index)
            spin(self.turns)

        method.after_step = after_step  # type: ignore[method-assign, assignment]

    def calibrate(self, share: float) -> int:
        """Return the turns that take this share of a step's time.

        Steps and turns are timed alternately, so that both see the machine alike.
        """
        self.turns = 0
        ratios = []
        for _ in range(REPEATS):
            steps = turns = 0.0
            for first in range(len(self._job.batches)):
                steps += without_waiting(self._job.run(1, first))
                turns += _seconds(TURNS)
            ratios.append(steps / turns)
        return round(share * statistics.median(ratios) * TURNS)

    def inject(self, turns: int) -> float:
        """Inject so many turns into each step; return the seconds they take here, the median of several times."""
        self.turns = turns
        return statistics.median(_seconds(turns) for _ in range(REPEATS * len(self._job.batches)))


def _seconds(turns: int) -> float:
    watch = Stopwatch()
    spin(turns)
    return without_waiting(watch.read())


def spin(turns: int) -> None:
    """Keep the processor busy with work that no library can make faster."""
    for _ in range(turns):
        pass
