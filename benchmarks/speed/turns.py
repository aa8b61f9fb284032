"""Turns: a training whose probes are switched on and off, and its seconds with and without."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from hpml_bench.plugins.probe import Probe
from hpml_bench.training.trainer import Trainer


class Switched(list[Probe]):
    """Probes that can be switched off while the loop runs: it then finds none."""

    on = True

    def __iter__(self) -> Iterator[Probe]:
        """Give them only while they are on."""
        return super().__iter__() if self.on else iter(())


class Turns:
    """Switches probes and keeps the time of each piece."""

    def __init__(self, probes: Switched, first: bool) -> None:
        self.probes, self.first = probes, first
        self.pieces: list[tuple[bool, float]] = []
        """Of each step, with what the loop does until the next: whether it had probes, and its seconds."""
        self._began: float | None = None

    def end(self, switch: bool) -> None:
        """End a piece, if one runs, and begin the next, the other way if asked."""
        now = time.perf_counter()
        if self._began is None:
            self.probes.on = self.first
        else:
            self.pieces.append((self.probes.on, now - self._began))
            self.probes.on ^= switch
        self._began = time.perf_counter()


class Alternating(Trainer):
    """A training whose probes, `turns.probes`, are switched each time that points were written."""

    turns: Turns

    def order(self) -> Iterator[np.ndarray]:
        """Yield the batches; the loop asks for the next once all that follows a step is over."""
        every = self.settings.log_every, self.settings.eval_every or self.steps
        for index, indices in enumerate(super().order()):
            self.turns.end(switch=any(index % steps == 0 for steps in every))
            yield indices


def train_in_turns(trainer: Alternating) -> list[tuple[bool, float]]:
    """Train; return for each step whether it had probes, and its seconds. Nothing before the first step is in them."""
    trainer.train()
    trainer.turns.end(switch=False)
    return trainer.turns.pieces
