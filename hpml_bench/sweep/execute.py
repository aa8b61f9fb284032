"""Execution of runs, the one loop of a sweep, a job or a tuning, and its progress: bars, or a
line per run.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

from hpml_bench.launch import launcher
from hpml_bench.launch.launcher import RunRanks
from hpml_bench.records.files import NOT_SAVED, POINTS
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.jobs import HowEnded
from hpml_bench.records.plan import RETRIED, Limits
from hpml_bench.records.points import Tail
from hpml_bench.records.run import FINAL, Point, RunRecord
from hpml_bench.suite.schedule import total_steps
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system import disk, heartbeat
from hpml_bench.system.redaction import redacted, secrets
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.system.text import for_terminal, shortened
from hpml_bench.training.request import RunRequest

Around = Callable[
    [RunRequest], AbstractContextManager[object]
]  # returns the context of each attempt at a run
POLL_SECONDS = 0.5
STEP = "training step"  # prefix of a heartbeat that the bar of steps shows already


@dataclass(frozen=True)
class Ending:
    """End of an execution."""

    how: HowEnded = "done"
    why: str | None = None  # the reason: of `limit` its option, else a sentence
    failed: bool = False  # of a job: whether one of its unit's runs has failed


def in_words(seconds: float) -> str:
    """Return a rough duration: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class SweepProgress:
    """Progress bars with the remaining time, which follow the steps that a run has written."""

    def __init__(self, console: Console, total: int, verbose: bool = False) -> None:
        self._console, self._verbose, self._hidden = console, verbose, secrets()
        self._total, self._done = total, 0
        self._began, self._ended = 0.0, 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
            console=console,
            disable=not console.is_terminal,
            # the overall bar moves once per run, and runs may last minutes
            speed_estimate_period=86_400,
            refresh_per_second=2,  # drawing must not take the cores that are being measured
        )
        self._overall: TaskID = self._bars.add_task("all runs", total=total, unit="runs")

    def __enter__(self) -> "SweepProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, SystemExit):  # the terminal is gone
            self._bars.stop()

    def _count(self, runs: int) -> None:
        self._done += runs
        self._bars.update(self._overall, completed=self._done)

    def skip(self, runs: int) -> None:
        """Count and print the number of runs that are recorded already."""
        self._count(runs)
        if runs:
            self.say(f"{runs} of {self._total} runs are recorded already")

    def say(self, text: str) -> None:
        """Print a line above the bars; control characters and markup have no effect."""
        with suppress(
            OSError, SystemExit
        ):  # the terminal is gone, and rich exits; the records have it too
            self._console.print(Text(for_terminal(text)), highlight=False)

    @contextmanager
    def run(self, spec: RunSpec, folder: Path, steps: int | None) -> Iterator[None]:
        """Show one run while it lasts."""
        name, ended = f"{spec.method.name} seed {spec.seed}", threading.Event()
        bar = self._bars.add_task(name, total=steps, unit="steps")
        follower = threading.Thread(
            target=self._follow, args=(folder, bar, name, steps, ended), daemon=True
        )
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
            self._bars.remove_task(bar)
            self._count(1)

    def finished(self, record: RunRecord) -> None:
        rate, step = (record.metrics.get(name) for name in ("samples_per_second", "selected_step"))
        selected = f"of step {step:,.0f} by validation rows" if step else ""
        speed = f"{rate:,.0f} samples/s" if rate else ""
        numbers = ", ".join(part for part in (f"{record.shown} {selected}".strip(), speed) if part)
        message = (
            shortened(record.error.message.splitlines()[0], 200)
            if record.error and record.error.message
            else ""
        )
        where = f"[{self._done}/{self._total}] {record.spec.method.name} seed {record.spec.seed}"
        if (
            not self._ended
        ):  # what came before the first run, such as the preparation, is no part of the pace
            self._began = time.monotonic() - record.seconds
        self._ended += 1
        remaining, pace = self._total - self._done, (time.monotonic() - self._began) / self._ended
        left = f"; about {in_words(remaining * pace)} left" if remaining > 0 else ""
        self.say(
            f"{where}: {record.status} in {record.wall_seconds:.1f} s  {numbers or message}{left}"
        )

    def finished_elsewhere(self, record: RunRecord) -> None:
        self._count(1)
        self.finished(record)

    def again(self, number: int, most: int, saved: int) -> None:
        self._count(-1)
        where = f" after step {saved}, whose state was saved" if saved else ""
        self.say(f"trying it again{where} ({number} of {most} without progress)")

    def _follow(
        self, folder: Path, bar: TaskID, name: str, steps: int | None, ended: threading.Event
    ) -> None:
        with closing(Tail(folder / POINTS)) as points, closing(Tail(folder / "rank0.log")) as log:
            over = False
            while not over:
                over = ended.wait(POLL_SECONDS)
                if new := points.lines():
                    with suppress(ValidationError):  # a line may be incomplete on a full disk
                        step = Point.model_validate_json(new[-1]).step
                        self._bars.update(bar, completed=step)
                        self._bars.update(
                            self._overall, completed=self._done + (step / steps if steps else 0.0)
                        )
                for line in log.lines():
                    if self._verbose or line.startswith(NOT_SAVED):
                        self.say(f"  rank 0: {redacted(line, self._hidden)}")
                where = next((beat.where for beat in heartbeat.read(folder) if beat.rank == 0), "")
                stage = f", {where}" if where and not where.startswith(STEP) else ""
                self._bars.update(bar, description=name + for_terminal(stage))


@dataclass(frozen=True)
class Execution:
    """Execution of runs, one after another, under the limits and progress of one call."""

    limits: Limits
    progress: SweepProgress
    began: float = field(
        default_factory=time.monotonic
    )  # time.monotonic() from which the hours of the limits count
    run_ranks: RunRanks = launcher.here

    def execute(
        self,
        requests: Iterable[RunRequest],
        keep: Callable[[RunRecord], None],
        around: Around = nullcontext,
        interrupted: Callable[[RunRecord | None], Ending] = lambda _: Ending("interrupted"),
    ) -> Ending:
        """Do runs until none is left, a limit is reached or a signal arrives; UserError on a full
        disk.

        `keep` gets the record of each whose attempts are over, and `interrupted` that of one which
        a signal ended, if it has one. The next request is taken when the run before is kept.
        """
        failed = False
        with stoppable() as stop:
            for request in requests:
                if failed and self.limits.fail_fast:
                    return Ending("limit", "--fail-fast")
                if self.limits.ended(time.monotonic() - self.began):
                    return Ending("limit", f"--max-hours {self.limits.max_hours:g}")
                try:
                    record = self._attempts(request, around, stop)
                except KeyboardInterrupt:
                    return interrupted(None)
                if stop.requested:  # even if this run was done: no further one may begin
                    return interrupted(record)
                keep(record)
                failed = failed or record.status not in FINAL
        return Ending()

    def _attempts(self, request: RunRequest, around: Around, stop: Stop) -> RunRecord:
        """Do one run, and repeat it while it fails and the limits allow a retry."""
        fruitless, folder = 0, RunFolder(request.folder)
        while True:
            disk.check_space(request.folder.parent)
            before = folder.saved
            with (
                self.progress.run(request.spec, request.folder, steps_of(request.spec)),
                around(request),
            ):
                record = launcher.run(request, self.run_ranks)
            earlier = request.earlier_attempts
            fruitless += (
                folder.saved <= before
            )  # others go on from their last checkpoint: they are no retries
            again = (
                record.status in RETRIED
                and fruitless <= self.limits.retries
                and self.limits.retries
            )
            if stop.requested or not again:
                return record
            if self.limits.ended(time.monotonic() - self.began):
                self.progress.say(
                    f"{request.folder.name}: not tried again, by --max-hours "
                    f"{self.limits.max_hours:g}"
                )
                return record
            self.progress.finished(record)
            how = f"{record.status}: {record.error.message if record.error else 'no reason given'}"[
                :500
            ]
            request = request.model_copy(update={"earlier_attempts": (*earlier, how)})
            self.progress.again(fruitless, self.limits.retries, folder.saved)


def steps_of(spec: RunSpec) -> int | None:
    """Return the optimizer steps of a run if its settings alone determine them, else None."""
    rows = spec.settings.train_samples
    return total_steps(spec.settings, rows or 0) if rows or spec.settings.steps else None
