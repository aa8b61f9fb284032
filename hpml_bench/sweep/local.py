"""Runs of this machine: a sweep, one after another, resumed where it stopped, and a run whose
ranks torchrun starts.

In comes a request. Out go the records of its runs, in the results folder, which is locked as long
as a process works in it.
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
from hpml_bench.records.folder import ResultsFolder, RunFolder, locked, make_folder
from hpml_bench.records.jobs import own_plan, refuse_if_worked_on, supersede
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import FINAL, Outcome, RunRecord
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.execute import Ending, Execution, SweepProgress
from hpml_bench.sweep.jobs import refuse_if_jobs_live
from hpml_bench.sweep.request import SweepRequest, places
from hpml_bench.sweep.resolve import ResolvedSuite, resolve
from hpml_bench.system import descriptors, disk, environment
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
    # before a folder is made
    request.check(resolve_devices(request.suite.settings))
    began = time.monotonic() if request.began is None else request.began
    say = partial(console.print, markup=False, highlight=False)
    with ResultsFolder.open(request.folder) as results, stoppable():
        _refuse_if_jobs_work(results.path)
        if request.fresh and request.whole:
            results.forget_measured()
        resolved = resolve(request.suite, results.path, request.limits)
        runs = request.runs(resolved.suite)
        if request.fresh:
            results.clear(None if request.whole else runs)
        elif request.save is not None:
            # only a run that is made now, or one that kept its model, has one to save
            without_model = (run for run in runs if not results.run_folder(run).keeps)
            results.set_aside(without_model, say)
        _write_request(results, request, resolved.suite)
        try:
            with SweepProgress(console, len(runs), request.verbose) as progress:
                execution = Execution(request.limits, progress, began, run_ranks)
                ending = _run_missing(request, resolved, runs, results, execution, trackers)
        except KeyboardInterrupt:  # between runs
            ending = Ending("interrupted")
        return SweepResult(results.path, len(runs), results.records(runs), ending)


def _refuse_if_jobs_work(folder: Path) -> None:
    """Refuse a results folder in which jobs work, by their claims or by the engine of its plan."""
    refuse_if_worked_on(folder)
    plan = own_plan(folder)
    if plan is not None:
        refuse_if_jobs_live(folder, plan, print)


def _write_request(results: ResultsFolder, request: SweepRequest, suite: Suite) -> None:
    """Write what is requested of the folder, which `status` then shows.

    A single run is no sweep, so that a plan in the folder stays the one that is shown.
    """
    is_single_run = request.seeds is not None and suite.until is None
    if is_single_run:
        results.write_suite(suite.model_dump_json(indent=1))
        return
    # the methods of a race are those of its round, and no choice of the user's
    chosen = request.methods if suite.until is None else None
    requested = suite.model_copy(update={"requested": chosen})
    results.write_suite(requested.model_dump_json(indent=1))
    supersede(results.path)


def _run_missing(
    request: SweepRequest,
    resolved: ResolvedSuite,
    runs: tuple[RunSpec, ...],
    results: ResultsFolder,
    execution: Execution,
    trackers: Sequence[Tracker],
) -> Ending:
    """Prepare model and data, set aside runs that can't be used, and do those that are missing."""
    from hpml_bench.page.render import load_libraries

    settings = resolved.suite.settings
    progress = execution.progress
    descriptors.allow(settings.world_size or 1)
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
    (missing,) = plan.remaining(results.records(runs))
    progress.skip(len(runs) - len(missing))
    if missing:
        too_large = _too_large(resolved.suite, missing, Path(prepared.backbone))
        if too_large:
            progress.say(f"{too_large}; hpml-bench fit {results.path / SUITE} says what to change")
    place_of = places(runs, resolved.suite)

    def request_of(spec: RunSpec) -> RunRequest:
        folder = results.run_folder(spec).path
        return RunRequest(
            spec=spec,
            prepared=prepared,
            folder=folder,
            limits=request.limits,
            place=place_of[spec.run_id],
            save_to=request.save_to(folder),
        )

    @contextmanager
    def followed(run: RunRequest) -> Iterator[None]:
        """Let all trackers follow an attempt at a run."""
        with ExitStack() as following:
            for tracker in trackers:
                following.enter_context(tracker.follow(run.spec, run.folder, results.path))
            yield

    return execution.execute(map(request_of, missing), progress.finished, followed)


def _too_large(suite: Suite, runs: Sequence[RunSpec], backbone: Path) -> str | None:
    """Return a sentence on methods of these runs that won't fit into memory; None where all do, or
    that isn't known.
    """
    in_doubt_here = False
    with suppress(Exception):  # a strange config.json must not end a sweep that may run
        in_doubt_here = in_doubt(suite.settings, backbone)
    # the prediction builds each model on fake tensors, which takes seconds
    if not in_doubt_here:
        return None
    methods = list(dict.fromkeys(run.method.name for run in runs))
    return preparation.predicted_memory(
        suite.settings,
        "hpml_bench.fit.predict:too_large",
        suite.model_dump_json(),
        methods,
        machine(suite.settings),
    )


def run_as_rank(request: SweepRequest) -> bool:
    """Do a run as one of the ranks that torchrun started; return whether it ended well.

    Rank 0, or one that fails, commits the record; a rank that raises ends its process here. Raises
    UserError for an invalid setting, a GPU on which torch can't compute, a missing source, and a
    results folder in use.
    """
    from hpml_bench.training.distributed import check_gpus

    environment.set_cuda_environment()
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    folder = request.folder
    suite, notes = resolve(request.suite, folder, None, ranks_here)
    (spec,) = request.runs(suite)
    request.check(spec.settings)
    if spec.settings.device == "cuda":
        check_gpus(ranks_here, own=int(os.environ["LOCAL_RANK"]))
    # Rank 0 alone writes, and so alone locks. Where it can't, it ends, and torchrun the others.
    writes = os.environ["RANK"] == "0"
    if writes:
        make_folder(folder)
    with locked(folder) if writes else nullcontext():
        return _run_as_rank(spec, suite, notes, request)


def _run_as_rank(spec: RunSpec, suite: Suite, notes: dict[str, str], request: SweepRequest) -> bool:
    """Do this rank's part of a run that isn't recorded yet; return whether it ended well.

    A rank that raises leaves its error in the run's folder and ends its process here. The first one
    also commits the record of the failed run, since torchrun ends the others, rank 0 among them,
    once one has ended. One that raises later, as it has lost a peer, finds that record and commits
    none.
    """
    from hpml_bench.data.prepare import prepare
    from hpml_bench.page.model_card import write_card
    from hpml_bench.training import worker

    rank = int(os.environ["RANK"])
    writes = rank == 0
    save = request.save
    results = ResultsFolder(request.folder)
    refuse_if_worked_on(results.path)
    run_folder = results.run_folder(spec)

    earlier = _usable_record(request, run_folder)
    if earlier is not None:
        if save is not None and writes:
            run_folder.give(save)
            write_card(earlier, save)
        return True

    prepared = prepare(spec.settings)
    prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
    started = utc_now()
    began = time.monotonic()
    work = RunRequest(
        spec=spec,
        prepared=prepared,
        folder=run_folder.path,
        save_to=request.save_to(run_folder.path),
    )
    if writes:
        if save is not None:
            results.set_aside([spec], print)
        disk.check_space(results.path)
        if request.fresh:
            remove(run_folder.path)
        run_folder.begin()
        results.write_suite(suite.model_dump_json(indent=1))

    def commit(outcome: Outcome) -> RunRecord:
        record = launcher.record_of(work, outcome, started, time.monotonic() - began)
        return run_folder.commit(record)

    try:
        outcome = worker.execute(work)
    except Exception as error:
        run_folder.path.mkdir(parents=True, exist_ok=True)
        worker.leave_error(error, run_folder.path, rank)
        if run_folder.record() is None:
            outcome = launcher.ended_as(*launcher.cause(run_folder.path))
            commit(outcome)
        worker.end_at_once()
    if writes:
        record = commit(outcome)
        if save is not None and record.status == "ok":
            run_folder.give(save)
            write_card(record, save)
    return outcome.status in FINAL


def _usable_record(request: SweepRequest, run_folder: RunFolder) -> RunRecord | None:
    """Return the record of a run that need not be done again; None without one.

    A run whose model is to be saved is done again unless it kept its model.
    """
    if request.fresh:
        return None
    if request.save is not None and not run_folder.keeps:
        return None
    record = run_folder.record()
    if record is None or not Plan(()).settles(record):
        return None
    return record
