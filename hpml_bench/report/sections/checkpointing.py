"""Gradient checkpointing: the time that it costs and the memory that it saves, where a results folder has both."""

from __future__ import annotations

from statistics import fmean

from hpml_bench.records.run import RunRecord
from hpml_bench.report.blocks import Section
from hpml_bench.report.comparability import alone, machine_of, method_of
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, cell, table

order = 69
COLUMNS = ("method", "seeds", "time, kept (s)", "time, computed again (s)", "ratio", "peak, kept (MB)",
           "peak, computed again (MB)", "saved (MB)")  # fmt: skip
Pair = tuple[RunRecord, RunRecord]
"""A run that keeps its activations, and one that computes them again."""


def section(results: Results) -> Section | None:
    """Return a table with a row a method that ran both ways; None where none did."""
    rows = [_row(method, pairs) for method in results.methods if (pairs := _pairs(results, method))]
    if not rows:
        return None
    notes = [
        "Means over the seeds that a method ran with and without gradient checkpointing, all else equal and on one "
        "machine. The same steps lead to the same model but for rounding. Time and peak are those of training."
    ]
    caption = "Activations kept, or computed again in the backward pass"
    found = table("checkpointing", caption, COLUMNS, rows, notes)
    return Section(slug="checkpointing", title="Gradient checkpointing", blocks=(found,))


def _pairs(results: Results, method: str) -> list[Pair]:
    """Return a method's runs of either kind by seed, alone on one machine."""
    own = {record.spec.seed: record for record in filter(alone, results.costed(method))}
    found = []
    for other in filter(alone, results.selection.checkpointed):
        record = own.get(other.spec.seed)
        if record and method_of(other) == method_of(record) and machine_of(other) == machine_of(record):
            found.append((record, other) if other.spec.settings.gradient_checkpointing else (other, record))
    return found


def _row(method: str, pairs: list[Pair]) -> list[Cell]:
    kept, again = ([pair[side] for pair in pairs] for side in (0, 1))
    times, peaks = ([_mean(runs, name) for runs in (kept, again)] for name in ("train_seconds", "peak_memory_mb"))
    values = [*times, times[1] / times[0], *peaks, peaks[0] - peaks[1]]
    formats = (".2f", ".2f", ".2f", ",.0f", ",.0f", ",.0f")
    return [method, (str(len(pairs)), float(len(pairs))), *(cell(v, s) for v, s in zip(values, formats, strict=True))]


def _mean(runs: list[RunRecord], metric: str) -> float:
    """Return the mean of a metric over runs; NaN where one hasn't measured it."""
    return fmean(float("nan") if (value := run.metrics.get(metric)) is None else value for run in runs)
