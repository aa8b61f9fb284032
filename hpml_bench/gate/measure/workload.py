"""The work that is timed: whole optimizer steps of the project's own training loop, on the same batches every time."""

from __future__ import annotations

import itertools
import os
import statistics
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpml_bench.config.settings import MethodSpec, RunSpec, Settings
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.rows import global_batches
from hpml_bench.plugins.method import Method
from hpml_bench.training.clock import settle
from hpml_bench.training.distributed import Group, process_group
from hpml_bench.training.trainer import Trainer

BATCHES = 8
"""Batches that are gone through again and again."""
WARM_UP = 3
"""Steps before the first that counts: the optimizer makes its state, DDP its buckets, the allocator its pools."""
CALIBRATION = 3
"""Times they are gone through to know how long a step takes."""
TURNS = 50_000
"""Turns of busy work that are timed beside each of those steps: about a millisecond."""
SEED = 0

os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="0")  # 0: any free one


class Job:
    """One method, ready to be trained."""

    def __init__(self, spec: MethodSpec, settings: Settings, prepared: Prepared, group: Group, delayable: bool) -> None:
        run = RunSpec(suite="check", settings=settings, method=spec, seed=SEED)
        self.trainer = Trainer.build(run, prepared, group)
        rows, size = self.trainer.train_rows, settings.global_batch
        self.batches = list(global_batches(rows.lengths, size, min(BATCHES, len(rows) // size), SEED))
        self.spin = 0
        if delayable:
            self._delay(self.trainer.method)
        self.trainer.wrap()
        self.trainer.model.train()
        self._index = 0

    def run(self, steps: int, first: int = 0) -> tuple[float, float]:
        """Take optimizer steps from batch `first` on.

        Time is what a run calls it: from the border to the end of each step by the loop's own clock, summed. The watch
        runs over the same stretch and gives the time waited only, which the loop doesn't know.

        Returns:
            The seconds, and how many of them this process waited for a core that others had.

        """
        log = self.trainer.log
        log.begin_window()
        watch = Watch()
        log.clock.start()  # once more, so that the watch's own reading isn't timed
        for indices in itertools.islice(itertools.cycle(self.batches), first, first + steps):
            self.step(indices)
        settle(self.trainer.group.device)
        _, waited = watch.read()
        taken = log.reduce()[-steps:]  # before them may come steps that nobody timed
        return sum(step.seconds for step in taken), waited

    def step(self, indices: np.ndarray) -> None:
        """Take one optimizer step on these rows."""
        self._index += 1
        self.trainer.step(self._index, indices)

    def warm_up(self) -> float:
        """Take first steps; return the seconds that one takes then."""
        self.run(WARM_UP)
        return min(without_waiting(self.run(1, first)) for first in range(WARM_UP))

    def calibrate_delay(self, share: float) -> int:
        """Return the turns of `spin` that take this share of a step's time.

        Steps and turns are timed in turns, so that both see the machine alike.
        """
        self.spin = 0
        found = []
        for _ in range(CALIBRATION):
            steps = turns = 0.0
            for first in range(len(self.batches)):
                steps += without_waiting(self.run(1, first))
                watch = Watch()
                spin(TURNS)
                turns += without_waiting(watch.read())
            found.append(steps / turns)
        return round(share * statistics.median(found) * TURNS)

    def put_in(self, turns: int) -> float:
        """Put busy work into each step; return the seconds it takes here, the median of several times."""
        self.spin = turns
        found = []
        for _ in range(CALIBRATION * len(self.batches)):
            watch = Watch()
            spin(turns)
            found.append(without_waiting(watch.read()))
        return statistics.median(found)

    def _delay(self, method: Method) -> None:
        """Put busy work after each step of the method, inside what the loop times."""
        after = method.after_step

        def after_step(encoder: Any, index: int) -> None:
            after(encoder, index)
            spin(self.spin)

        method.after_step = after_step  # type: ignore[method-assign, assignment]


class Workload:
    """The methods of a comparison in one process group of one rank."""

    def __init__(self, jobs: dict[str, Job], stay: ExitStack) -> None:
        self.jobs = jobs
        self._stay = stay  # in the process group: left with the process

    @classmethod
    def load(
        cls, settings: dict[str, Any], prepared: dict[str, Any], methods: list[dict[str, Any]], delayable: bool = False
    ) -> Workload:
        """Build the jobs.

        Args:
            settings: a `Settings`, definite.
            prepared: a `Prepared` of this side.
            methods: `MethodSpec`s.
            delayable: whether busy work can be put into their steps, for trials of the gate itself.

        """
        chosen = Settings.model_validate(settings)
        torch.set_num_threads(chosen.threads or 1)
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        stay = ExitStack()
        group = stay.enter_context(process_group(chosen))
        specs = [MethodSpec.model_validate(method) for method in methods]
        ready = Prepared.model_validate(prepared)
        return cls({spec.name: Job(spec, chosen, ready, group, delayable) for spec in specs}, stay)


class Watch:
    """Wall time, and the part of it in which the main thread could have run but others had its core.

    The kernel keeps the latter for each thread (/proc/self/schedstat, nanoseconds on the run queue). What this
    process's own threads ran meanwhile is taken off, for then it may have been they.
    """

    def __init__(self) -> None:
        self._began = self._now()

    def read(self) -> tuple[float, float]:
        """Return seconds and seconds waited since the start."""
        wall, waited, threads = (now - then for now, then in zip(self._now(), self._began, strict=True))
        return wall, max(0.0, waited - threads)

    def _now(self) -> tuple[float, float, float]:
        own = time.process_time() - time.thread_time()
        try:
            waited = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # a kernel without it
            waited = 0.0
        return time.perf_counter(), waited, own


def spin(turns: int) -> None:
    """Be busy: work on the processor that no library can make faster."""
    for _ in range(turns):
        pass


def without_waiting(time_and_waiting: tuple[float, float]) -> float:
    """Return what is left of the first when the second is taken out."""
    return time_and_waiting[0] - time_and_waiting[1]
