"""A training whose probes are switched on and off in turn, and the seconds it takes either way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpml_bench.loop import Training, train
from hpml_bench.probes import Probe


class Switched(list[Probe]):
    """Probes that can be switched off while the loop runs: it then finds none."""

    on = True

    def __iter__(self) -> Iterator[Probe]:
        """Give them only while they are on."""
        return super().__iter__() if self.on else iter(())


class Turns:
    """Switches probes and adds up the time; without `switching` all turns are like the first."""

    def __init__(self, probes: Switched, first: bool, *, switching: bool = True) -> None:
        self.probes, self.first, self.switching = probes, first, switching
        self.seconds = {True: 0.0, False: 0.0}
        self._began: float | None = None

    def end(self) -> None:
        """End a turn, if one runs, and begin the next the other way."""
        now = time.perf_counter()
        if self._began is not None:
            self.seconds[self.probes.on] += now - self._began
        self.probes.on = self.first if self._began is None or not self.switching else not self.probes.on
        self._began = time.perf_counter()


@dataclass(frozen=True)
class Alternating(Training):
    """A training with a turn from each validation to the next; its probes are `turns.probes`."""

    turns: Turns

    def order(self) -> Iterator[np.ndarray]:
        """Yield the batches; the loop asks for the next once a validation is over."""
        for index, indices in enumerate(super().order()):
            if index % (self.settings.eval_every or self.steps) == 0:
                self.turns.end()
            yield indices


def train_in_turns(job: Alternating) -> dict[bool, float]:
    """Train; return the seconds with probes and without. Nothing before the first step is in them."""
    train(job)
    job.turns.end()
    return job.turns.seconds
