"""State of a sweep's units: each unit's job, its host, and the number of runs done."""

from __future__ import annotations

from collections import Counter

from hpml_bench.records.jobs import Job, claims, read_jobs
from hpml_bench.records.run import DONE
from hpml_bench.sweep.submit import JobSweep

Row = tuple[str, ...]
HEAD: Row = ("unit", "runs", "state", "job", "host", "done")


def state(sweep: JobSweep) -> tuple[str, list[Row]]:
    """Return a sentence with sums, and a table: the head, then a row for each unit."""
    live = {job.unit: job for job in sweep.engine.live(sweep.plan) if job.unit is not None}
    owners = claims(sweep.folder)
    dead = sweep.engine.dead_among(owners)
    held = {owner.unit for owner in owners if owner.name not in dead}
    last: dict[int, Job] = {job.unit: job for job in read_jobs(sweep.folder)}
    observed = sweep.observe()
    recorded = {} if observed is None else {state.run_id: state for state in observed.states}
    rows, total, failed = [HEAD], 0, 0
    states: Counter[str] = Counter()
    for number, unit in enumerate(sweep.plan.units):
        specs = () if observed is None else observed.plan.units[number]
        records = [recorded[spec.run_id] for spec in specs if spec.run_id in recorded]
        done = sum(record.status in DONE for record in records)
        total, failed = total + done, failed + len(records) - done
        job, worked = live.get(number), last.get(number)
        complete = len(records) == len(unit.tasks)
        ended = "ended" if complete else "left" if worked else "not begun"
        now = job.state.lower() if job else "running" if number in held else ended
        states[now] += 1
        host = worked.host if worked and (job is None or job.running) else ""
        name = job.name if job else worked.job if worked else ""
        rows.append((str(number), unit.title, now, name, host, f"{done} of {len(unit.tasks)}"))
    runs = sum(len(unit.tasks) for unit in sweep.plan.units)
    sums = f"{total} of {runs} runs are done" + (f", {failed} failed" if failed else "")
    return f"{sums}; units: {', '.join(f'{count} {now}' for now, count in states.items())}", rows
