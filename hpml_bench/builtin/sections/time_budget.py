"""Time budget, the parts of the wall time of the runs: training, evaluation, and what the harness adds."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section
from hpml_bench.records.run import RunRecord
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, cell, number, section_of, table

order = 66
question = "cost"
about = "start, training, validation, test"
PARTS = {
    "start": "first_step_seconds",
    "training": "train_seconds",
    "validation": "evaluation_seconds",
    "test": "inference_seconds",
}
"""Column and metric."""


def section(results: Results) -> Section | None:
    """Return a table with one row per method and one for all runs; None if no run has its time to the first step."""
    by_method = {method: [run for run in results.costed(method) if _timed(run)] for method in results.methods}
    timed = [run for runs in by_method.values() for run in runs]
    if not timed:
        return None
    rows = [[method, *_cells(runs)] for method, runs in by_method.items() if runs]
    rows.append(["all", *_cells(timed)])
    columns = ["method", "runs", "wall time (s)", *(f"{part} (%)" for part in PARTS), "rest (%)"]
    notes = [
        "Wall time as the sweep saw it, summed over the compared runs in one environment. Start: from the launch of "
        "the processes to the first training step. Rest: probes that measure after training (latency, saved size), "
        "logging, writing, and the end of the processes.",
        f"Training and evaluation are {number(_share(timed), '.0f')} % of it.",
    ]
    budget = table("time_budget", "Where the time of the runs went", columns, rows, notes)
    return section_of("time-budget", "Time budget", budget)


def _timed(record: RunRecord) -> bool:
    return bool(record.seconds) and all(record.metrics.get(metric) for metric in PARTS.values())


def _seconds(records: list[RunRecord], metric: str) -> float:
    return sum(record.metrics[metric] or 0.0 for record in records)


def _cells(records: list[RunRecord]) -> list[Cell]:
    """Return number of runs, wall time, and the parts' percentages of it."""
    wall = sum(record.seconds for record in records)
    shares = [100 * _seconds(records, metric) / wall for metric in PARTS.values()]
    shares.append(100 - sum(shares))
    return [cell(len(records), "d"), cell(wall, ".1f"), *(cell(share, ".1f") for share in shares)]


def _share(records: list[RunRecord]) -> float:
    """Return the percentage of the wall time that is training and evaluation."""
    spent = sum(_seconds(records, metric) for part, metric in PARTS.items() if part != "start")
    return 100 * spent / sum(record.seconds for record in records)
