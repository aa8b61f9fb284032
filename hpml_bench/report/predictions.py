"""Per-example predictions of a run, read for the report: what they must be, and which rows a run got right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.records import RunRecord
from hpml_bench.store import PREDICTIONS, is_plain_file

TOLERANCE = 1e-6
"""Between the recorded accuracy and that of the stored predictions."""


@dataclass(frozen=True)
class Predictions:
    """A run's test rows as stored."""

    index: NDArray[Any]
    label: NDArray[Any]
    right: NDArray[np.bool_]

    def sharing(self, other: Predictions | None) -> Predictions:
        """Return the same with the rows of another run where they are equal, so that they are held once."""
        if other is None or not np.array_equal(self.index, other.index) or not np.array_equal(self.label, other.label):
            return self
        return Predictions(other.index, other.label, self.right)


def read(folder: Path) -> Predictions | None:
    """Return a run's predictions; None where there are none that can be read."""
    path = folder / PREDICTIONS
    if not is_plain_file(path):
        return None
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:  # `read_table` builds a data set first, which takes longer than reading
            table = file.read(columns=["index", "label", "prediction"], use_threads=False)
        index, label, prediction = (column.to_numpy() for column in table.columns)
        order = np.argsort(index, kind="stable")
        right = np.asarray(label == prediction, dtype=bool)[order]
    except (OSError, ValueError, TypeError, IndexError, KeyError, pa.ArrowException):
        return None
    return Predictions(index[order], label[order], right) if order.size else None


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
            found[record.run_id] = f"self-check failed: {'; '.join(failed)}"
        elif record.run_id in stored and (reason := _fault(stored[record.run_id], rows, labels, record)):
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
    accuracy, share = record.metrics.get("test_accuracy"), float(predictions.right.mean())
    if accuracy is not None and abs(accuracy - share) > TOLERANCE:
        return f"its accuracy is recorded as {accuracy:.4f}, and its predictions give {share:.4f}"
    return None
