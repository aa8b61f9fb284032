"""Per-example predictions of a run, read for the report: what they must be, and which rows a run got right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.records.run import RunRecord
from hpml_bench.records.store import PREDICTIONS, is_plain_file

TOLERANCE = 1e-6
"""Relative, between a recorded score and that of the stored predictions, whose losses are float32."""

CHECK_FAILED = "self-check failed"
MOST_CLASSES = 1_000_000
"""A label above is none of ours, and counting up to it would take the memory."""


@dataclass(frozen=True)
class Predictions:
    """A run's test rows as stored, in the rows' order, and the scores they give."""

    index: NDArray[Any]
    label: NDArray[Any]
    right: NDArray[np.bool_]
    scores: Mapping[str, float]
    """test_accuracy, test_macro_f1 and test_loss."""

    def sharing(self, other: Predictions | None) -> Predictions:
        """Return the same with the rows of another run where they are equal, so that they are held once."""
        if other is None or not np.array_equal(self.index, other.index) or not np.array_equal(self.label, other.label):
            return self
        return replace(self, index=other.index, label=other.label)


def read_all(folder: Path, records: Iterable[RunRecord]) -> dict[str, Predictions]:
    """Return run_id -> predictions, of those of the runs that have some."""
    found: dict[str, Predictions] = {}
    last: Predictions | None = None
    for record in records:
        own = read(folder / record.run_id, len(record.label_names))
        if own is not None:
            last = found[record.run_id] = own.sharing(last)  # most runs have the same rows
    return found


def read(folder: Path, classes: int = 0) -> Predictions | None:
    """Return a run's predictions; None where there are none that can be read.

    Args:
        folder: the run's.
        classes: number of classes, for macro-F1; where it isn't known, as many as labels and predictions show.

    """
    path = folder / PREDICTIONS
    if not is_plain_file(path):
        return None
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:  # `read_table` builds a data set first, which takes longer than reading
            table = file.read(columns=["index", "label", "prediction", "loss"], use_threads=False)
        index, label, prediction, loss = (column.to_numpy() for column in table.columns)
        order = np.argsort(index, kind="stable")
        right = np.asarray(label == prediction, dtype=bool)[order]
        if not order.size:
            return None
        scores = {
            "test_accuracy": float(right.mean()),
            "test_macro_f1": macro_f1(label, prediction, classes),
            "test_loss": float(np.mean(loss, dtype=np.float64)),
        }
    except (OSError, ValueError, TypeError, IndexError, KeyError, pa.ArrowException):
        return None
    return Predictions(index[order], label[order], right, scores)


def macro_f1(label: NDArray[Any], prediction: NDArray[Any], classes: int = 0) -> float:
    """Return the mean over the classes of 2TP / (2TP + FP + FN), 0 for a class neither there nor predicted."""
    size = max(classes, int(max(label.max(), prediction.max())) + 1)
    if size > MOST_CLASSES:
        raise ValueError(f"{size} classes")
    right = np.bincount(label[label == prediction], minlength=size)
    ends = np.bincount(label, minlength=size) + np.bincount(prediction, minlength=size)
    return float(np.mean(2 * right / np.where(ends == 0, 1, ends)))


def faults(records: Iterable[RunRecord], stored: Mapping[str, Predictions]) -> dict[str, str]:
    """Return, by run_id, what makes a run invalid: a failed self-check, or predictions that can't be right.

    Args:
        records: runs of one protocol, which have the same test rows.
        stored: run_id -> predictions of those that have some.

    """
    found = {}
    rows, labels = _usual(stored.values())
    for record in records:
        failed = [f"{check.name}: {check.detail}" for check in record.checks if not check.passed]
        if failed:
            found[record.run_id] = f"{CHECK_FAILED}: {'; '.join(failed)}"
        elif PREDICTIONS not in record.files:
            found[record.run_id] = f"its record names no {PREDICTIONS}, so that its scores can't be checked"
        elif record.run_id not in stored:
            found[record.run_id] = f"its {PREDICTIONS} is missing or can't be read, so that its scores can't be checked"
        elif reason := _fault(stored[record.run_id], rows, labels, record):
            found[record.run_id] = reason
    return found


def _usual(stored: Iterable[Predictions]) -> tuple[int, NDArray[Any]]:
    """Return the number of test rows and their labels as most runs have them that hold each row once."""
    whole = [one for one in stored if np.array_equal(one.index, np.arange(len(one.index)))]
    if not whole:
        return 0, np.array([])
    common = Counter(one.label.tobytes() for one in whole).most_common(1)[0][0]
    agreed = next(one.label for one in whole if one.label.tobytes() == common)
    return len(agreed), agreed


def _fault(predictions: Predictions, rows: int, labels: NDArray[Any], record: RunRecord) -> str | None:
    found = np.unique(predictions.index)
    if doubled := len(predictions.index) - len(found):
        return f"its predictions hold {doubled:,} test row(s) more than once"
    if missing := rows - int(np.isin(found, np.arange(rows)).sum()):
        return f"its predictions lack {missing:,} of {rows:,} test rows"
    if len(found) > rows:
        return f"its predictions hold {len(found) - rows:,} row(s) that are no test rows"
    if not np.array_equal(predictions.label, labels):
        return "the labels beside its predictions are not those of the other runs"
    for name, given in predictions.scores.items():
        recorded = record.metrics.get(name)
        if recorded is None or not math.isclose(recorded, given, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            told = "not recorded" if recorded is None else f"recorded as {recorded:.4f}"
            return f"its {name.removeprefix('test_').replace('_', '-')} is {told}, and its predictions give {given:.4f}"
    return None
