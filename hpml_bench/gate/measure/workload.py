"""Timed work: whole optimizer steps of the project's own training loop, on the same batches every time."""

from __future__ import annotations

import itertools
import os
import warnings
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from hpml_bench.data.batches import global_batches
from hpml_bench.data.prepared import Prepared
from hpml_bench.gate.measure.delay import Delay
from hpml_bench.gate.measure.machine import Stopwatch, without_waiting
from hpml_bench.plugins.group import Group, settle
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import process_group
from hpml_bench.training.trainer import Trainer

BATCHES = 8
"""Number of batches, which are used again and again."""
WARM_UP = 3
"""Steps before the first that counts: the optimizer makes its state, DDP its buckets, the allocator its pools."""
SEED = 0

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
        """Take optimizer steps from batch `first` on.

        Time is measured as in a run: by the loop's own clock, from the start of the window to the end of each step,
        summed. The stopwatch covers the same steps and gives only the time waited, which the loop doesn't know.

        Returns:
            The seconds, and how many of them this process waited for a core that others had.

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

    def __init__(self, jobs: dict[str, TimedMethod], stay: ExitStack) -> None:
        self.jobs = jobs
        self._stay = stay  # in the process group: left with the process

    @classmethod
    def load(
        cls, settings: dict[str, Any], prepared: dict[str, Any], methods: list[dict[str, Any]], delayable: bool = False
    ) -> Workload:
        """Build the jobs.

        Args:
            settings: a `Settings`, resolved.
            prepared: a `Prepared` of this side.
            methods: `MethodSpec`s.
            delayable: whether busy work can be injected into their steps, for trials of the gate itself.

        """
        chosen = Settings.model_validate(settings)
        torch.set_num_threads(chosen.threads or 1)
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        stay = ExitStack()
        group = stay.enter_context(process_group(chosen))
        specs = [MethodSpec.model_validate(method) for method in methods]
        ready = Prepared.model_validate(prepared)
        return cls({spec.name: TimedMethod(spec, chosen, ready, group, delayable) for spec in specs}, stay)
