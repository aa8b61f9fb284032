"""Execution of runs: the one loop, whether for a sweep, a job or a tuning."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from hpml_bench.launch import launcher
from hpml_bench.launch.launcher import RunRanks
from hpml_bench.records.plan import RETRIED, Limits
from hpml_bench.records.run import DONE, RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.sweep.progress import SweepProgress
from hpml_bench.system import disk
from hpml_bench.training.request import RunRequest

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ending:
    """How the execution of a queue ended."""

    how: Literal["done", "limit", "interrupted", "left", "time", "failed"] = "done"
    """`limit`: at one of `Limits`; `left`: the job was restarted elsewhere; `time`: at the job's time limit."""
    why: str | None = None
    """The reason: of `limit` its option, else a sentence."""


class Queue(ABC, Generic[Item]):
    """Runs that one process does, one after another."""

    def __init__(self, left: Iterable[Item]) -> None:
        self.left = deque(left)
        """What is left, from which `next` makes runs."""

    @abstractmethod
    def next(self) -> RunRequest:
        """Take the next run off the queue and return it."""

    def interrupted(self, request: RunRequest, record: RunRecord | None) -> Ending:
        """Return the ending after a signal during a run; its record, if it has one, settles nothing."""
        return Ending("interrupted")

    def stop(self) -> Ending | None:
        """Return the ending if the next run may not begin; None if it may."""
        return None

    def around(self, request: RunRequest) -> AbstractContextManager[object]:
        """Return the context in which each attempt at a run is made."""
        return nullcontext()

    def recorded(self, request: RunRequest) -> RunRecord | None:
        """Return the earlier record of a run that is done already; None to do the run."""
        return None

    @abstractmethod
    def keep(self, request: RunRequest, record: RunRecord) -> None:
        """Keep the record of a run whose attempts are over, and show it."""


@dataclass(frozen=True)
class Execution:
    """Execution of queues under the limits and progress of one call."""

    limits: Limits
    progress: SweepProgress
    began: float = field(default_factory=time.monotonic)
    """time.monotonic() from which the hours of the limits count."""
    run_ranks: RunRanks = launcher.here

    def execute(self, queue: Queue[Any]) -> Ending:
        """Do a queue's runs until none is left, a limit is reached or a signal arrives; UserError on a full disk."""
        failed = False
        while queue.left:
            if ending := self._limit(failed) or queue.stop():
                return ending
            request = queue.next()
            try:
                record = queue.recorded(request) or self._attempts(queue, request)
            except launcher.Interrupted as interruption:
                return queue.interrupted(request, interruption.record)
            except KeyboardInterrupt:
                return queue.interrupted(request, None)
            queue.keep(request, record)
            failed = failed or record.status not in DONE
        return Ending()

    def _limit(self, failed: bool) -> Ending | None:
        if failed and self.limits.fail_fast:
            return Ending("limit", "--fail-fast")
        return Ending("limit", self._max_hours) if self._out_of_time() else None

    def _attempts(self, queue: Queue[Any], request: RunRequest) -> RunRecord:
        """Do one run, and repeat it while it fails and the limits allow a retry."""
        while True:
            disk.check_space(request.folder.parent)
            with self.progress.run(request.spec, request.folder, steps_of(request.spec)), queue.around(request):
                record = launcher.run(request, self.run_ranks)
            earlier = request.earlier_attempts
            if record.status not in RETRIED or len(earlier) >= self.limits.retries:
                return record
            if self._out_of_time():
                self.progress.say(f"{request.folder.name}: not tried again, by {self._max_hours}")
                return record
            self.progress.finished(record)
            how = f"{record.status}: {record.error.message if record.error else 'no reason given'}"[:500]
            request = request.model_copy(update={"earlier_attempts": (*earlier, how)})
            self.progress.again(len(earlier) + 1, self.limits.retries)

    def _out_of_time(self) -> bool:
        return self.limits.ended(time.monotonic() - self.began)

    @property
    def _max_hours(self) -> str:
        return f"--max-hours {self.limits.max_hours:g}"


def steps_of(spec: RunSpec) -> int | None:
    """Return the optimizer steps of a run if its settings alone determine them, else None."""
    settings = spec.settings
    if settings.steps or not settings.train_samples:
        return settings.steps
    return (settings.epochs or 1) * (settings.train_samples // settings.global_batch)
