"""Jobs and hosts: where runs ran, costs by hardware and neighbours, sums of the jobs' times."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from audit.page import Table
from audit.runs import Run
from audit.study import Study
from audit.values import NUMBER, Fact, Json, mean_cell
from audit.words import Cells, Row, metric_of

UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0}


def place(run: Run) -> Json:
    """Return where a run ran; empty where no job did it."""
    found: Json = run.record["environment"].get("where") or {}
    return found


def placed_rows(study: Study, _: Table) -> list[str]:
    """Return the rows of the table of places."""
    return [name for name, runs in study.methods.items() for run in runs if place(run)]


def placed(study: Study, _: Table, row: Row) -> Cells:
    """A run's place against its record."""
    run = next(run for run in study.methods[row["method"]] if str(run.seed) == row["Seed"])
    said = place(run)
    return {
        "Seed": run.seed,
        "Hosts": ", ".join(said.get("hosts") or [said["host"]]),
        "Engine": str(said["engine"]),
        "Job": str(said["job"]),
        "Restart": int(said["restart"]),
        "Neighbours": run.neighbours,
    }


def group(run: Run) -> tuple[str, str]:
    """Return a run's hardware, and whether it had neighbours."""
    return run.record["environment"]["fingerprint"], "some" if run.neighbours else "none"


def by_hardware(study: Study, table: Table, row: Row) -> Cells:
    """A method's costs on one hardware, of runs alone or of those with neighbours."""
    fingerprint = row["Hardware"].rpartition("(")[2].rstrip(")")
    runs = [run for run in study.methods[row["method"]] if group(run) == (fingerprint, row["Neighbours"])]
    cells: Cells = {"Runs": len(runs), "Neighbours": row["Neighbours"] if runs else "?", "method": row["method"]}
    for header in table.header:
        if found := metric_of(study, header):
            values = [value for run in runs if (value := run.metric(found[0])) is not None]
            cells[header] = mean_cell([found[1] * value for value in values])
    return cells


def hardware_rows(study: Study, _: Table) -> list[str]:
    """Return the hardware of each row, in words of its own: of each group and method."""
    found = []
    for runs in study.methods.values():
        for fingerprint, some in {group(run) for run in runs}:
            said = next(run for run in runs if group(run) == (fingerprint, some)).record["environment"]["hardware"]
            cards = said.get("gpus") or []
            words = f"{len(cards)} x {cards[0]['name']}" if cards else f"{said['cpu']}, {said['cores']} cores"
            nodes = f"{said['nodes']} nodes, " if said.get("nodes", 1) > 1 else ""
            found.append(f"{nodes}{words} ({fingerprint})")
    return found


@dataclass(frozen=True)
class Start:
    """A start of a job, in seconds since 1970."""

    queued: float
    began: float
    ended: float
    running: float
    prepares: bool

    @property
    def idle(self) -> float:
        """Seconds without a run."""
        return 0.0 if self.prepares else max(0.0, self.ended - self.began - self.running)


def starts(study: Study) -> list[Start]:
    """Return the starts of the jobs of a folder, with the seconds of the runs that name them."""
    ends: dict[tuple[str, int], float] = {}
    found = []
    jobs = [json.loads(path.read_text(encoding="utf-8")) for path in (study.folder / "jobs").glob("*.json")]
    for job in sorted(jobs, key=lambda job: (job["began"], job["unit"])):
        runs = [run for run in study.runs if (place(run).get("job"), place(run).get("restart")) == key_of(job)]
        lengths = [float(run.record["seconds"]) for run in runs]
        last = [seconds(run.started) + length for run, length in zip(runs, lengths, strict=True)]
        began = seconds(job["began"])
        # A start that was killed says no end: the last that is known of it.
        ended = max([began, *last, *([seconds(job["ended"])] if job["ended"] else [])])
        queued = seconds(job["queued"]) if job["queued"] else began
        if job["restart"]:
            queued = max(queued, ends.get((job["job"], job["unit"]), queued))
        ends[job["job"], job["unit"]] = ended
        found.append(Start(min(queued, began), began, ended, sum(lengths), job["unit"] < 0))
    return found


def key_of(job: Json) -> tuple[str, int]:
    """Return by what runs name a start of a job."""
    return job["job"], job["restart"]


def seconds(text: str) -> float:
    """Return a time as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def sums(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the sums over the jobs, in the unit that is shown."""
    jobs = starts(study)
    values = {
        "queued": sum(job.began - job.queued for job in jobs),
        "preparing": sum(job.ended - job.began for job in jobs if job.prepares),
        "in runs": sum(job.running for job in jobs),
        "idle": sum(job.idle for job in jobs),
        "from first": max(job.ended for job in jobs) - min(job.queued for job in jobs),
    }
    yield "jobs", found[1], len(jobs)
    shown = re.findall(rf"({NUMBER}) (h|min|s) (queued|preparing|in runs|idle|from first)", found.string)
    for text, unit, what in shown:
        yield what, text, values[what] / UNITS[unit]
    yield (
        "sums",
        str(sorted(what for *_, what in shown)),
        str(sorted(w for w in values if values[w] or w != "preparing")),
    )


def counts(study: Study) -> list[int]:
    """Return the numbers of compared runs that jobs did, of jobs and of hosts."""
    places = [place(run) for run in study.compared if place(run)]
    hosts = {host for said in places for host in said.get("hosts") or [said["host"]]}
    return [len(places), len({(said["job"], said["restart"]) for said in places}), len(hosts)]
