"""Gradient checkpointing: the time that it costs and the memory that it saves, where a results folder has both."""

from __future__ import annotations

from collections import Counter
from statistics import fmean

from hpml_bench.config.settings import identity
from hpml_bench.records.run import RunRecord
from hpml_bench.report.blocks import Section
from hpml_bench.report.comparability import machine_of, method_of
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
    """Return a method's runs of either kind that differ in nothing else."""
    there: dict[str, list[RunRecord]] = {}
    for group in results.selection.left_out.excluded:
        for record in group.records:
            if all(check.passed for check in record.checks):
                there.setdefault(_all_else(record), []).append(record)
    own = results.costed(method)
    once = {key for key, count in Counter(map(_all_else, own)).items() if count == 1}
    pairs = [(record, other[0]) for record in own
             if _all_else(record) in once and len(other := there.get(_all_else(record), [])) == 1]  # fmt: skip
    ordered = [(a, b) if b.spec.settings.gradient_checkpointing else (b, a) for a, b in pairs]
    return [
        (a, b) for a, b in ordered if a.spec.settings.gradient_checkpointing < b.spec.settings.gradient_checkpointing
    ]


def _all_else(record: RunRecord) -> str:
    """Return all but the checkpointing that two runs must share."""
    settings = record.spec.settings.model_copy(update={"gradient_checkpointing": False})
    return repr((identity(settings), record.digests, method_of(record), record.spec.seed, machine_of(record)))


def _row(method: str, pairs: list[Pair]) -> list[Cell]:
    kept, again = ([pair[side] for pair in pairs] for side in (0, 1))
    times, peaks = ([_mean(runs, name) for runs in (kept, again)] for name in ("train_seconds", "peak_memory_mb"))
    values = [*times, times[1] / times[0], *peaks, peaks[0] - peaks[1]]
    formats = (".2f", ".2f", ".2f", ",.0f", ",.0f", ",.0f")
    return [method, (str(len(pairs)), float(len(pairs))), *(cell(v, s) for v, s in zip(values, formats, strict=True))]


def _mean(runs: list[RunRecord], metric: str) -> float:
    """Return the mean of a metric over runs; NaN where one hasn't measured it."""
    return fmean(float("nan") if (value := run.metrics.get(metric)) is None else value for run in runs)
