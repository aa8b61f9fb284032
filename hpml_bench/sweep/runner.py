"""Runner of sweeps and tunings: runs one after another, with retries, until a limit ends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import launcher
from hpml_bench.launch.limits import RETRIED, Limits
from hpml_bench.launch.outcome import Place
from hpml_bench.records.folder import ResultsFolder
from hpml_bench.records.run import DONE, RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.sweep.progress import SweepProgress


class Runner:
    """The runs of one call, which share folder, model and data, limits, progress, and the time they began."""

    def __init__(
        self,
        results: ResultsFolder,
        prepared: Prepared,
        limits: Limits,
        progress: SweepProgress,
        began: float,
        run_ranks: launcher.RunRanks = launcher.here,
    ) -> None:
        """Keep them; `began` is the time.monotonic() from which the hours of `limits` count."""
        self._run_ranks = run_ranks
        self.results, self.prepared, self.limits, self.progress = results, prepared, limits, progress
        self._began = began
        self.ended_by: str | None = None
        """The limit that ended the runs, as its option; None if none did."""

    def may_begin(self) -> bool:
        """Whether the limits let another run begin."""
        if self._out_of_time():
            self.ended_by = f"--max-hours {self.limits.max_hours:g}"
        return self.ended_by is None

    def run(
        self,
        spec: RunSpec,
        place: Place = Place(),  # noqa: B008 - frozen
        live: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> RunRecord:
        """Do one run, again if another attempt may succeed; the caller prints the line of the record returned.

        Raises:
            Interrupted: a signal asked for the end.
            UserError: the disk is nearly full.

        """
        earlier: tuple[str, ...] = ()
        while True:
            folder = self.results.begin(spec).path
            with self.progress.run(spec, folder, steps_of(spec)), live():
                record = launcher.run(spec, self.prepared, folder, self.limits, place, earlier, self._run_ranks)
            if record.status not in RETRIED or len(earlier) >= self.limits.retries:
                return record
            if self._out_of_time():
                self.progress.say(f"{folder.name}: not tried again, by --max-hours {self.limits.max_hours:g}")
                return record
            self.progress.finished(record)
            earlier += (f"{record.status}: {record.error.message if record.error else 'no reason given'}"[:500],)
            self.progress.again(len(earlier), self.limits.retries)

    def fails_fast(self, record: RunRecord, more: bool) -> bool:
        """Whether `--fail-fast` ends the runs here; `more` says whether any are left."""
        if not self.limits.fail_fast or record.status in DONE:
            return False
        self.ended_by = "--fail-fast" if more else None
        return True

    def _out_of_time(self) -> bool:
        return self.limits.ended(time.monotonic() - self._began)


def steps_of(spec: RunSpec) -> int | None:
    """Return the optimizer steps of a run as far as its settings alone tell."""
    settings = spec.settings
    if settings.steps or not settings.train_samples:
        return settings.steps
    return (settings.epochs or 1) * (settings.train_samples // settings.global_batch)
