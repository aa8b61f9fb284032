"""Every run: its status, seed, place in the sweep and time."""

from __future__ import annotations

from hpml_bench.records import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, number, table

order = 140
METRICS = ("test_accuracy", "test_loss", "train_seconds", "samples_per_second", "peak_memory_mb")


def section(results: Results) -> Section | None:
    """Return a row a run, in the order they ran."""
    quantities = [Quantity.of(results, name) for name in results.measured(*METRICS)]
    compared = {record.run_id for record in results.compared}
    rows: list[list[Cell]] = []
    for record in sorted(results.records, key=lambda r: (r.started, r.run_id)):
        place = (MISSING, None) if record.order is None else (str(record.order), float(record.order))
        rows.append(
            [
                results.labels.get(record.run_id, record.spec.method.name),
                (str(record.spec.seed), float(record.spec.seed)),
                place,
                record.status if record.run_id in compared or record.status != "ok" else "ok, set apart",
                (number(record.seconds, ".1f"), record.seconds),
                *(quantity.cell(record.metrics.get(quantity.metric.name)) for quantity in quantities),
                record.run_id,
            ]
        )
    columns = ("method", "Seed", "Place", "Status", "Wall time (s)", *(q.header for q in quantities), "Run")
    notes = [
        "Place: position in the sweep that made the run; methods are shuffled within a seed, so that none is "
        "confounded with the hour. Wall time includes start-up."
    ]
    return Section(slug="runs", title="Runs", blocks=(table("runs", "All recorded runs", columns, rows, notes),))
