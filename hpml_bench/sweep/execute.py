"""Execution of runs, the one loop of a sweep, a job or a tuning, and its progress: bars, or a
line per run.

In come requests of runs, one after another, and the limits of the call. Each run is launched in
processes of its own; out go its record, to a function of the caller, and an `Ending`, which says
why no further run was begun.
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
    TimeRemainingColumn,
)
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

# returns the context of each attempt at a run
Around = Callable[[RunRequest], AbstractContextManager[object]]
POLL_SECONDS = 0.5
STEP = "training step"  # prefix of a heartbeat that the bar of steps shows already


@dataclass(frozen=True)
class Ending:
    """End of an execution."""

    how: HowEnded = "done"
    why: str | None = None  # the reason: of `limit` its option, else a sentence
    failed: bool = False  # of a job: whether one of its unit's runs has failed


def in_words(seconds: float) -> str:
    """Return a rough duration, at least a second: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class SweepProgress:
    """Progress bars with the remaining time, which follow the steps that a run has written.

    Where the console is no terminal there are no bars, and what is said is all that is printed.
    """

    def __init__(self, console: Console, total: int, verbose: bool = False) -> None:
        """Keep the arguments: `total` is the number of runs, those recorded already included, and
        `verbose` whether the whole log of rank 0 is shown.
        """
        self._console = console
        self._verbose = verbose
        self._hidden = secrets()
        self._total = total
        # runs that have ended, in this call or before it
        self._done = 0
        # time.monotonic() at which the pace's clock begins, and the attempts that ended since
        self._began = 0.0
        self._ended = 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            # the overall bar moves once per run, and runs may last minutes
            speed_estimate_period=86_400,
            # drawing must not take the cores that are being measured
            refresh_per_second=2,
        )
        self._overall: TaskID = self._bars.add_task("all runs", total=total, unit="runs")

    def __enter__(self) -> "SweepProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        # the terminal may be gone
        with suppress(OSError, SystemExit):
            self._bars.stop()

    def _count(self, runs: int) -> None:
        self._done += runs
        self._bars.update(self._overall, completed=self._done)

    def skip(self, runs: int) -> None:
        """Count the runs that are recorded already, and print their number unless it is 0."""
        self._count(runs)
        if runs:
            self.say(f"{runs} of {self._total} runs are recorded already")

    def say(self, text: str) -> None:
        """Print a line above the bars; control characters and markup have no effect."""
        # the terminal may be gone: then rich exits, and the records tell the same
        with suppress(OSError, SystemExit):
            self._console.print(Text(for_terminal(text)), highlight=False)

    @contextmanager
    def run(self, spec: RunSpec, folder: Path, steps: int | None) -> Iterator[None]:
        """Show an attempt at a run while the body lasts, and count it as a run that has ended.

        `folder` is the run's, where its ranks write; `steps` are its optimizer steps, None where
        they aren't known before it begins.
        """
        name = f"{spec.method.name} seed {spec.seed}"
        ended = threading.Event()
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
        """Print the line of an attempt that has ended: what came out, and about how long the
        runs that are left will take.

        They are taken to go on at the pace of this call: the time since the pace's clock began, by
        the number of attempts that have ended since, failed ones included.
        """
        result = _result_in_words(record)
        where = f"[{self._done}/{self._total}] {record.spec.method.name} seed {record.spec.seed}"
        if not self._ended:
            # The clock begins with the start of the first run that ends in this call, by that run's
            # own seconds: what came before it, such as the preparation, is no part of the pace.
            self._began = time.monotonic() - record.seconds
        self._ended += 1
        seconds_per_attempt = (time.monotonic() - self._began) / self._ended
        remaining = self._total - self._done
        left = ""
        if remaining > 0:
            left = f"; about {in_words(remaining * seconds_per_attempt)} left"
        self.say(f"{where}: {record.status} in {record.wall_seconds:.1f} s  {result}{left}")

    def finished_elsewhere(self, record: RunRecord) -> None:
        """Count a run that a job has done, which `run` hasn't shown, and print its line, with why
        it left checkpoints unused.
        """
        self._count(1)
        self.finished(record)
        for why in record.unused_checkpoints:
            self.say(f"  {why}")

    def again(self, number: int, most: int, saved: int) -> None:
        """Take back the count of a run that is tried again, and say so.

        Of the attempts so far `number` were without progress, of the `most` that may be followed
        by another; `saved` is the step from which it goes on, 0 where it begins anew.
        """
        self._count(-1)
        where = f" after step {saved}, whose state was saved" if saved else ""
        self.say(f"trying it again{where} ({number} of {most} without progress)")

    def _follow(
        self, folder: Path, bar: TaskID, name: str, steps: int | None, ended: threading.Event
    ) -> None:
        """Move the bars by what the ranks write into a run's folder, until the run has ended."""
        with closing(Tail(folder / POINTS)) as points, closing(Tail(folder / "rank0.log")) as log:
            over = False
            # what was written just before the end is read too: the last pass is after it
            while not over:
                over = ended.wait(POLL_SECONDS)
                new_points = points.lines()
                if new_points:
                    # a line may be incomplete on a full disk
                    with suppress(ValidationError):
                        step = Point.model_validate_json(new_points[-1]).step
                        self._bars.update(bar, completed=step)
                        share = step / steps if steps else 0.0
                        self._bars.update(self._overall, completed=self._done + share)
                for line in log.lines():
                    # why no state is saved is said to everyone: such a run can't go on later
                    if self._verbose or line.startswith(NOT_SAVED):
                        self.say(f"  rank 0: {redacted(line, self._hidden)}")
                beats = heartbeat.read(folder)
                work = next((beat.where for beat in beats if beat.rank == 0), "")
                stage = f", {work}" if work and not work.startswith(STEP) else ""
                self._bars.update(bar, description=name + for_terminal(stage))


def _result_in_words(record: RunRecord) -> str:
    """Return a run's score and speed; where it has neither, the first line of its error, cut at
    200 characters.
    """
    score = record.shown
    step = record.metrics.get("selected_step")
    if step:
        score = f"{score} of step {step:,.0f} by validation rows"
    rate = record.metrics.get("samples_per_second")
    speed = f"{rate:,.0f} samples/s" if rate else ""
    numbers = ", ".join(part for part in (score.strip(), speed) if part)
    if numbers:
        return numbers
    if record.error is None or not record.error.message:
        return ""
    return shortened(record.error.message.splitlines()[0], 200)


@dataclass(frozen=True)
class Execution:
    """Execution of runs, one after another, under the limits and progress of one call."""

    limits: Limits
    progress: SweepProgress
    # time.monotonic() from which the hours of the limits count
    began: float = field(default_factory=time.monotonic)
    run_ranks: RunRanks = launcher.here

    def execute(
        self,
        requests: Iterable[RunRequest],
        keep: Callable[[RunRecord], None],
        around: Around = nullcontext,
        interrupted: Callable[[RunRecord | None], Ending] = lambda _: Ending("interrupted"),
    ) -> Ending:
        """Do runs until none is left, a limit is reached or a signal arrives; return which.

        `keep` gets the record of each run whose attempts are over. Where a signal asked for the
        end, `interrupted` gets the record of the run under way instead, even of one that was done,
        or None where the signal came while no ranks ran; what it returns is returned. `around`
        gives the context of each attempt.

        The next request is taken once the run before it is kept, and a limit is looked at only
        after that: where nothing is left to begin, the execution is `done`, even if its last run
        failed or outlasted the hours. Raises UserError on a full disk, and what `requests`, `keep`,
        `around` and `launcher.run` raise. A signal while a request is taken or a record is kept
        raises KeyboardInterrupt.
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
                # even if this run was done: no further one may begin
                if stop.requested:
                    return interrupted(record)
                keep(record)
                failed = failed or record.status not in FINAL
        return Ending()

    def _attempts(self, request: RunRequest, around: Around, stop: Stop) -> RunRecord:
        """Do one run, and repeat it while it fails and the limits allow a retry; return the record
        of the last attempt.

        The limit is on attempts without progress: those after which the newest checkpoint is no
        later than before. One that has saved a later state is no retry for the next, which goes on
        from there; it doesn't set the count back either. Without retries even such a run isn't
        repeated.
        """
        folder = RunFolder(request.folder)
        without_progress = 0
        while True:
            disk.check_space(request.folder.parent)
            saved_before = folder.saved
            shown = self.progress.run(request.spec, request.folder, steps_of(request.spec))
            with shown, around(request):
                record = launcher.run(request, self.run_ranks)
            if folder.saved <= saved_before:
                without_progress += 1

            # a run asked to end isn't repeated, nor one that would end the same
            if stop.requested or record.status not in RETRIED:
                return record
            if not self.limits.retries or without_progress > self.limits.retries:
                return record
            if self.limits.ended(time.monotonic() - self.began):
                self.progress.say(
                    f"{request.folder.name}: not tried again, by --max-hours "
                    f"{self.limits.max_hours:g}"
                )
                return record

            self.progress.finished(record)
            reason = record.error.message if record.error else "no reason given"
            attempt = shortened(f"{record.status}: {reason}", 500)
            attempts = (*request.earlier_attempts, attempt)
            request = request.model_copy(update={"earlier_attempts": attempts})
            self.progress.again(without_progress, self.limits.retries, folder.saved)


def steps_of(spec: RunSpec) -> int | None:
    """Return the optimizer steps of a run if its settings alone determine them, else None.

    They don't where neither the steps nor the number of rows is set: rows are counted once the
    data is prepared.
    """
    rows = spec.settings.train_samples
    if not rows and not spec.settings.steps:
        return None
    return total_steps(spec.settings, rows or 0)
