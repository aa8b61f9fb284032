"""Predictions of a run: its answer to each test row, on disk as predictions.parquet."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hpml_bench.records.files import PREDICTIONS
from hpml_bench.system.files import is_plain_file
from hpml_bench.system.parquet import is_number, is_text, read_table

MOST_CELLS = 10_000_000  # rows times columns of a file
COLUMNS = ("index", "reference", "prediction", "loss", "group", "score", "probabilities")
Answers = NDArray[Any] | tuple[NDArray[Any], ...]
"""One answer per row, or one array per row where rows have several answers (one tag per word)."""


@dataclass(frozen=True)
class TextAnswers:
    """Text answers to n rows, with their questions."""

    question: tuple[str, ...]
    expected: tuple[str, ...]  # the reference answer
    bytes: NDArray[Any]  # [n], UTF-8 bytes of the text whose loss is taken
    answer: tuple[str, ...] | None = (
        None  # the model's answer; None where no answers were generated or compared
    )
    normalised: tuple[str, ...] | None = (
        None  # the choice likeliest per character, where choices were compared
    )
    choices: NDArray[Any] | None = None  # [n], number of choices compared
    tokens: NDArray[Any] | None = None  # [n], tokens of the answer, end token included
    cut: NDArray[Any] | None = None  # [n], whether the answer reached the maximum number of tokens
    near_tie: NDArray[Any] | None = None
    """[n], whether two tokens were nearly equally likely somewhere in it, so that rounding may
    decide.
    """

    TEXTS: ClassVar[tuple[str, ...]] = ("question", "expected", "answer", "normalised")
    NUMBERS: ClassVar[tuple[str, ...]] = ("bytes", "choices", "tokens", "cut", "near_tie")


@dataclass(frozen=True)
class Predictions:
    """References, answers and losses of n rows."""

    index: NDArray[Any]  # numbers of the rows; 0 .. n-1 in a valid file
    reference: Answers
    prediction: Answers
    loss: NDArray[Any]  # [n], the sum over a row's answers
    texts: TextAnswers | None = None  # text answers, where the task has them
    group: NDArray[Any] | None = (
        None  # [n], equal for rows that belong together; None where each stands alone
    )
    probabilities: NDArray[np.float32] | None = None
    """[n, classes] float32; None where answers are of no or many classes, or in files of former
    versions.
    """
    scores: NDArray[Any] | None = (
        None  # [n], rows' scores as the run recorded them; only in what was read from disk
    )

    def __len__(self) -> int:
        return len(self.index)


def write_predictions(folder: Path, predictions: Predictions, scores: NDArray[Any]) -> None:
    """Write the file; `scores` [n] are the task's, whose mean is the headline metric."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "index": predictions.index.astype(np.int32),
        "reference": _column(predictions.reference),
        "prediction": _column(predictions.prediction),
        "loss": predictions.loss.astype(np.float32),
        "score": scores.astype(np.float64),
    }
    if (probabilities := predictions.probabilities) is not None:
        flat = pa.array(probabilities.astype(np.float32).ravel())
        columns["probabilities"] = pa.FixedSizeListArray.from_arrays(flat, probabilities.shape[1])
    if predictions.group is not None:
        columns["group"] = predictions.group.astype(np.int32)
    for name in (*TextAnswers.TEXTS, *TextAnswers.NUMBERS):
        if (value := getattr(predictions.texts, name, None)) is not None:
            columns[f"said_{name}"] = pa.array(
                value, pa.string() if name in TextAnswers.TEXTS else None
            )
    pq.write_table(pa.table(columns), folder / PREDICTIONS)


def _column(answers: Answers) -> Any:
    import pyarrow as pa

    if isinstance(answers, tuple):
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in answers])]).astype(np.int32)
        return pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(np.concatenate(answers).astype(np.int32))
        )
    return pa.array(answers if answers.dtype.kind == "f" else answers.astype(np.int32))


def read_predictions(folder: Path) -> Predictions | None:
    """Return a run's predictions in row order; None if they are missing or unreadable."""
    path = folder / PREDICTIONS
    if not is_plain_file(path):
        return None
    import pyarrow as pa

    try:
        table = _table(path).combine_chunks()
        said = [name for name in table.column_names if name.startswith("said_")]
        order = np.argsort(table.column("index").to_numpy(), kind="stable")
        table = table if np.all(order[:-1] < order[1:]) else table.take(order).combine_chunks()
        columns = {name: table.column(name) for name in table.column_names}
        whole = [
            column for name, column in columns.items() if name in {"group", "probabilities", *said}
        ]
        if not len(table) or any(column.null_count for column in whole):
            return None
        numbers = {
            name: columns[name].to_numpy()
            for name in ("index", "loss", "group", "score")
            if name in columns
        }
        if "group" in numbers and numbers["group"].dtype.kind != "i":
            return None
        probabilities = None
        if "probabilities" in columns:
            if not pa.types.is_fixed_size_list(columns["probabilities"].type):
                return None
            probabilities = (
                columns["probabilities"].chunk(0).flatten().to_numpy().reshape(len(table), -1)
            )
        return Predictions(
            numbers["index"],
            _answers(columns["reference"]),
            _answers(columns["prediction"]),
            numbers["loss"],
            _texts(columns) if said else None,
            numbers.get("group"),
            probabilities,
            numbers.get("score"),
        )
    except (
        OSError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        pa.ArrowException,
    ):
        return None


def _table(path: Path) -> Any:
    """Return a file's columns; a ValueError where they would take too much memory."""
    said = (f"said_{name}" for name in (*TextAnswers.TEXTS, *TextAnswers.NUMBERS))
    return read_table(path, _may_be, MOST_CELLS, {*COLUMNS, *said})


def _may_be(name: str, kind: Any) -> bool:
    """Return whether a column of this name may have this `pyarrow.DataType`."""
    import pyarrow as pa

    if name in {f"said_{text}" for text in TextAnswers.TEXTS}:
        return is_text(kind)
    if name in {"reference", "prediction"} and pa.types.is_list(kind):
        return is_number(kind.value_type)
    if name == "probabilities":
        return pa.types.is_fixed_size_list(kind) and is_number(kind.value_type)
    return is_number(kind)


def _texts(columns: dict[str, Any]) -> TextAnswers:
    fields: dict[str, Any] = {}
    for name in (*TextAnswers.TEXTS, *TextAnswers.NUMBERS):
        if (column := columns.get(f"said_{name}")) is not None:
            said = name in TextAnswers.TEXTS
            fields[name] = _words(column.chunk(0)) if said else np.asarray(column.to_pylist())
    return TextAnswers(**fields)


def _words(coded: Any) -> tuple[str, ...]:
    """Return the texts of a `pyarrow.DictionaryArray`; equal ones are one object."""
    texts = coded.dictionary.to_pylist()
    return tuple(texts[place] for place in coded.indices.to_numpy())


def _answers(column: Any) -> Answers:
    import pyarrow as pa

    if not pa.types.is_list(column.type):
        single: NDArray[Any] = column.to_numpy()
        return single
    rows = column.chunk(0)
    values, offsets = rows.values.to_numpy(), rows.offsets.to_numpy()
    return tuple(values[begin:end] for begin, end in pairwise(offsets))


def same_answers(a: Answers, b: Answers) -> bool:
    if isinstance(a, tuple) or isinstance(b, tuple):
        return len(a) == len(b) and all(map(np.array_equal, a, b))
    return np.array_equal(a, b)


def answers_changed(one: Predictions, other: Predictions) -> float | None:
    """Return the share of rows whose text answers differ; None where there are no text answers."""
    if (
        one.texts is None
        or other.texts is None
        or one.texts.answer is None
        or other.texts.answer is None
    ):
        return None
    return float(
        np.mean([a != b for a, b in zip(one.texts.answer, other.texts.answer, strict=True)])
    )


def bytes_of(answers: Answers) -> bytes:
    """Return all answers as bytes: equal for equal answers of one type, and only for those."""
    rows: Iterable[NDArray[Any]] = answers if isinstance(answers, tuple) else (answers,)
    return b"".join(len(row).to_bytes(8, "little") + row.tobytes() for row in rows)
