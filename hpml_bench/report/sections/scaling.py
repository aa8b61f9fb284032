"""Scaling over ranks: the same runs on one rank and on several, where a results folder has both."""

from __future__ import annotations

import math
from statistics import fmean

from hpml_bench.records.run import RunRecord
from hpml_bench.report.blocks import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, cell, table

order = 68
Runs = dict[int, list[RunRecord]]
"""Number of ranks -> runs."""


def section(results: Results) -> Section | None:
    """Return a table with a row a method and number of ranks; None where all runs have one number of ranks."""
    rows: list[list[Cell]] = []
    for method in results.methods:
        by_ranks = _matching(results, method)
        if len(by_ranks) > 1:
            fewest = min(by_ranks)
            rows.extend(_row(method, ranks, by_ranks[ranks], fewest, by_ranks[fewest]) for ranks in sorted(by_ranks))
    if not rows:
        return None
    columns = ["method", "ranks", "samples/s", "speed-up", "efficiency (%)", "all-reduced (bytes/step)",
               "all-reduce time (ms)", "all-reduce share (%)"]  # fmt: skip
    notes = [
        "Means over the seeds that every number of ranks has, on one machine, with one global batch and the same "
        "threads a rank. Efficiency: speed-up divided by the ratio of ranks. The all-reduce's time runs from a "
        "backward pass's first reduction to the end of its last; waiting for slower ranks and work beside it are in it."
    ]
    scaled = table("scaling", "The same training on more ranks", columns, rows, notes)
    return Section(slug="scaling", title="Scaling over ranks", blocks=(scaled,))


def _matching(results: Results, method: str) -> Runs:
    """Return a method's runs by number of ranks, of the seeds that every number has."""
    by_ranks = results.scaled(method)
    if not by_ranks:
        return {}
    shared = set.intersection(*({record.spec.seed for record in runs} for runs in by_ranks.values()))
    found = {n: [record for record in runs if record.spec.seed in shared] for n, runs in by_ranks.items()}
    return {n: runs for n, runs in found.items() if runs}


def _row(method: str, ranks: int, runs: list[RunRecord], fewest: int, base: list[RunRecord]) -> list[Cell]:
    rate, first = _mean(runs, "samples_per_second"), _mean(base, "samples_per_second")
    gain = rate / first if first else math.nan
    reduced = [_mean(runs, name) for name in ("allreduced_bytes_per_step", "communication_ms", "communication_percent")]
    values = [rate, gain, 100 * gain * fewest / ranks, *(reduced if ranks > 1 else [math.nan] * 3)]
    formats = (",.0f", ".2f", ".0f", ",.0f", ".2f", ".1f")
    return [method, (str(ranks), float(ranks)), *(cell(v, spec) for v, spec in zip(values, formats, strict=True))]


def _mean(runs: list[RunRecord], metric: str) -> float:
    """Return the mean of a metric over runs; NaN where one hasn't measured it."""
    values = [record.metrics.get(metric) for record in runs]
    return fmean(math.nan if value is None else value for value in values)
