"""Results folders of this project: scores of test rows by seed, groups and costs of the runs that may be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.comparison.measured import (
    DATASET,
    GROUP,
    ROW,
    SCORE,
    SEED,
    SYSTEM,
    WHERE,
    Cost,
    Failed,
    Measured,
    Score,
    source_of,
)
from hpml_bench.records.files import PREDICTIONS, RECORD
from hpml_bench.records.jobs import NO_RUNS
from hpml_bench.records.run import RunRecord
from hpml_bench.report.results import MEMORY, TIME, Results
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd

ORDER = 0
SOURCE = "results of hpml-bench"
SIZE = "saved_bytes"


def claims(path: Path) -> bool:
    """Return whether a path is a results folder, or a folder of some."""
    return path.is_dir() and any(_folders(path))


def read(path: Path, metric: str | None = None) -> tuple[Measured, ...]:
    """Return the compared runs of a results folder, or of each below a folder.

    A data set is a suite and its protocol: runs of one suite on other rows, or by another budget, are never ranked
    together.

    Args:
        path: a suite's results, or a folder of several.
        metric: a suite's headline metric, by whose row scores its methods are compared; None for that.

    Raises:
        UserError: no record can be read, or `metric` is no suite's headline.

    """
    every = [Results.load(folder) for folder in _folders(path)]
    found = [results for results in every if metric is None or _is(results, metric)]
    if not found:
        known = ", ".join(sorted({results.quality for results in every}))
        raise UserError(f"{path} has row scores of {known} alone; leave --metric {metric} away, or give one of these")
    return tuple(map(_measured, found))


def _folders(path: Path) -> Iterator[Path]:
    """Yield `path` if it has runs, else the folders in it that have some."""
    if any(path.glob(f"*/{RECORD}")):
        yield path
    else:
        yield from sorted(
            {file.parent.parent for file in path.glob(f"*/*/{RECORD}")} - {path / name for name in NO_RUNS}
        )


def _is(results: Results, metric: str) -> bool:
    return metric in {results.quality, results.quality.removeprefix("test_"), results.score_title}


def dataset_of(results: Results) -> str:
    """Return the name of a suite's data set: the suite and its protocol."""
    protocol = results.reference.protocol_id
    return sanitize(f"{results.suite}, {f'protocol {protocol}' if protocol else 'protocol unknown'}")


def _measured(results: Results) -> Measured:
    import pandas as pd

    name, rows = dataset_of(results), results.test_set
    names = results.measured(TIME, *results.measured(*MEMORY)[:1], SIZE)
    frames = []
    for method in results.methods:
        scores = results.row_scores(method)
        for record in results.runs(method):
            own = scores[record.spec.seed]
            file = results.folder / record.run_id / PREDICTIONS
            index = results.selection.stored[record.run_id].index
            frame = pd.DataFrame({ROW: [str(n) for n in index], SCORE: own.astype(float)})
            frame = frame.assign(**{SYSTEM: sanitize(method), SEED: str(record.spec.seed), DATASET: name})
            frame[WHERE] = [f"{file}, row {n}" for n in index]
            if rows is not None and rows.group is not None:
                frame[GROUP] = [str(group) for group in rows.group]
            for cost in names:
                frame[cost] = (
                    results.values(cost)[method].get(record.spec.seed) if method in results.values(cost) else None
                )
                frame[cost] = frame[cost].astype(float) * (1e-6 if cost == SIZE else 1.0)
            frames.append(frame)
    empty = pd.DataFrame({column: [] for column in (SYSTEM, ROW, SCORE, SEED, DATASET, WHERE)})
    lines = pd.concat(frames, ignore_index=True) if frames else empty
    return Measured(
        lines,
        _score(results, lines),
        tuple(_cost(results, name) for name in names),
        tuple(_failed(results, record) for record in results.left_out.unfinished),
        tuple(_remarks(results)),
        source_of(SOURCE, results.folder, len(frames)),
        results.look,
    )


def _cost(results: Results, name: str) -> Cost:
    definition = results.definitions[name]
    if name == SIZE:
        return Cost(name, "saved size", "MB", exact=not definition.noisy)
    return Cost(name, definition.title, definition.unit, exact=not definition.noisy)


def _score(results: Results, lines: pd.DataFrame) -> Score:
    """Return the headline metric; its bounds where rows keep them, which linearised scores of rows don't."""
    definition = results.definitions.get(results.quality)
    low, high = (0.0, 1.0) if results.task.binary else definition.bounds if definition else (None, None)
    within = (low is None or lines[SCORE].ge(low).all()) and (high is None or lines[SCORE].le(high).all())
    better = definition.better if definition and definition.better != "neither" else "higher"
    return Score(
        results.quality, better, low if within else None, high if within else None,
        title=results.score_title, margin=results.quality_margin,
        largest=None if results.not_largest else results.margin.largest_difference,
    )  # fmt: skip


def _failed(results: Results, record: RunRecord) -> Failed:
    why = f": {sanitize(record.error.message, 200)}" if record.error else ""
    file = results.folder / record.run_id / RECORD
    name, seed = record.spec.method.name, str(record.spec.seed)
    return Failed(name, seed, f"{record.status}{why}", str(file), dataset_of(results))


def _remarks(results: Results) -> Iterator[str]:
    left = results.left_out
    for group in left.excluded:
        runs = f"{len(group.records)} run{'s' if group.records[1:] else ''}"
        yield f"{results.suite}: {runs} set apart, {sanitize(group.reason, 400)}."
    yield from (f"{results.suite}: {sanitize(problem, 400)}." for problem in left.problems)
    if not results.costs_ranked:
        yield f"{results.suite}: costs are shown of runs that can't be compared by them, since they ran beside others."
    if results.not_largest:
        yield f"{results.suite}: the largest difference of a row that it declares isn't used: {results.not_largest}."
    if results.never_run:
        yield f"{results.suite}: {results.never_run} runs of the suite have no record."
