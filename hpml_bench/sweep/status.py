"""State of a sweep: by jobs of each unit its job and host, else of each method its runs, with
those under way.
"""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import fmean

import psutil
from pydantic import ValidationError

from hpml_bench.records.files import PLAN, SUITE
from hpml_bench.records.jobs import Job, folders_with, read_jobs
from hpml_bench.records.load import headlines
from hpml_bench.records.points import read_points
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
STEP_SECONDS = "step_seconds"  # metric of the points that holds the seconds of a step
LOCAL_HEAD: Row = ("method", "done", "failed", "seconds per run", "under way")


def state(sweep: JobSweep) -> tuple[str, list[Row]]:
    """Return a sentence with sums, and a table: the head, then a row for each unit."""
    live = {job.unit: job for job in sweep.watch.live() if job.unit is not None}
    held = {owner.unit for owner in holders(sweep.folder, sweep.engine)}
    last: dict[int, Job] = {job.unit: job for job in read_jobs(sweep.folder)}
    recorded = {record.run_id: record for record in sweep.watch.records()}
    runs = sweep.watch.refresh()
    rows, total, failed = [HEAD], 0, 0
    states: Counter[str] = Counter()
    for number, unit in enumerate(sweep.plan.units):
        specs = () if runs is None else runs.units[number]
        statuses = [recorded[spec.run_id].status for spec in specs if spec.run_id in recorded]
        done, bad = (sum(status in of for status in statuses) for of in (FINAL, FAILED))
        total, failed = total + done, failed + bad
        job, worked = live.get(number), last.get(number)
        ended = "ended" if done + bad == len(unit.tasks) else "left" if worked else "not begun"
        now = job.state.lower() if job else "running" if number in held else ended
        states[now] += 1
        host = worked.host if worked and (job is None or job.running) else ""
        name = job.name if job else worked.job if worked else ""
        rows.append((str(number), unit.title, now, name, host, f"{done} of {len(unit.tasks)}"))
    count = sum(len(unit.tasks) for unit in sweep.plan.units)
    sums = f"{total} of {count} runs are done" + (f", {failed} failed" if failed else "")
    if (until := sweep.plan.suite.until) is not None:
        sums = f"{standing(measured(sweep.folder), until, tuple(sweep.plan.suite.methods))}; {sums}"
    return f"{sums}; units: {', '.join(f'{count} {now}' for now, count in states.items())}", rows


def plain_sweep(path: Path) -> Path | None:
    """Return the folder of the only sweep in `path`, or itself, if no jobs do it; else None.
    UserError: several.
    """
    folders = folders_with(path, SUITE)
    local = [folder for folder in folders if not (folder / PLAN).exists()]
    if len(local) > 1:
        raise UserError(
            f"{path} holds several sweeps; name one of "
            f"{', '.join(str(folder) for folder in local[:5])}"
        )
    return folders[0] if len(folders) == 1 and local else None


def local_state(folder: Path) -> tuple[str, list[Row]]:
    """Return a sentence with sums and the time left, and a table, its head first; UserError if
    there is no sweep.
    """
    try:
        suite = Suite.model_validate(read_json(folder / SUITE))
    except ValidationError:
        raise UserError(
            f"{folder}: no sweep was begun here; hpml-bench run-all begins one"
        ) from None
    now = standing(measured(folder), suite.until, tuple(suite.methods)) if suite.until else None
    specs = suite.runs(now.staying, range(now.seeds)) if now else suite.runs()
    recorded = {headline.run_id: headline for headline in headlines(folder)}
    status = {
        spec.run_id: recorded[spec.run_id].status if spec.run_id in recorded else None
        for spec in specs
    }
    left = [spec for spec in specs if status[spec.run_id] not in FINAL]
    at_work = {spec.run_id: where for spec in left if (where := _under_way(folder, spec))}
    rows, pace = [LOCAL_HEAD], dict[str, float]()
    for name in dict.fromkeys(spec.method.name for spec in specs):
        own = [spec for spec in specs if spec.method.name == name]
        if seconds := [
            recorded[spec.run_id].wall_seconds for spec in own if status[spec.run_id] in FINAL
        ]:
            pace[name] = fmean(seconds)
        failed = sum(status[spec.run_id] in FAILED for spec in own)
        working = "; ".join(
            f"seed {s.seed}, {at_work[s.run_id]}" for s in own if s.run_id in at_work
        )
        shown = f"{pace[name]:.1f}" if seconds else "-"
        rows.append((name, f"{len(seconds)} of {len(own)}", str(failed), shown, working))
    failed = sum(status[spec.run_id] in FAILED for spec in left)
    sums = f"{len(specs) - len(left)} of {len(specs)} runs are done" + (
        f", {failed} failed" if failed else ""
    )
    if left and not at_work:
        sums += "; none is under way, and the same run-all goes on"
    elif left and pace:  # a remaining run takes as long as its method's so far, or the others'
        asked = [
            spec for spec in left if status[spec.run_id] not in FAILED or spec.run_id in at_work
        ]
        total = sum(pace.get(spec.method.name, fmean(pace.values())) for spec in asked)
        sums += f"; about {in_words(total)} left" + (", failed runs aside" if failed else "")
    return f"{now}; {sums}" if now else sums, rows


def _under_way(folder: Path, spec: RunSpec) -> str:
    """Return the step and rate of a run that a living process works on; empty if none does."""
    path, beats = folder / spec.run_id, []
    for beat in heartbeat.read(path):
        process = processes.identify(beat.pid)
        with suppress(psutil.Error):
            if (
                process is not None and process.create_time() <= beat.at
            ):  # a later one only has its number
                beats.append(beat)
    if not beats:
        return ""
    if not (points := read_points(path)):
        return beats[0].where
    steps, seconds = (
        steps_of(spec),
        next((p.value for p in reversed(points) if p.metric == STEP_SECONDS), None),
    )
    rate = f", {spec.settings.global_batch / seconds:,.0f} samples/s" if seconds else ""
    return f"step {max(point.step for point in points)}" + (f" of {steps}" if steps else "") + rate
