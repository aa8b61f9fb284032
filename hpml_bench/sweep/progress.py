"""Progress of a sweep: a bar for all runs and one for the current run; without a terminal, one line per run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

from hpml_bench.records.files import POINTS
from hpml_bench.records.points import Tail
from hpml_bench.records.run import Point, RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system import heartbeat
from hpml_bench.system.redaction import redacted, secrets
from hpml_bench.system.text import for_terminal

POLL_SECONDS = 0.5
LONG = ("answering", "comparing choices")
"""Prefixes of heartbeats of stages that may last as long as the training, and report their progress."""


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
            speed_estimate_period=86_400,  # the overall bar moves once per run, and runs may last minutes
            refresh_per_second=2,  # drawing must not take the cores that are being measured
            disable=not console.is_terminal,
        )
        self._overall: TaskID = self._bars.add_task("all runs", total=total, unit="runs")

    def __enter__(self) -> SweepProgress:
        self._began = time.monotonic()
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, SystemExit):  # the terminal is gone
            self._bars.stop()

    def skip(self, runs: int) -> None:
        """Count and print the number of runs that are recorded already."""
        self._done += runs
        self._bars.update(self._overall, completed=self._done)
        if runs:
            self.say(f"{runs} of {self._total} runs are recorded already")

    def say(self, text: str) -> None:
        """Print a line above the bars; control characters and markup have no effect."""
        with suppress(OSError, SystemExit):  # the terminal is gone, and rich exits; the records have it too
            self._console.print(Text(for_terminal(text)), highlight=False)

    @contextmanager
    def run(self, spec: RunSpec, folder: Path, steps: int | None) -> Iterator[None]:
        """Show one run while it lasts."""
        name, ended = f"{spec.method.name} seed {spec.seed}", threading.Event()
        bar = self._bars.add_task(name, total=steps, unit="steps")
        follower = threading.Thread(target=self._follow, args=(folder, bar, name, ended), daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
            self._bars.remove_task(bar)
            self._done += 1
            self._bars.update(self._overall, completed=self._done)

    def finished(self, record: RunRecord) -> None:
        """Print the run's line."""
        rate = record.metrics.get("samples_per_second")
        numbers = ", ".join(part for part in (record.shown, f"{rate:,.0f} samples/s" if rate else "") if part)
        message = record.error.message.splitlines()[0][:200] if record.error and record.error.message else ""
        where = f"[{self._done}/{self._total}] {record.spec.method.name} seed {record.spec.seed}"
        self._ended += 1
        self.say(f"{where}: {record.status} in {record.seconds:.1f} s  {numbers or message}{self._left()}")

    def _left(self) -> str:
        """Return the time that the other runs will take at the pace of those that ended in this call."""
        remaining = self._total - self._done
        pace = (time.monotonic() - self._began) / self._ended
        return f"; about {in_words(remaining * pace)} left" if remaining > 0 else ""

    def finished_elsewhere(self, record: RunRecord) -> None:
        """Count and print a run that another process did."""
        self._done += 1
        self._bars.update(self._overall, completed=self._done)
        self.finished(record)

    def again(self, number: int, most: int) -> None:
        """Print that the run is retried; it is not counted twice."""
        self._done -= 1
        self.say(f"trying it again ({number} of {most})")

    def _follow(self, folder: Path, bar: TaskID, name: str, ended: threading.Event) -> None:
        with closing(Tail(folder / POINTS)) as points, closing(Tail(folder / "rank0.log")) as log:
            while not ended.wait(POLL_SECONDS):
                self._look(points, log, bar)
                where = next((beat.where for beat in heartbeat.read(folder) if beat.rank == 0), "")
                stage = f", {where}" if where.startswith(LONG) else ""
                self._bars.update(bar, description=name + for_terminal(stage))
            self._look(points, log, bar)

    def _look(self, points: Tail, log: Tail, bar: TaskID) -> None:
        if new := points.lines():
            with suppress(ValidationError):  # a line may be incomplete on a full disk
                self._bars.update(bar, completed=Point.model_validate_json(new[-1]).step)
        if self._verbose:
            for line in log.lines():
                self.say(f"  rank 0: {redacted(line, self._hidden)}")
