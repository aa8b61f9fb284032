"""Scaling over ranks and nodes: the same runs on few and on more of them, where a results folder has both."""

from __future__ import annotations

import math

from hpml_bench.plugins.blocks import Section
from hpml_bench.records.run import RunRecord
from hpml_bench.report.factors import ONE_SEED, between, factor, mean
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, cell, section_of, table

order = 68
question = "cost"
about = "the same training on more of them"
Size = tuple[int, int]
"""Numbers of ranks and of nodes."""
Runs = dict[Size, list[RunRecord]]
CROSSING = ("within_nodes_bytes_per_step", "between_nodes_bytes_per_step")


def section(results: Results) -> Section | None:
    """Return a table with one row per method and number of ranks and nodes; None where all runs have the same."""
    found = {method: by_size for method in results.methods if len(by_size := _matching(results, method)) > 1}
    over = any(nodes > 1 for by_size in found.values() for _, nodes in by_size)
    rows = [
        _row(method, size, by_size[size], min(by_size), by_size[min(by_size)], over)
        for method, by_size in found.items()
        for size in sorted(by_size)
    ]
    columns = ["method", "ranks", "seeds", "samples/s", "speed-up", "95 % interval", "efficiency (%)",
               "all-reduced (bytes/step)", "all-reduce time (ms)", "all-reduce share (%)",
               *(["within nodes (bytes/step)", "between nodes (bytes/step)"] if over else [])]  # fmt: skip
    notes = [
        "Means over the seeds that every number of ranks has, with one global batch and the same threads a rank; runs "
        "of one method and seed share a host. Speed-up: geometric mean of the factors within a seed, with its 95 % "
        "interval for other seeds, not adjusted for the number of rows. Efficiency: speed-up divided by the ratio of "
        "ranks. The all-reduce's time runs from a backward pass's first reduction to the end of its last; waiting for "
        "slower ranks and work beside it are in it."
    ]
    if any(len(runs) < 2 for by_size in found.values() for runs in by_size.values()):
        notes.append(ONE_SEED)
    if over:
        notes.append(
            "2 × 1 is two nodes with one rank each, all like the machine of the other rows. Bytes within and between "
            "nodes are those of a ring all-reduce, by its formula."
        )
    scaled = table("scaling", "The same training on more ranks", columns, rows, notes)
    return section_of("scaling", "Scaling over ranks", scaled)


def _matching(results: Results, method: str) -> Runs:
    """Return a method's runs by numbers of ranks and nodes, of the seeds that every pair has."""
    by_size = results.scaled(method)
    if not by_size:
        return {}
    shared = set.intersection(*({record.spec.seed for record in runs} for runs in by_size.values()))
    found = {n: [record for record in runs if record.spec.seed in shared] for n, runs in by_size.items()}
    return {n: runs for n, runs in found.items() if runs}


def _row(method: str, size: Size, runs: list[RunRecord], fewest: Size, base: list[RunRecord], over: bool) -> list[Cell]:
    ranks, nodes = size
    by_seed = {record.spec.seed: record for record in base}
    gain = factor([(by_seed[record.spec.seed], record) for record in runs], "samples_per_second")
    up = gain.mean if gain else math.nan
    reduced = [mean(runs, name) for name in ("allreduced_bytes_per_step", "communication_ms", "communication_percent")]
    values = [100 * up * fewest[0] / ranks, *(reduced if ranks > 1 else [math.nan] * 3)]
    values += [mean(runs, name) for name in CROSSING] if over else []
    formats = (".0f", ",.0f", ".2f", ".1f", ",.0f", ",.0f")
    shown = str(ranks) if nodes == 1 else f"{nodes} × {ranks // nodes}"
    return [
        method,
        (shown, float(ranks)),
        len(runs),
        cell(mean(runs, "samples_per_second"), ",.0f"),
        cell(up, ".2f"),
        MISSING if size == fewest else between(gain),
        *(cell(v, spec) for v, spec in zip(values, formats, strict=False)),
    ]
