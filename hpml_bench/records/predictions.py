"""Predictions of a run: its answer to each test row, on disk as predictions.parquet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.records.files import PREDICTIONS, is_plain_file

Answers = NDArray[Any] | tuple[NDArray[Any], ...]
"""An answer a row, or where rows have several (a tag a word) an array of them a row."""


@dataclass(frozen=True)
class Predictions:
    """References, answers and losses of n rows."""

    index: NDArray[Any]
    """Numbers of the rows; 0 .. n-1 in a valid file."""
    reference: Answers
    prediction: Answers
    loss: NDArray[Any]
    """[n], the sum over a row's answers."""

    def __len__(self) -> int:
        return len(self.index)


def write_predictions(folder: Path, predictions: Predictions, scores: NDArray[Any]) -> None:
    """Write the file; `scores` [n] are the task's, whose mean is the headline metric."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "index": predictions.index.astype(np.int32),
            "reference": _column(predictions.reference),
            "prediction": _column(predictions.prediction),
            "loss": predictions.loss.astype(np.float32),
            "score": scores.astype(np.float64),
        }
    )
    pq.write_table(table, folder / PREDICTIONS)


def _column(answers: Answers) -> Any:
    import pyarrow as pa

    if isinstance(answers, tuple):
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in answers])]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(answers).astype(np.int32)))
    return pa.array(answers if answers.dtype.kind == "f" else answers.astype(np.int32))


def read_predictions(folder: Path) -> Predictions | None:
    """Return a run's predictions in the rows' order; None where there are none that can be read.

    In schema 1, references were called labels.
    """
    path = folder / PREDICTIONS
    if not is_plain_file(path):
        return None
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:  # `read_table` builds a data set first, which takes longer than reading
            reference = "reference" if "reference" in file.schema_arrow.names else "label"
            table = file.read(columns=["index", reference, "prediction", "loss"], use_threads=False)
        index, loss = table.column("index").to_numpy(), table.column("loss").to_numpy()
        order = np.argsort(index, kind="stable")
        if not order.size:
            return None
        references, answers = (_answers(table.column(name), order) for name in (reference, "prediction"))
    except (OSError, ValueError, TypeError, IndexError, KeyError, AttributeError, pa.ArrowException):
        return None
    return Predictions(index[order], references, answers, loss[order])


def _answers(column: Any, order: NDArray[Any]) -> Answers:
    import pyarrow as pa

    if not pa.types.is_list(column.type):
        found: NDArray[Any] = column.to_numpy()[order]
        return found
    rows = column.combine_chunks()
    values, offsets = rows.values.to_numpy(), rows.offsets.to_numpy()
    return tuple(values[offsets[row] : offsets[row + 1]] for row in order)


def same_answers(a: Answers, b: Answers) -> bool:
    """Tell whether two are equal, row by row."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        return len(a) == len(b) and all(map(np.array_equal, a, b))
    return np.array_equal(a, b)


def bytes_of(answers: Answers) -> bytes:
    """Return all answers as bytes: equal for equal answers of one type, and only for those."""
    rows: Iterable[NDArray[Any]] = answers if isinstance(answers, tuple) else (answers,)
    return b"".join(len(row).to_bytes(8, "little") + row.tobytes() for row in rows)
