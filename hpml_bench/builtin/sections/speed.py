"""Speed: parts of the runs' time, scaling over ranks, and the price of gradient checkpointing."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from hpml_bench import statistics
from hpml_bench.judge.results import Results
from hpml_bench.page.tables import section_of, table
from hpml_bench.plugins.blocks import Section
from hpml_bench.records.numbers import MISSING, Cell, cell, limits, number
from hpml_bench.records.run import RunRecord
from hpml_bench.select.comparability import method_of

order = 66
PARTS = {
    "start": ("first_step_seconds",),
    "training": ("train_seconds",),
    "validation": ("evaluation_seconds",),
    "test": ("inference_seconds",),
}
"""Column and metrics of the time budget."""
ANSWERS = {
    "validation answers": ("validation_answer_seconds",),
    "test answers": ("test_answer_seconds",),
    "after merging": (
        "merged_evaluation_seconds",
        "dequantized_evaluation_seconds",
        "converted_evaluation_seconds",
    ),
}
"""The same of language models, where runs have them."""
Pair = tuple[RunRecord, RunRecord]  # two runs of one method and seed
Size = tuple[int, int]  # numbers of ranks and of nodes
ONE_SEED = "One seed gives no interval: it doesn't tell a factor from noise."


def sections(results: Results) -> Iterator[Section | None]:
    yield _time_budget(results)
    yield _scaling(results)
    yield _checkpointing(results)


def _time_budget(results: Results) -> Section | None:
    by_method = {
        method: [run for run in results.costed(method) if _timed(run)] for method in results.methods
    }
    timed = [run for runs in by_method.values() for run in runs]
    if not timed:
        return None
    parts = PARTS | {
        part: metrics
        for part, metrics in ANSWERS.items()
        if any(_spent(run, metrics) for run in timed)
    }
    rows = [[method, *_parts(runs, parts)] for method, runs in by_method.items() if runs]
    rows.append(["all", *_parts(timed, parts)])
    columns = ["method", "runs", "wall time (s)", *(f"{part} (%)" for part in parts), "rest (%)"]
    spent = sum(
        _spent(run, metrics) for run in timed for part, metrics in parts.items() if part != "start"
    )
    notes = [
        "Wall time as the sweep saw it, summed over the compared runs in one environment. Start: "
        "from the launch of the processes to the first training step. Rest: probes that measure "
        "after training (latency, forgetting, saved size), logging, writing, and the end of the "
        "processes.",
        (
            f"Training and evaluation are "
            f"{number(100 * spent / sum(run.seconds for run in timed), '.0f')} % of it."
        ),
    ]
    budget = table("time_budget", "Where the time of the runs went", columns, rows, notes)
    about = "start, training, validation, test"
    return section_of("time-budget", "Time budget", budget, question="cost", about=about)


def _timed(record: RunRecord) -> bool:
    return (
        bool(record.seconds)
        and not record.segments
        and all(_spent(record, metrics) for metrics in PARTS.values())
    )


def _spent(record: RunRecord, metrics: Sequence[str]) -> float:
    return sum(record.metrics.get(metric) or 0.0 for metric in metrics)


def _parts(records: Sequence[RunRecord], parts: Mapping[str, Sequence[str]]) -> list[Cell]:
    wall = sum(record.seconds for record in records)
    shares = [
        100 * sum(_spent(run, metrics) for run in records) / wall for metrics in parts.values()
    ]
    return [
        cell(len(records), "d"),
        cell(wall, ".1f"),
        *(cell(share, ".1f") for share in (*shares, 100 - sum(shares))),
    ]


# Factors between runs that differ in one setting, paired within seeds; they are outside the page's
# tests


def _values(runs: Iterable[RunRecord], metric: str) -> list[float]:
    """Return a metric of runs; NaN where one hasn't measured it."""
    values = (run.metrics.get(metric) for run in runs)
    return [math.nan if value is None else value for value in values]


def _interval(values: Sequence[float]) -> statistics.Interval:
    """Return the mean with its 95 % interval over seeds; NaN where a value isn't known."""
    known = all(map(math.isfinite, values))
    return (
        statistics.mean_interval(values)
        if known
        else statistics.Interval(0, math.nan, None, None, None)
    )


def _factor(pairs: Sequence[Pair], metric: str) -> statistics.Interval:
    """Return the geometric mean of the second runs' values over the first ones'; NaN where one
    isn't above 0.
    """
    values = [_values(pair, metric) for pair in pairs]
    found = _interval([math.log(b / a) if a > 0 and b > 0 else math.nan for a, b in values])
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return replace(found, mean=math.exp(found.mean), low=low, high=high)


def _scaling(results: Results) -> Section | None:
    found = {
        method: by_size
        for method in results.methods
        if len(by_size := _matching(results, method)) > 1
    }
    over = any(nodes > 1 for by_size in found.values() for _, nodes in by_size)
    rows = [
        _of_size(method, size, by_size, over)
        for method, by_size in found.items()
        for size in sorted(by_size)
    ]
    columns = [
        "method",
        "ranks",
        "seeds",
        "samples/s",
        "speed-up",
        "95 % interval",
        "efficiency (%)",
        "all-reduced (bytes/step)",
        "all-reduce time (ms)",
        "all-reduce share (%)",
        *(["within nodes (bytes/step)", "between nodes (bytes/step)"] if over else []),
    ]
    notes = [
        "Means over the seeds that every number of ranks has, with one global batch and the same "
        "threads a rank; runs of one method and seed share a host. Speed-up: geometric mean of the "
        "factors within a seed, with its 95 % interval for other seeds, not adjusted for the "
        "number of rows. Efficiency: speed-up divided by the ratio of ranks. The all-reduce's time "
        "runs from a backward pass's first reduction to the end of its last; waiting for slower "
        "ranks and work beside it are in it."
    ]
    notes += (
        [ONE_SEED]
        if any(len(runs) < 2 for by_size in found.values() for runs in by_size.values())
        else []
    )
    if over:
        notes.append(
            "2 × 1 is two nodes with one rank each, all like the machine of the other rows. Bytes "
            "within and between nodes are those of a ring all-reduce, by its formula."
        )
    scaled = table("scaling", "The same training on more ranks", columns, rows, notes)
    about = "the same training on more of them"
    return section_of("scaling", "Scaling over ranks", scaled, question="cost", about=about)


def _matching(results: Results, method: str) -> dict[Size, list[RunRecord]]:
    """Return a method's runs by numbers of ranks and nodes, of the seeds that every pair has."""
    by_size = results.scaled(method)
    seeds = [{record.spec.seed for record in runs} for runs in by_size.values()]
    shared = set.intersection(*seeds) if seeds else set()
    found = {
        size: [record for record in runs if record.spec.seed in shared]
        for size, runs in by_size.items()
    }
    return {size: runs for size, runs in found.items() if runs}


def _of_size(
    method: str, size: Size, by_size: dict[Size, list[RunRecord]], over: bool
) -> list[Cell]:
    (ranks, nodes), fewest, runs = size, min(by_size), by_size[size]
    base = {record.spec.seed: record for record in by_size[fewest]}
    gain = _factor([(base[record.spec.seed], record) for record in runs], "samples_per_second")
    metrics = ["allreduced_bytes_per_step", "communication_ms", "communication_percent"]
    values = [fmean(_values(runs, metric)) if ranks > 1 else math.nan for metric in metrics]
    values += (
        [fmean(_values(runs, f"{at}_nodes_bytes_per_step")) for at in ("within", "between")]
        if over
        else []
    )
    formats = (",.0f", ".2f", ".1f", ",.0f", ",.0f")
    return [
        method,
        (str(ranks) if nodes == 1 else f"{nodes} × {ranks // nodes}", float(ranks)),
        len(runs),
        cell(fmean(_values(runs, "samples_per_second")), ",.0f"),
        cell(gain.mean, ".2f"),
        MISSING if size == fewest else limits(gain.low, gain.high, ".2f"),
        cell(100 * gain.mean * fewest[0] / ranks, ".0f"),
        *(cell(v, spec) for v, spec in zip(values, formats, strict=False)),
    ]


def _checkpointing(results: Results) -> Section | None:
    found: dict[
        str, list[Pair]
    ] = {}  # a run that keeps its activations, and one of its seed that computes them again
    for method in results.methods:
        own = {(method_of(record), record.spec.seed): record for record in results.costed(method)}
        for other in results.checkpointed:
            if record := own.get((method_of(other), other.spec.seed)):
                recomputes = record.spec.settings.gradient_checkpointing
                found.setdefault(method, []).append(
                    (other, record) if recomputes else (record, other)
                )
    columns = (
        "method",
        "seeds",
        "time, kept (s)",
        "time, computed again (s)",
        "ratio",
        "95 % interval of the ratio",
        "peak, kept (MB)",
        "peak, computed again (MB)",
        "saved (MB)",
        "95 % interval of saved (MB)",
    )
    notes = [
        "Means over the seeds that a method ran with and without gradient checkpointing, all else "
        "equal and both on one host. The same steps lead to the same model but for rounding. Time "
        "and peak are those of training. Ratio: geometric mean of the factors within a seed. "
        "Intervals are for other seeds, not adjusted for their number."
    ]
    notes += [ONE_SEED] if any(len(pairs) < 2 for pairs in found.values()) else []
    caption, about = (
        "Activations kept, or computed again in the backward pass",
        "time that it costs, memory it saves",
    )
    rows: list[list[Cell]] = []
    for method, pairs in found.items():
        time, longer = (fmean(_values(runs, "train_seconds")) for runs in zip(*pairs, strict=True))
        peak, lower = (fmean(_values(runs, "peak_memory_mb")) for runs in zip(*pairs, strict=True))
        saved = _interval([a - b for a, b in (_values(pair, "peak_memory_mb") for pair in pairs)])
        ratio = _factor(pairs, "train_seconds")
        rows.append(
            [
                method,
                len(pairs),
                cell(time, ".2f"),
                cell(longer, ".2f"),
                cell(ratio.mean, ".2f"),
                limits(ratio.low, ratio.high, ".2f"),
                cell(peak, ",.0f"),
                cell(lower, ",.0f"),
                cell(peak - lower, ",.0f"),
                limits(saved.low, saved.high, ",.0f"),
            ]
        )
    shown = table("checkpointing", caption, columns, rows, notes)
    return section_of(
        "checkpointing", "Gradient checkpointing", shown, question="cost", about=about
    )
