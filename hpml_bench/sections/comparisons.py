"""Which differences are real: intervals, rank intervals and every pair of methods, for the metrics that decide."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from hpml_bench import statistics
from hpml_bench.records import Metric, Section, Table
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, number, p_value, rank, sentence_list, table
from hpml_bench.statistics import Comparison, Interval

order = 30
LIKE_FIRST = "The columns are those of the first table of pairs."
METRICS = ("test_accuracy", "train_seconds", "samples_per_second", "peak_memory_mb")
PAIR_COLUMNS = (
    "Pair", "Verdict", "Difference", "95 % interval", "p", "p (Holm)", "Sign-flip p", "Least sign-flip p",
    "Seeds with first higher", "Detectable", "Detectable (Holm)", "Seeds",
)  # fmt: skip


def section(results: Results) -> Section | None:
    """Return intervals and pairwise tests; nothing with one method or one seed."""
    metrics = results.measured(*METRICS)
    if len(results.methods) < 2 or len(results.seeds) < 2 or not metrics:
        return None
    tables = [_intervals(results, metrics), *_all_pairs(results, metrics), _crossed(results)]
    blocks = tuple(table for table in tables if table is not None)
    return Section(slug="comparisons", title="Which differences are real", blocks=blocks)


def _intervals(results: Results, metrics: tuple[str, ...]) -> Table:
    columns, cells = ["method"], {method: [method] for method in results.methods}
    for name in metrics:
        quantity = Quantity.of(results, name)
        ranks = results.ranks(name)
        columns.append(quantity.header)
        for method in results.methods:
            interval = results.interval(method, name)
            shown = f"{quantity.text(interval.mean)} {quantity.between(interval)}" if interval else MISSING
            cells[method].append(f"{shown}, rank {rank(ranks[method])}" if method in ranks else shown)
    notes = [
        f"Mean and 95 % interval over seeds: Student's t, from {statistics.BCA_FROM} seeds BCa. It is for other seeds "
        "on this test set. Ranks are intervals: 1 + methods significantly better, to k − methods significantly worse."
    ]
    compared = sentence_list([results.definitions[name].title for name in metrics])
    notes.append(
        f"Compared by {compared} alone; the other metrics (loss, macro-F1, latency and so on) stand as mean ± standard "
        "deviation, without interval or test, in the tables of Summary, Throughput, Memory, Inference and Parameters "
        "and gradients."
    )
    unranked = [results.definitions[name].title for name in metrics if not results.rankable(name)]
    if unranked:
        notes.append(f"Not ranked, since hardware or versions differ between the runs: {', '.join(unranked)}.")
    return table("intervals", "Means with 95 % intervals, and rank intervals", columns, cells.values(), notes)


def _all_pairs(results: Results, metrics: tuple[str, ...]) -> Iterator[Table]:
    """Yield a table for every metric that has pairs; the first explains the columns of all."""
    notes = [
        "Differences are first minus second within a seed. Each 95 % interval is its own pair's and not adjusted for "
        "the number of pairs, so that it may leave out zero where the verdict, by Holm's p, is that one can't tell. "
        "p: paired t; beside it Holm over the pairs of one table. "
        "With so few seeds the sign-flip p can't be below the least. Seeds with first higher: their share, ties half. "
        "Detectable: the least true difference found with a chance of 80 %, by p alone and at Holm's first step; "
        "unknown where the differences are the same in every seed."
    ]
    for name in metrics:
        if comparisons := results.comparisons(name):
            yield _pairs(Quantity.of(results, name), comparisons, notes)
            notes = [LIKE_FIRST]


def _pairs(quantity: Quantity, comparisons: tuple[Comparison, ...], notes: list[str]) -> Table:
    name = quantity.metric.name
    rows = [_row(quantity, comparison) for comparison in comparisons]
    unit = " (differences in points)" if quantity.unit == "%" else f" ({quantity.unit})" if quantity.unit else ""
    counts = {comparison.difference.n for comparison in comparisons}
    if len(counts) > 1:
        return table(f"pairs_{name}", f"Pairs by {quantity.title}{unit}", PAIR_COLUMNS, rows, notes)
    caption = f"Pairs by {quantity.title}{unit} over {counts.pop()} seeds"
    return table(f"pairs_{name}", caption, PAIR_COLUMNS[:-1], [row[:-1] for row in rows], notes)


def _row(quantity: Quantity, c: Comparison) -> list[Cell]:
    return [
        f"{c.a} − {c.b}",
        _verdict(quantity.metric, c),
        quantity.cell(c.difference.mean),
        quantity.between(c.difference),
        (MISSING if c.exact else p_value(c.p), None if c.exact else c.p),
        ("exact" if c.exact else p_value(c.p_adjusted), c.p_adjusted),
        (p_value(c.p_sign_flip), c.p_sign_flip),
        (p_value(c.sign_flip_floor), c.sign_flip_floor),
        (number(c.superiority, ".2f"), c.superiority),
        quantity.cell(c.detectable),
        quantity.cell(c.detectable_first),
        (str(c.difference.n), float(c.difference.n)),
    ]


def _verdict(metric: Metric, c: Comparison) -> str:
    if not c.differs:
        return "can't tell" if not c.exact else "equal"
    if metric.better == "neither":
        return f"{c.higher} is higher"
    return f"{c.higher if metric.better == 'higher' else c.lower} is better"


def _crossed(results: Results) -> Table | None:
    """Return accuracy with intervals for other seeds alone and for other seeds and test rows."""
    if not results.measured("test_accuracy"):
        return None
    accuracy = Quantity.of(results, "test_accuracy")
    rows = [
        [name, (str(one.n), float(one.n)), accuracy.cell(one.mean), accuracy.between(over_seeds), accuracy.between(one)]
        for name, over_seeds, one in _crossed_intervals(results)
    ]
    if not rows:
        return None
    notes = [
        "Over seeds: for other seeds on this very test set. Over seeds and rows: for other seeds and another test set "
        "of this size from the same source; both are conditional on these training rows. Methods share rows, "
        "so differences are surer than the two accuracies. Intervals are not adjusted for their number."
    ]
    columns = ("Method or difference", "Seeds", "Accuracy (%) or points", "95 % over seeds", "95 % over seeds and rows")
    return table("crossed", "Accuracy beyond this test set", columns, rows, notes)


def _crossed_intervals(results: Results) -> Iterator[tuple[str, Interval, Interval]]:
    """Yield name, interval over seeds, and interval over seeds and rows, of every method and every pair."""
    right = {method: by_seed for method in results.methods if len(by_seed := results.right(method)) > 1}
    for method, by_seed in right.items():
        values = list(by_seed.values())
        if values[0].size > 1:
            yield method, statistics.mean_interval([v.mean() for v in values]), statistics.crossed_interval(values)
    for a, b in combinations(right, 2):
        shared = sorted(right[a].keys() & right[b].keys())
        differences = [right[a][seed].astype(float) - right[b][seed] for seed in shared]
        if len(shared) > 1 and differences[0].size > 1:
            over_seeds = statistics.mean_interval([d.mean() for d in differences])
            yield f"{a} − {b}", over_seeds, statistics.crossed_interval(differences)
