"""Sweeps: every method and seed of a suite, resumed where it stopped, methods in turns drawn by lot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.errors import UserError
from hpml_bench.launch import fork_server, launcher, preparation
from hpml_bench.launch.limits import Limits
from hpml_bench.plugins.engine import make_engine
from hpml_bench.plugins.method import check_methods
from hpml_bench.plugins.tracker import Tracker
from hpml_bench.records.files import PLAN
from hpml_bench.records.folder import ResultsFolder
from hpml_bench.records.plan import read_plan, refuse_if_worked_on
from hpml_bench.records.run import DONE, RunRecord, protocol_id
from hpml_bench.suite.devices import resolve_suite
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep import resolve as definite
from hpml_bench.sweep.order import places, shuffled
from hpml_bench.sweep.progress import SweepProgress
from hpml_bench.sweep.runner import Runner
from hpml_bench.system.signals import stoppable

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    folder: Path
    records: tuple[RunRecord, ...]
    """One for each run asked for that has a record, whether made now or before."""
    interrupted: bool = False
    ended_by: str | None = None
    """The limit, as its option, for which runs were left out; None if all were done."""

    @property
    def failed(self) -> int:
        """How many runs did not end well."""
        return sum(record.status not in DONE for record in self.records)


def run_sweep(  # noqa: PLR0913, PLR0917 - the options of the commands
    suite: Suite,
    out: Path,
    console: Console,
    methods: Sequence[str] | None = None,
    fresh: bool = False,
    verbose: bool = False,
    trackers: Sequence[Tracker] = (),
    seed: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    save: Path | None = None,
) -> SweepResult:
    """Run what is missing of a suite; every finished run is kept, whatever happens to the next.

    With `seed`, that one seed only. `trackers` follow the runs. `save` is where a single run keeps what it trained.

    Raises:
        UserError: the settings can't be met on this machine, a source can't be had, the folder is in use, also by jobs,
            or its disk is full or read-only.

    """
    here = resolve_suite(suite)  # what this machine can't do is told before a folder is made
    asked = here.runs(methods, None if seed is None else [seed])
    if not asked:
        raise UserError(f"suite {suite.name}: there is no method to run; name some under methods, or by --methods a,b")
    check_methods((spec.method for spec in asked), here.settings)
    began = time.monotonic()
    with ResultsFolder.open(out / suite.name) as results, stoppable():
        refuse_if_worked_on(results.path)
        _refuse_if_queued(results.path)
        if fresh and methods is None and seed is None:
            results.forget_measured()
        suite, notes = definite.resolve(suite, results.path, limits)
        runs = shuffled(suite.runs(methods, None if seed is None else [seed]), suite)
        if fresh:
            results.clear(None if methods is None and seed is None else runs)
        elif save is not None:  # what was trained is kept of a new run only
            results.set_aside(runs, partial(console.print, markup=False, highlight=False))
        results.write_suite(suite.model_dump_json(indent=1))
        try:
            return _run_missing(suite, runs, notes, results, console, verbose, trackers, limits, save, began)
        except KeyboardInterrupt:  # between runs
            return SweepResult(results.path, results.records(runs), interrupted=True)


def _refuse_if_queued(folder: Path) -> None:
    """Refuse a results folder for which jobs wait in a queue, which hold no claims yet.

    Raises:
        UserError: names one, and how to end it.

    """
    if not (folder / PLAN).exists():
        return
    plan = read_plan(folder)
    try:
        waiting = make_engine(plan.profile).live(plan)
    except (UserError, OSError):  # such as on a machine without the engine's commands
        return
    if waiting:
        raise UserError(
            f"{folder}: job {waiting[0].name} of a plan waits for it ({len(waiting)} jobs); hpml-bench stop {folder} "
            "ends them, or give another --out"
        )


def _run_missing(  # noqa: PLR0913, PLR0917 - the rest of `run_sweep`
    suite: Suite,
    runs: list[RunSpec],
    notes: dict[str, str],
    results: ResultsFolder,
    console: Console,
    verbose: bool,
    trackers: Sequence[Tracker],
    limits: Limits,
    save: Path | None,
    began: float,
) -> SweepResult:
    interrupted = False
    with SweepProgress(console, len(runs), verbose) as progress:
        fork_server.start_fork_server()
        from hpml_bench.report.render import load_libraries

        load_libraries()  # while the server imports torch on another core: later, this would disturb a run
        progress.say(f"preparing model and data of {runs[0].settings.backbone.partition('#')[0]} ...")
        prepared = preparation.prepare(runs[0].settings, limits.max_seconds)
        save_to = None if save is None else str(save.resolve())
        prepared = prepared.model_copy(update={"save_to": save_to, "notes": prepared.notes | notes})
        for warning in prepared.warnings:
            progress.say(warning)
        protocol = protocol_id(runs[0].settings, prepared.digests)
        results.set_aside_unusable(runs, protocol, progress.say)
        todo = [spec for spec in runs if not results.settled(spec, protocol)]
        progress.skip(len(runs) - len(todo))
        runner, position = Runner(results, prepared, limits, progress, began), places(runs, suite)
        for spec in todo:
            if not runner.may_begin():
                break
            live = partial(_followed, trackers, spec, results.path / spec.run_id, results.path)
            try:
                record = runner.run(spec, position[spec.run_id], live)
            except (launcher.Interrupted, KeyboardInterrupt):
                interrupted = True
                break
            progress.finished(record)
            if runner.fails_fast(record, more=spec is not todo[-1]):
                break
    return SweepResult(results.path, results.records(runs), interrupted, runner.ended_by)


@contextmanager
def _followed(trackers: Sequence[Tracker], spec: RunSpec, folder: Path, results: Path) -> Iterator[None]:
    """Let all trackers follow a run."""
    with ExitStack() as stack:
        for tracker in trackers:
            stack.enter_context(tracker.follow(spec, folder, results))
        yield
