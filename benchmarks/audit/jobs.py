"""Jobs and hosts: where runs ran, costs by hardware and neighbours."""

from __future__ import annotations

from audit.page import Table
from audit.runs import Run
from audit.study import Study
from audit.values import Json, mean_cell, whole
from audit.words import Cells, Row, metric_of


def place(run: Run) -> Json:
    """Return where a run ran; empty where no job did it."""
    found: Json = run.record["environment"].get("where") or {}
    return found


def placed_rows(study: Study, _: Table) -> list[str]:
    """Return the rows of the table of places."""
    return [name for name, runs in study.methods.items() for run in runs if place(run)]


def placed(study: Study, _: Table, row: Row) -> Cells:
    """A run's place against its record."""
    run = next(run for run in study.methods[row["method"]] if run.seed == whole(row["Seed"]))
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
