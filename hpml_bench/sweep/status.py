"""State of a sweep: by jobs of each unit its job and host, else of each method its runs, with
those under way.

In comes a results folder, with the plan and jobs of a sweep by jobs (`state`), or without them, or
with those of another folder (`local_state`). Out go a sentence and the rows of a table, as
`hpml-bench status` prints them. Nothing is written.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import psutil
from pydantic import ValidationError

from hpml_bench.plugins.engine import EngineJob
from hpml_bench.records.files import PLAN, SUITE
from hpml_bench.records.jobs import (
    Job,
    JobPlan,
    folders_with,
    own_plan,
    read_jobs,
    read_plan,
    read_resolved,
)
from hpml_bench.records.load import headlines
from hpml_bench.records.points import read_last_points
from hpml_bench.records.run import FAILED, FINAL
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.claims import holders
from hpml_bench.sweep.execute import in_words, steps_of
from hpml_bench.sweep.jobs import JobSweep
from hpml_bench.sweep.race import measured, standing
from hpml_bench.system import heartbeat, processes
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json

Row = tuple[str, ...]
HEAD: Row = ("unit", "runs", "state", "job", "host", "done")
LOCAL_HEAD: Row = ("method", "done", "failed", "seconds per run", "under way")
STEP_SECONDS = "step_seconds"  # metric of the points that holds the seconds of a step


def state(sweep: JobSweep) -> tuple[str, list[Row]]:
    """Return a sentence with sums, and a table: the head, then a row for each unit.

    A run is done if it ended well or is unsupported. UserError if the engine doesn't answer, or
    claims or resolved settings in the folder can't be read.
    """
    job_of_unit = {job.unit: job for job in sweep.watch.live() if job.unit is not None}
    held_units = {owner.unit for owner in holders(sweep.folder, sweep.engine)}
    # of several starts on a unit the last one counts: they come by the time they began
    last_start: dict[int, Job] = {job.unit: job for job in read_jobs(sweep.folder)}
    recorded = {record.run_id: record for record in sweep.watch.records()}
    runs = sweep.watch.refresh()

    rows = [HEAD]
    total_done, total_failed = 0, 0
    units_in_state: Counter[str] = Counter()
    for number, unit in enumerate(sweep.plan.units):
        # before a job has resolved the settings, no run has its id yet
        specs = () if runs is None else runs.units[number]
        statuses = [recorded[spec.run_id].status for spec in specs if spec.run_id in recorded]
        done = sum(status in FINAL for status in statuses)
        failed = sum(status in FAILED for status in statuses)
        total_done += done
        total_failed += failed
        all_ended = done + failed == len(unit.tasks)

        job, start = job_of_unit.get(number), last_start.get(number)
        unit_state = _unit_state(job, start, held=number in held_units, all_ended=all_ended)
        units_in_state[unit_state] += 1
        # a job that waits has no host yet: that of an earlier start isn't its own
        waits = job is not None and not job.running
        host = start.host if start is not None and not waits else ""
        job_name = start.job if start is not None else ""
        if job is not None:
            job_name = job.name
        count = f"{done} of {len(unit.tasks)}"
        rows.append((str(number), unit.title, unit_state, job_name, host, count))

    requested = sum(len(unit.tasks) for unit in sweep.plan.units)
    sums = f"{total_done} of {requested} runs are done"
    if total_failed:
        sums += f", {total_failed} failed"
    suite = sweep.plan.suite
    if suite.until is not None:
        race = standing(measured(sweep.folder), suite.until, tuple(suite.methods))
        sums = f"{race}; {sums}"
    units = ", ".join(f"{count} {unit_state}" for unit_state, count in units_in_state.items())
    return f"{sums}; units: {units}", rows


def _unit_state(job: EngineJob | None, start: Job | None, *, held: bool, all_ended: bool) -> str:
    """Return the state of a unit in a word or two.

    `job`: what the engine lists for it; `start`: the last start of a job on it; `held`: whether a
    job that isn't known to have ended holds it; `all_ended`: whether all its runs are done or have
    failed.
    """
    if job is not None:
        return job.state.lower()
    if held:
        return "running"  # an engine may list a job late, or list none
    if all_ended:
        return "ended"
    return "not begun" if start is None else "left"


def plain_sweep(path: Path) -> Path | None:
    """Return the folder of the only sweep in `path`, or `path` itself, if no jobs do it.

    None where there is no sweep, or jobs of that folder do one. UserError where several are done
    without jobs.
    """
    folders = folders_with(path, SUITE)
    without_jobs = [folder for folder in folders if not _is_done_by_jobs(folder)]
    if len(without_jobs) > 1:
        raise UserError(
            f"{path} holds several sweeps; name one of "
            f"{', '.join(str(folder) for folder in without_jobs[:5])}"
        )
    return folders[0] if len(folders) == 1 and without_jobs else None


def _is_done_by_jobs(folder: Path) -> bool:
    """Return whether the last call of run-all in a folder has planned jobs, and for this folder; a
    plan that can't be read counts as one.
    """
    if not os.path.lexists(folder / PLAN):
        return False
    try:
        plan = own_plan(folder)
    except UserError:
        return True
    return plan is not None and not plan.superseded


@dataclass(frozen=True)
class _Requested:
    """Runs that the last call of run-all in a folder requested, by its files."""

    suite: Suite
    runs: tuple[RunSpec, ...]
    how_to_go_on: str  # the end of a sentence on runs that are left
    note: str = ""  # what else the folder holds


def _requested(folder: Path) -> _Requested:
    """Return what was requested of a folder in which no jobs work; UserError if there is no sweep,
    or its files can't be read.
    """
    plan = read_plan(folder) if os.path.lexists(folder / PLAN) else None
    if plan is not None and not plan.superseded:
        return _requested_elsewhere(folder, plan)
    try:
        suite = Suite.model_validate(read_json(folder / SUITE))
    except ValidationError:
        if os.path.lexists(folder / SUITE):
            raise UserError(
                f"{folder / SUITE}: can't be read as a suite; the same run-all writes it anew"
            ) from None
        raise UserError(
            f"{folder}: no sweep was begun here; hpml-bench run-all begins one"
        ) from None
    note = ""
    if plan is not None:
        note = f"this is the last run-all, without jobs; {PLAN} is of an earlier one by jobs"
    return _Requested(suite, suite.runs(suite.requested), "the same run-all goes on", note)


def _requested_elsewhere(folder: Path, plan: JobPlan) -> _Requested:
    """Return what a plan requests that was made for another folder, as of one that was moved."""
    settings = read_resolved(folder, plan) or plan.suite.settings
    suite = plan.suite.model_copy(update={"settings": settings})
    # run-all finds the folder by the suite's name
    renamed = "" if folder.resolve().name == suite.name else f"name this folder {suite.name}, and "
    how_to_go_on = f"to go on here, {renamed}call run-all with --out {folder.resolve().parent}"
    note = (
        f"{PLAN} was made for another folder, as of one that was moved or copied, and its jobs, if "
        f"any live, belong to that one"
    )
    return _Requested(suite, plan.resolved(settings).runs, how_to_go_on, note)


def local_state(folder: Path) -> tuple[str, list[Row]]:
    """Return a sentence with sums and the time left, and a table, its head first.

    The runs are those that the last call of run-all requested; of a race those of the methods in
    it, with the seeds up to its round. A run is done if it ended well or is unsupported. The time
    left is said only while a run is under way and one is done. A plan that was made for another
    folder, or before that call, is named. UserError if there is no sweep.
    """
    requested = _requested(folder)
    suite, specs = requested.suite, requested.runs
    race = None
    if suite.until is not None:
        race = standing(measured(folder), suite.until, tuple(suite.methods))
        specs = suite.runs(race.staying, range(race.seeds))
    recorded = {headline.run_id: headline for headline in headlines(folder)}
    status_of_run = {
        spec.run_id: recorded[spec.run_id].status if spec.run_id in recorded else None
        for spec in specs
    }
    # runs that failed are among those left: the same command does them again
    left = [spec for spec in specs if status_of_run[spec.run_id] not in FINAL]
    under_way = {}
    for spec in left:
        progress = _under_way(folder, spec)
        if progress:
            under_way[spec.run_id] = progress

    rows = [LOCAL_HEAD]
    pace_of_method: dict[str, float] = {}
    for name in dict.fromkeys(spec.method.name for spec in specs):
        of_method = [spec for spec in specs if spec.method.name == name]
        done = [spec for spec in of_method if status_of_run[spec.run_id] in FINAL]
        failed = sum(status_of_run[spec.run_id] in FAILED for spec in of_method)
        shown_pace = "-"
        if done:
            pace_of_method[name] = fmean(recorded[spec.run_id].wall_seconds for spec in done)
            shown_pace = f"{pace_of_method[name]:.1f}"
        working = "; ".join(
            f"seed {spec.seed}, {under_way[spec.run_id]}"
            for spec in of_method
            if spec.run_id in under_way
        )
        rows.append((name, f"{len(done)} of {len(of_method)}", str(failed), shown_pace, working))

    total_failed = sum(status_of_run[spec.run_id] in FAILED for spec in left)
    sums = f"{len(specs) - len(left)} of {len(specs)} runs are done"
    if total_failed:
        sums += f", {total_failed} failed"
    if left and not under_way:
        sums += f"; none is under way, and {requested.how_to_go_on}"
    elif left and pace_of_method:
        # Whether the call under way tries failed runs again isn't known. They are left out, except
        # for those that it has begun again.
        timed = [
            spec
            for spec in left
            if spec.run_id in under_way or status_of_run[spec.run_id] not in FAILED
        ]
        sums += f"; about {in_words(_seconds_left(timed, pace_of_method))} left"
        if total_failed:
            sums += ", failed runs aside"
    if requested.note:
        sums += f"; {requested.note}"
    return (sums if race is None else f"{race}; {sums}"), rows


def _seconds_left(left: Sequence[RunSpec], pace_of_method: Mapping[str, float]) -> float:
    """Return the seconds that runs take one after another, each as long as its method's finished
    runs on average; one under way counts whole.

    `pace_of_method` is method -> mean seconds of its finished runs, and not empty. A method without
    finished runs gets the mean of the other methods' paces, each of which counts once.
    """
    pace_of_others = fmean(pace_of_method.values())
    return sum(pace_of_method.get(spec.method.name, pace_of_others) for spec in left)


def _under_way(folder: Path, spec: RunSpec) -> str:
    """Return the step and rate of a run that a living process works on, in samples per second
    over all ranks; before its first point what it does, as its rank says; empty if no process
    works on it.
    """
    run_folder = folder / spec.run_id
    beats = []
    for beat in heartbeat.read(run_folder):
        process = processes.identify(beat.pid)
        if process is None:
            continue
        with suppress(psutil.Error):
            # a process that began after the beat isn't the one that wrote it: it only has its
            # number
            if process.create_time() <= beat.at:
                beats.append(beat)
    if not beats:
        return ""
    points = read_last_points(run_folder)
    if not points:
        return beats[0].where

    last_step = max(point.step for point in points)
    progress = f"step {last_step}"
    total_steps = steps_of(spec)
    if total_steps:
        progress += f" of {total_steps}"
    times = [point.value for point in points if point.metric == STEP_SECONDS]
    seconds = times[-1] if times else None
    if seconds:
        progress += f", {spec.settings.global_batch / seconds:,.0f} samples/s"
    return progress
