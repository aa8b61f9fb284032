"""Parquet files that take little room on disk and much in memory: none is decoded."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from hpml_bench.comparison.readers import table
from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.predictions import read_predictions
from hpml_bench.system.errors import UserError

ROWS = 3_000
ZEROS = pa.array(np.zeros(ROWS, np.int32))
NUMBERS = pa.array(np.arange(ROWS, dtype=np.int32))


def repeated(value: Any, kind: Any) -> Any:
    """Return a column that has this value in each row, and holds it once."""
    return pa.DictionaryArray.from_arrays(ZEROS, pa.array([value], kind))


TEXT = repeated("x" * 1_000_000, pa.string())
FIXED = repeated(b"x" * 1_000_000, pa.binary(1_000_000))
LISTS = pa.nulls(ROWS, pa.list_(pa.float32(), 18_000))  # each takes as much as another one


def write(path: Path, **more: Any) -> Path:
    """Write a file of predictions that is also a table of scores, with more columns."""
    columns: dict[str, Any] = dict.fromkeys(("index", "reference", "prediction", "row"), NUMBERS)
    columns |= dict.fromkeys(("loss", "score"), pa.array(np.zeros(ROWS)))
    columns["system"] = pa.array(["a"] * ROWS)
    # without the schema of Arrow a text is one, and not a dictionary of texts
    keep = "probabilities" in more
    parquet.write_table(pa.table(columns | more), path, store_schema=keep)
    assert path.stat().st_size < 2_000_000
    return path


def texts_in_groups(path: Path) -> Path:
    """Write a file with a long text in each of its groups of rows."""
    part = pa.table({"system": ["a"], "score": [1.0], "note": ["x" * 50_000_000]})
    with parquet.ParquetWriter(path, part.schema, compression="zstd") as writer:
        for _ in range(6):
            writer.write_table(part)
    return path


def many_rows(path: Path) -> Path:
    part = pa.table(
        {"system": pa.array(np.zeros(1_000_000, np.int8)), "score": np.zeros(1_000_000)}
    )
    with parquet.ParquetWriter(path, part.schema) as writer:
        for _ in range(3):
            writer.write_table(part)
    return path


def long_footer(path: Path) -> Path:
    """Make a file of 6 GB with holes, which claims a footer of 4 GB."""
    path.write_bytes(b"PAR1")
    os.truncate(path, 6_000_000_000)
    with path.open("ab") as file:
        file.write((4_200_000_000).to_bytes(4, "little") + b"PAR1")
    return path


def claimed_footer(path: Path) -> Path:
    """Make a file of 400 MB that claims a footer as long."""
    path.write_bytes(b"PAR1")
    os.truncate(path, 400_000_000)
    with path.open("ab") as file:
        file.write((399_000_000).to_bytes(4, "little") + b"PAR1")
    return path


TABLES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a text": (lambda path: write(path, note=TEXT), "it holds 3,0"),
    "texts in groups": (texts_in_groups, "it holds 3"),
    "bytes of fixed size": (lambda path: write(path, note=FIXED), "'note' is of type fixed_size"),
    "lists of fixed size": (
        lambda path: write(path, probabilities=LISTS),
        "'probabilities' is of type fixed_size",
    ),
    "many rows": (many_rows, "it has 3,000,000 rows of 2 columns, and at most 3,000,000 values"),
    "a huge file": (long_footer, "it is larger than 500,000,000 bytes"),
    "a long footer": (claimed_footer, "its footer claims 399,000,000 bytes"),
}


@pytest.mark.parametrize(("make", "words"), TABLES.values(), ids=TABLES)
def test_tables(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    """Each is refused by one sentence that names the file and what it has too much of."""
    path = make(tmp_path / "scores.parquet")
    with pytest.raises(UserError, match=rf"^{path}: it can't be read as parquet: .*{words}"):
        table.read(path, None)


PREDICTED: dict[str, dict[str, Any]] = {
    "a reference of text": {"reference": TEXT},
    "a question in each row": {
        "said_question": TEXT,
        "said_expected": repeated("yes", pa.string()),
        "said_bytes": NUMBERS,
    },
    "lists of fixed size": {"probabilities": LISTS},
    "bytes of fixed size": {"loss": FIXED},
}


@pytest.mark.parametrize("more", PREDICTED.values(), ids=PREDICTED)
def test_predictions(more: dict[str, Any], tmp_path: Path) -> None:
    """Each is a run without predictions that can be read."""
    write(tmp_path / PREDICTIONS, **more)
    assert read_predictions(tmp_path) is None


def test_columns_that_no_predictions_have_are_not_read(tmp_path: Path) -> None:
    """A column of another name takes no memory, whatever it holds."""
    write(tmp_path / PREDICTIONS, said_more=TEXT)
    stored = read_predictions(tmp_path)
    assert stored is not None
    assert len(stored) == ROWS


@pytest.mark.parametrize("error", [pa.ArrowInvalid, pa.ArrowMemoryError, MemoryError])
def test_errors_of_the_library_are_named(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the library can't decode ends in one sentence that names the file."""
    path = write(tmp_path / "scores.parquet")

    def fail(*_: object, **__: object) -> None:
        raise error("realloc of size 6000000000 failed")

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", fail)
    with pytest.raises(UserError, match=r"scores\.parquet: .* realloc of size 6000000000 failed"):
        table.read(path, None)
