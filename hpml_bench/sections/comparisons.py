"""Which differences are real: intervals, rank intervals and every pair of methods, for the metrics that decide."""

from __future__ import annotations

from hpml_bench.records import Metric, Section, Table
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, number, p_value, rank, table
from hpml_bench.statistics import Comparison

order = 30
METRICS = ("test_accuracy", "train_seconds", "samples_per_second", "peak_memory_mb")
COSTS = frozenset({"train", "run", "setup"})
PAIR_COLUMNS = (
    "Pair", "Seeds", "Difference", "95 % interval", "p (Holm)", "Sign-flip p", "Its floor", "First higher",
    "Detectable", "Verdict",
)  # fmt: skip


def section(results: Results) -> Section | None:
    """Return intervals and pairwise tests; nothing with one method or one seed."""
    metrics = results.measured(*METRICS)
    if len(results.methods) < 2 or len(results.seeds) < 2 or not metrics:
        return None
    pairs = [table for name in metrics if (table := _pairs(results, name)) is not None]
    blocks = (_intervals(results, metrics), *pairs)
    return Section(slug="comparisons", title="Which differences are real", blocks=blocks)


def _ranked(results: Results, metric: Metric) -> bool:
    return results.one_machine or metric.phase not in COSTS


def _intervals(results: Results, metrics: tuple[str, ...]) -> Table:
    columns, cells = ["method"], {method: [method] for method in results.methods}
    for name in metrics:
        quantity = Quantity.of(results, name)
        ranked = _ranked(results, quantity.metric)
        ranks = results.ranks(name) if ranked else {}
        columns.append(quantity.header)
        for method in results.methods:
            interval = results.interval(method, name)
            shown = f"{quantity.text(interval.mean)} {quantity.between(interval)}" if interval else MISSING
            cells[method].append(f"{shown}, rank {rank(ranks[method])}" if method in ranks else shown)
    notes = [
        "Mean and Student-t 95 % interval over seeds. Ranks are intervals: 1 + methods significantly better, to k − "
        "methods significantly worse."
    ]
    return table("intervals", "Means with 95 % intervals, and rank intervals", columns, cells.values(), notes)


def _pairs(results: Results, name: str) -> Table | None:
    quantity = Quantity.of(results, name)
    comparisons = results.comparisons(name)
    if not comparisons or not _ranked(results, quantity.metric):
        return None
    rows = [_row(quantity, comparison) for comparison in comparisons]
    notes = [
        "Differences are first minus second within a seed. p: paired t, Holm over these pairs. The sign-flip test "
        "can't go below "
        "its floor with so few seeds. First higher: share of seeds, ties half. Detectable: the least true "
        "difference found with a chance of 80 % before adjustment."
    ]
    return table(
        f"pairs_{name}",
        f"Pairs by {quantity.title}{f' ({quantity.unit})' if quantity.unit else ''}",
        PAIR_COLUMNS,
        rows,
        notes,
    )


def _row(quantity: Quantity, c: Comparison) -> list[Cell]:
    return [
        f"{c.a} − {c.b}",
        (str(c.difference.n), float(c.difference.n)),
        quantity.cell(c.difference.mean),
        quantity.between(c.difference),
        ("exact" if c.exact else p_value(c.p_adjusted), c.p_adjusted),
        (p_value(c.p_sign_flip), c.p_sign_flip),
        (p_value(c.sign_flip_floor), c.sign_flip_floor),
        (number(c.superiority, ".2f"), c.superiority),
        quantity.cell(c.detectable),
        _verdict(quantity.metric, c),
    ]


def _verdict(metric: Metric, c: Comparison) -> str:
    if not c.differs:
        return "can't tell" if not c.exact else "equal"
    if metric.better == "neither":
        return f"{c.higher} is higher"
    return f"{c.higher if metric.better == 'higher' else c.lower} is better"
