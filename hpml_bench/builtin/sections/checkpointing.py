"""Gradient checkpointing: the time that it costs and the memory that it saves, where a results folder has both."""

from __future__ import annotations

from collections.abc import Sequence

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section
from hpml_bench.report.comparability import method_of
from hpml_bench.report.factors import ONE_SEED, Pair, between, factor, mean
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, cell, section_of, table

order = 69
question = "cost"
about = "time that it costs, memory that it saves"
COLUMNS = ("method", "seeds", "time, kept (s)", "time, computed again (s)", "ratio", "95 % interval of the ratio",
           "peak, kept (MB)", "peak, computed again (MB)", "saved (MB)", "95 % interval of saved (MB)")  # fmt: skip


def section(results: Results) -> Section | None:
    """Return a table with one row per method that ran both ways; None where none did."""
    found = {method: pairs for method in results.methods if (pairs := _pairs(results, method))}
    notes = [
        "Means over the seeds that a method ran with and without gradient checkpointing, all else equal and both on "
        "one host. The same steps lead to the same model but for rounding. Time and peak are those of training. Ratio: "
        "geometric mean of the factors within a seed. Intervals are for other seeds, not adjusted for their number."
    ]
    notes += [ONE_SEED] if any(len(pairs) < 2 for pairs in found.values()) else []
    caption = "Activations kept, or computed again in the backward pass"
    shown = table("checkpointing", caption, COLUMNS, [_row(method, pairs) for method, pairs in found.items()], notes)
    return section_of("checkpointing", "Gradient checkpointing", shown)


def _pairs(results: Results, method: str) -> list[Pair]:
    """Return a method's runs of either kind by seed: one that keeps its activations, one that computes them again."""
    own = {(method_of(record), record.spec.seed): record for record in results.costed(method)}
    pairs = [
        (record, other)
        for other in results.selection.checkpointed
        if (record := own.get((method_of(other), other.spec.seed)))
    ]
    return [(b, a) if a.spec.settings.gradient_checkpointing else (a, b) for a, b in pairs]


def _row(method: str, pairs: Sequence[Pair]) -> list[Cell]:
    kept, again = ([pair[side] for pair in pairs] for side in (0, 1))
    (time, longer), (peak, lower) = (
        [mean(runs, name) for runs in (kept, again)] for name in ("train_seconds", "peak_memory_mb")
    )
    ratio = factor(pairs, "train_seconds")
    peaks = [[run.metrics.get("peak_memory_mb") for run in runs] for runs in (kept, again)]
    saved = [a - b for a, b in zip(*peaks, strict=True) if a is not None and b is not None]
    return [
        method,
        len(pairs),
        cell(time, ".2f"),
        cell(longer, ".2f"),
        cell(ratio.mean if ratio else None, ".2f"),
        between(ratio),
        cell(peak, ",.0f"),
        cell(lower, ",.0f"),
        cell(peak - lower, ",.0f"),
        between(statistics.mean_interval(saved) if len(saved) == len(pairs) else None, ",.0f"),
    ]
