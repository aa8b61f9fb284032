"""Runs of this machine: a sweep, one after another, resumed where it stopped, and a run whose
ranks torchrun starts.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from hpml_bench.fit.limits import in_doubt, machine
from hpml_bench.launch import fork_server, launcher, preparation
from hpml_bench.launch.launcher import RunRanks
from hpml_bench.plugins.tracker import Tracker
from hpml_bench.records.files import SUITE
from hpml_bench.records.folder import ResultsFolder, locked, make_folder
from hpml_bench.records.jobs import own_plan, refuse_if_worked_on
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import FINAL, RunRecord
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.execute import Ending, Execution, SweepProgress
from hpml_bench.sweep.jobs import refuse_if_jobs_live
from hpml_bench.sweep.plan import SweepRequest, places
from hpml_bench.sweep.resolve import ResolvedSuite, resolve
from hpml_bench.system import disk, environment
from hpml_bench.system.files import remove
from hpml_bench.system.signals import stoppable
from hpml_bench.system.text import utc_now
from hpml_bench.training.request import RunRequest


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    folder: Path
    runs: int  # number of the requested runs
    records: tuple[RunRecord, ...]  # readable records of the requested runs, made now or before
    ending: Ending


def run_sweep(
    request: SweepRequest,
    console: Console,
    trackers: Sequence[Tracker] = (),
    run_ranks: RunRanks = launcher.here,
) -> SweepResult:
    """Do the missing runs of a sweep, which trackers follow; each is recorded when it ends.

    Raises UserError for settings that can't be met here, a missing source, and a folder in use,
    full or read-only.
    """
    request.check(resolve_devices(request.suite.settings))  # refused before a folder is made
    began = time.monotonic() if request.began is None else request.began
    say = partial(console.print, markup=False, highlight=False)
    with ResultsFolder.open(request.folder) as results, stoppable():
        refuse_if_worked_on(results.path)
        if (plan := own_plan(results.path)) is not None:
            refuse_if_jobs_live(results.path, plan, print)
        if request.fresh and request.whole:
            results.forget_measured()
        resolved = resolve(request.suite, results.path, request.limits)
        runs = request.runs(resolved.suite)
        if request.fresh:
            results.clear(None if request.whole else runs)
        elif request.save is not None:  # only a new run has a model to save, or one that kept it
            results.set_aside((run for run in runs if not results.run_folder(run).keeps), say)
        results.write_suite(resolved.suite.model_dump_json(indent=1))
        try:
            with SweepProgress(console, len(runs), request.verbose) as progress:
                execution = Execution(request.limits, progress, began, run_ranks)
                ending = _run_missing(request, resolved, runs, results, execution, trackers)
        except KeyboardInterrupt:  # between runs
            ending = Ending("interrupted")
        return SweepResult(results.path, len(runs), results.records(runs), ending)


def _memory_wanted(suite: Suite, runs: Sequence[RunSpec], backbone: Path) -> str | None:
    """Return a sentence on methods of these runs that won't fit; None where all do, or that
    isn't known.
    """
    doubtful = False
    with suppress(Exception):  # a strange config.json must not end a sweep that may run
        doubtful = in_doubt(suite.settings, backbone)
    if not doubtful:
        return None
    methods = list(dict.fromkeys(run.method.name for run in runs))
    asked = (suite.model_dump_json(), methods, machine(suite.settings))
    return preparation.predicted_memory(suite.settings, "hpml_bench.fit.predict:too_large", *asked)


def _run_missing(
    request: SweepRequest,
    resolved: ResolvedSuite,
    runs: tuple[RunSpec, ...],
    results: ResultsFolder,
    execution: Execution,
    trackers: Sequence[Tracker],
) -> Ending:
    from hpml_bench.report.render import load_libraries

    settings, progress = resolved.suite.settings, execution.progress
    fork_server.start_fork_server()
    # while the server imports torch on another core: later, this would disturb a run
    load_libraries()
    progress.say(f"preparing model and data of {settings.backbone.partition('#')[0]} ...")
    prepared = preparation.prepare(settings, request.limits.max_seconds)
    prepared = prepared.model_copy(update={"notes": prepared.notes | resolved.notes})
    for warning in prepared.warnings:
        progress.say(warning)
    plan = Plan((runs,), prepared.digests)
    results.set_aside_unusable(plan, progress.say)
    (left,) = plan.remaining(results.records(runs))
    progress.skip(len(runs) - len(left))
    if left and (sentence := _memory_wanted(resolved.suite, left, Path(prepared.backbone))):
        progress.say(f"{sentence}; hpml-bench fit {results.path / SUITE} says what to change")
    where = places(runs, resolved.suite)

    def asked(spec: RunSpec) -> RunRequest:
        folder = results.run_folder(spec).path
        return RunRequest(
            spec=spec,
            prepared=prepared,
            folder=folder,
            limits=request.limits,
            place=where[spec.run_id],
            save_to=request.save_to(folder),
        )

    @contextmanager
    def followed(run: RunRequest) -> Iterator[None]:
        with ExitStack() as following:
            for tracker in trackers:
                following.enter_context(tracker.follow(run.spec, run.folder, results.path))
            yield

    return execution.execute(map(asked, left), progress.finished, followed)


def run_as_rank(request: SweepRequest) -> bool:
    """Do a run as one of the ranks that torchrun started; return whether it ended well.

    Rank 0, or one that fails, commits the record; a rank that raises ends its process here. Raises
    UserError for an invalid setting, a GPU on which torch can't compute, a missing source, and a
    results folder in use.
    """
    from hpml_bench.training.distributed import check_gpus

    environment.set_cuda_environment()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    folder = request.folder
    suite, notes = resolve(request.suite, folder, None, here)
    (spec,) = request.runs(suite)
    request.check(spec.settings)
    if spec.settings.device == "cuda":
        check_gpus(here, own=int(os.environ["LOCAL_RANK"]))
    main = os.environ["RANK"] == "0"  # the rank that writes; without it torchrun ends the others
    if main:
        make_folder(folder)
    with locked(folder) if main else nullcontext():
        return _run_as_rank(spec, suite, notes, request)


def _run_as_rank(spec: RunSpec, suite: Suite, notes: dict[str, str], request: SweepRequest) -> bool:
    from hpml_bench.data.prepare import prepare
    from hpml_bench.report.model_card import write_card
    from hpml_bench.training import worker

    rank, results, save = int(os.environ["RANK"]), ResultsFolder(request.folder), request.save
    refuse_if_worked_on(results.path)
    own = results.run_folder(spec)
    earlier = None if request.fresh or (save is not None and not own.keeps) else own.record()
    if earlier is not None and Plan(()).settles(earlier):
        if save is not None and rank == 0:
            own.give(save)
            write_card(earlier, save)
        return True
    prepared = prepare(spec.settings)
    prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
    started, began = utc_now(), time.monotonic()
    main = rank == 0
    work = RunRequest(
        spec=spec, prepared=prepared, folder=own.path, save_to=request.save_to(own.path)
    )
    if main:
        if save is not None:
            results.set_aside([spec], print)
        disk.check_space(results.path)
        if request.fresh:
            remove(own.path)
        own.begin()
        results.write_suite(suite.model_dump_json(indent=1))
    try:
        ended = worker.execute(work)
    except Exception as error:
        own.path.mkdir(parents=True, exist_ok=True)
        worker.leave_error(error, own.path, rank)
        if own.record() is None:  # the first rank here commits it; torchrun then ends the others
            ended = launcher.ended_as(*launcher.cause(own.path))
            own.commit(launcher.record_of(work, ended, started, time.monotonic() - began))
        worker.end_at_once()
    if main:
        record = own.commit(launcher.record_of(work, ended, started, time.monotonic() - began))
        if save is not None and record.status == "ok":
            own.give(save)
            write_card(record, save)
    return ended.status in FINAL
