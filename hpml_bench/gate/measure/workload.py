"""Timed work: whole optimizer steps of the project's own training loop, on the same batches every time."""

from __future__ import annotations

import itertools
import os
import statistics
import warnings
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from hpml_bench.data.prepared import Prepared, global_batches
from hpml_bench.gate.measure.machine import Stopwatch, seconds_of, without_waiting
from hpml_bench.plugins.group import Group, settle
from hpml_bench.plugins.method import Method
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import process_group
from hpml_bench.training.trainer import Trainer

BATCHES = 8
"""Number of batches, which are used again and again."""
WARM_UP = 3
"""Steps before those that count: the optimizer makes its state, DDP its buckets, the allocator its pools."""
SEED = 0
DELAY_REPEATS = 3
"""Passes over the batches to time a step, or the busy work beside it."""
DELAY_TURNS = 50_000
"""Turns of busy work that are timed beside each of those steps: about a millisecond."""

os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # 0: any free one


class TimedMethod:
    """One method, ready to be trained."""

    def __init__(self, spec: MethodSpec, settings: Settings, prepared: Prepared, group: Group, delayable: bool) -> None:
        run = RunSpec(suite="check", settings=settings, method=spec, seed=SEED)
        assembly = assemble(run, prepared, group)
        rows, size = assembly.train_rows, settings.global_batch
        self.batches = list(global_batches(rows.lengths, size, min(BATCHES, len(rows) // size), SEED))
        self.delay = Delay(self)
        if delayable:
            self.delay.install(assembly.method)
        self.trainer = Trainer(assembly)
        self.trainer.model.train()
        self._index = 0

    def run(self, steps: int, first: int = 0) -> tuple[float, float]:
        """Take optimizer steps from batch `first` on; return the seconds, and those in which others had the core.

        Time is measured as in a run: by the loop's own clock, from the start of the window to the end of each step,
        summed. The stopwatch covers the same steps and gives only the time waited, which the loop doesn't know.
        """
        log = self.trainer.log
        log.begin_window()
        watch = Stopwatch()
        log.clock.start()  # once more, so that the watch's own reading isn't timed
        for indices in itertools.islice(itertools.cycle(self.batches), first, first + steps):
            self.step(indices)
        settle(self.trainer.group.device)
        _, waited = watch.read()
        taken = log.reduce()[-steps:]  # before them there may be untimed steps
        return sum(step.seconds for step in taken), waited

    def step(self, indices: np.ndarray) -> None:
        """Take one optimizer step on these rows."""
        self._index += 1
        self.trainer.step(self._index, indices)

    def warm_up(self) -> float:
        """Take first steps; return the seconds that one takes then."""
        self.run(WARM_UP)
        return min(without_waiting(self.run(1, first)) for first in range(WARM_UP))


class Workload:
    """The methods of a comparison in one process group of one rank."""

    def __init__(
        self, settings: dict[str, Any], prepared: dict[str, Any], methods: list[dict[str, Any]], delayable: bool = False
    ) -> None:
        """Build the jobs of `MethodSpec`s, with resolved `Settings` and what this side `Prepared`.

        Where they are `delayable`, busy work can be injected into their steps, for trials of the gate itself.
        """
        chosen = Settings.model_validate(settings)
        torch.set_num_threads(chosen.threads or 1)
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        self._stay = ExitStack()  # in the process group: left with the process
        group = self._stay.enter_context(process_group(chosen))
        specs = [MethodSpec.model_validate(method) for method in methods]
        ready = Prepared.model_validate(prepared)
        self.jobs = {spec.name: TimedMethod(spec, chosen, ready, group, delayable) for spec in specs}


class Delay:
    """Busy work after each step of a job's method, inside what the training loop times."""

    def __init__(self, job: TimedMethod) -> None:
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
        for _ in range(DELAY_REPEATS):
            steps = turns = 0.0
            for first in range(len(self._job.batches)):
                steps += without_waiting(self._job.run(1, first))
                turns += seconds_of(lambda: spin(DELAY_TURNS))
            ratios.append(steps / turns)
        return round(share * statistics.median(ratios) * DELAY_TURNS)

    def inject(self, turns: int) -> float:
        """Inject so many turns into each step; return the seconds they take here, the median of several times."""
        self.turns = turns
        return statistics.median(seconds_of(lambda: spin(turns)) for _ in range(DELAY_REPEATS * len(self._job.batches)))


def spin(turns: int) -> None:
    """Keep the processor busy with work that no library can make faster."""
    for _ in range(turns):
        pass
