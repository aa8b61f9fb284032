"""Tables of the runs themselves: consumption, checks, each run, those left out, tuning."""

from __future__ import annotations

import math

from audit.page import Table
from audit.runs import consumed
from audit.study import Study
from audit.trials import score
from audit.values import NUMBER
from audit.words import Cells, Row, amounts, metric_of


def used(study: Study, _: Table, row: Row) -> Cells:
    """What a method's runs consumed."""
    runs = study.methods[row["method"]]
    columns = {"Steps": "steps", "Samples": "samples", "Real tokens": "real_tokens", "Padded tokens": "padded_tokens"}
    cells: Cells = {header: amounts(consumed(run, name)[0] for run in runs) for header, name in columns.items()}
    return cells | {"Sample orders": " ".join(dict.fromkeys(consumed(run, "order")[0][:6] for run in runs))}


def passed(study: Study, table: Table, row: Row) -> Cells:
    """How many runs passed each self-check."""
    cells: Cells = {}
    for header in table.header[1:]:
        made = [
            c["passed"] for run in study.methods[row["method"]] for c in run.record["checks"] if c["name"] == header
        ]
        cells[header] = f"{sum(made)} of {len(made)}" if made else "–"
    return cells


def each_run(study: Study, table: Table, row: Row) -> Cells:
    """A compared run against its record."""
    name, run = next(
        (name, run) for name, runs in study.methods.items() for run in runs if run.folder.name == row["Run"]
    )
    shown = study.here
    cells: Cells = {
        "Seed": run.seed,
        "Order": run.record["order"],
        "Place": run.record.get("place"),
        "Neighbours": run.neighbours,
        "Hosts": ", ".join(run.hosts) or "–",
        "Wall time (s)": float(run.record["seconds"]) if run in shown else None,
    }
    for header in table.header:
        if found := metric_of(study, header):
            counts = run in shown or not study.is_cost(found[0])
            value = run.metric(found[0]) if counts else None
            cells[header] = None if value is None else found[1] * value
    return cells | {"method": name, "Run": run.folder.name}


def apart(study: Study, _: Table, row: Row) -> Cells:
    """How many runs of these methods, seeds and protocol are set apart for this kind of reason."""
    why = next((why for why in set(study.apart.values()) if why in row["Why it is not compared"]), "?")
    runs = [
        run
        for run, reason in study.apart.items()
        if run.spec["name"] in study.named(row["method"])
        and str(run.seed) in row["Seeds"].split(", ")
        and (run.protocol_id, reason) == (row["Protocol"], why)
    ]
    protocols: Cells = {"Protocol": row["Protocol"] if runs else "?", "Why it is not compared": (rf".*{why}.*", [])}
    return protocols | {"Seeds": ", ".join(map(str, sorted({run.seed for run in runs}))), "Runs": len(runs)}


def shortened(text: str) -> str:
    """Return a text of 400 characters at most."""
    return text if len(text) <= 400 else f"{text[:399]}…"


def failed(study: Study, _: Table, row: Row) -> Cells:
    """How a run ended that did not end well."""
    log = row["Log"].partition("/")[0]
    run = next(run for run in study.runs if run.folder.name == log)
    error, checks = run.record["error"], [check for check in run.record["checks"] if not check["passed"]]
    reason = "; ".join(f"{check['name']}: {check['detail']}" for check in checks) or "–"
    if error:
        rank = "" if error["rank"] is None else f" (rank {error['rank']})"
        reason = f"{error['kind']}: {shortened(error['message'])}{rank}"
    return {
        "Seed": run.seed,
        "Status": run.record["status"],
        "Meaning": row["Meaning"],
        "Log": row["Log"],
        "Reason": reason,
    }


def tuned(study: Study, table: Table, row: Row) -> Cells:
    """The chosen rate against the record of the trials."""
    tuning, trials = study.tuning, study.tuning.trials[row["method"]]
    best, ended = tuning.best(row["method"]), tuning.ended(row["method"])
    near = [tuning.scale * score(t) for t in ended if abs(math.log(t["lr"] / best["lr"])) <= math.log(3) + 1e-9]
    rates = sorted({float(f"{run.spec['lr']:.3g}") for run in study.compared if run.spec["name"] == row["method"]})
    fixed = best["parameters"] == 0
    of_best, near_best = (
        next(h for h in table.header if h.startswith(words)) for words in ("Validation ", "Within x3")
    )
    return {
        "Rate of the runs": None if fixed or not rates else (", ".join([f"({NUMBER})"] * len(rates)), rates),
        "Best rate": None if fixed else float(best["lr"]),
        of_best: tuning.scale * score(best),
        near_best: None if fixed else (rf"({NUMBER})–({NUMBER})", [min(near), max(near)]),
        "Trials": len(trials),
        "Failed": len(trials) - len(ended),
        "Tuning (s)": float(sum(trial["seconds"] for trial in trials)),
    }
