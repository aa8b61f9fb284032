"""Parquet files that take little room on disk and much in memory: none is decoded."""

import io
import os
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from hpml_bench.comparison.readers import table
from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.predictions import read_predictions
from hpml_bench.system.errors import UserError
from hpml_bench.system.pages import pages_of

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
    "many rows": (many_rows, "it has 3,000,000 rows of 2 columns, and at most 3,000,000 values"),
    "a huge file": (long_footer, "it is larger than 500,000,000 bytes"),
    "a long footer": (claimed_footer, "its footer claims 399,000,000 bytes"),
}


UNREAD = {"bytes of fixed size": {"note": FIXED}, "lists of fixed size": {"probabilities": LISTS}}


@pytest.mark.parametrize("more", UNREAD.values(), ids=UNREAD)
def test_columns_that_no_table_needs(more: dict[str, Any], tmp_path: Path) -> None:
    """They aren't decoded, however large they would be, and are named."""
    (scores,) = table.read(write(tmp_path / "scores.parquet", **more), None)
    (name,) = more
    assert any(
        f"Columns of lists, objects or bytes weren't read: {name}." in remark
        for remark in scores.remarks
    )


@pytest.mark.parametrize(("make", "words"), TABLES.values(), ids=TABLES)
def test_tables(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    """Each is refused by one sentence that names the file and what it has too much of."""
    path = make(tmp_path / "scores.parquet")
    with pytest.raises(UserError, match=rf"^{path}: it can't be read as parquet: .*{words}"):
        table.read(path, None)


def repeated_by_deltas(path: Path) -> Path:
    """Make a file of texts that each repeat the one before."""
    columns = {"system": ["x" * 100_000] * 100, "score": np.zeros(100)}
    encodings = {"system": "DELTA_BYTE_ARRAY"}
    parquet.write_table(pa.table(columns), path, use_dictionary=False, column_encoding=encodings)
    assert path.stat().st_size < 200_000
    return path


def claimed_sizes(path: Path) -> Path:
    """Make a file whose page takes 300 MB decompressed, and whose metadata claim 1 KB."""
    columns = pa.table({"system": ["x" * 300_000_000], "score": [1.0]})
    parquet.write_table(columns, path, use_dictionary=False, compression="zstd")
    content = path.read_bytes()
    real = parquet.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    head, footer = content[: len(content) // 2], content[len(content) // 2 :]
    # the size as a number of Thrift, of the same length
    claimed = footer.replace(_zigzag(real, 5), _zigzag(1_000, 5))
    assert claimed != footer
    path.write_bytes(head + claimed)
    assert parquet.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 1_000
    return path


def _zigzag(number: int, length: int) -> bytes:
    digits = [(number << 1) >> shift & 0x7F for shift in range(0, 7 * length, 7)]
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


PAGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "deltas": (
        repeated_by_deltas,
        "column 'system' is encoded as DELTA_BYTE_ARRAY.* as PLAIN or by a dictionary$",
    ),
    "claims": (claimed_sizes, "it holds 300,0.* bytes, decoded"),
}


@pytest.mark.parametrize(("make", "words"), PAGES.values(), ids=PAGES)
def test_pages(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    """What the metadata don't tell of a page is known by its own header."""
    path = make(tmp_path / "scores.parquet")
    with pytest.raises(UserError, match=rf"^{path}: it can't be read as parquet: .*{words}"):
        table.read(path, None)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_headers_of_pages(version: str, compression: str, tmp_path: Path) -> None:
    """Headers and pages together are the bytes that the metadata name, in files of each kind."""
    path = tmp_path / "rows.parquet"
    numbers = np.arange(200_000)
    columns = {
        "number": numbers,
        "text": [f"{number:x}" * 5 for number in numbers],
        "few": [("yes", "no")[number % 2] for number in numbers],
        "list": [[number] * (number % 3) for number in numbers],
        "long": ["x" * 5_000 if number < 100 else "" for number in numbers],
    }
    parquet.write_table(
        pa.table(columns),
        path,
        compression=compression,
        data_page_version=version,
        row_group_size=150_000,
        write_page_checksum=True,
    )
    metadata = parquet.read_metadata(path)
    with path.open("rb") as file:
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                column = metadata.row_group(group).column(place)
                pages = [*pages_of(file, column)]
                assert len(pages) > 1 or compression != "none" or column.num_values < 100_000
                headers = column.total_compressed_size - sum(
                    page.compressed_bytes for page in pages
                )
                assert 10 * len(pages) < headers < 11_000 * len(pages)
                decompressed = sum(page.decompressed_bytes for page in pages)
                assert decompressed + headers == column.total_uncompressed_size


def test_files_without_rows(tmp_path: Path) -> None:
    """An empty group of rows has no pages, whose places may be missing; a file of none is named."""
    lines = pa.table({"system": ["a"] * 9, "score": np.zeros(9), "note": ["x"] * 9})
    path = tmp_path / "scores.parquet"
    with parquet.ParquetWriter(path, lines.schema) as writer:
        writer.write_table(lines.slice(0, 0))
        writer.write_table(lines)
        writer.write_table(lines.slice(0, 0))
    (scores,) = table.read(path, None)
    assert len(scores.lines) == 9
    parquet.write_table(lines.slice(0, 0), path)
    with pytest.raises(UserError, match=r"it has no lines; give a line per row and run"):
        table.read(path, None)


def header(*fields: tuple[int, int, bytes]) -> bytes:
    """Return a structure of the compact protocol: distance from the field before, type, value."""
    return (
        b"".join(bytes([distance << 4 | kind]) + value for distance, kind, value in fields) + b"\0"
    )


DATA = (1, 5, b"\0")  # the type of a page of data
SIZE, OTHER_SIZE = b"\x14", b"\x64"  # 10 and 50
HEADERS = {
    "its size twice": ((1, 6, OTHER_SIZE), (0, 5, b"\x04" + SIZE), (1, 5, SIZE)),
    "its size beyond 32 bits": ((1, 5, b"\xa8\x80\x80\x80\x20"), (1, 5, SIZE)),
    "its size as 64 bits": ((1, 6, SIZE), (1, 5, SIZE)),
    "a size below 0": ((1, 5, b"\x01"), (1, 5, SIZE)),
    "a field far away": ((1, 5, SIZE), (1, 5, SIZE), (0, 5, b"\x80\x80\x08" + SIZE)),
}


class Chunk(NamedTuple):
    """A column in a group of rows, as `pyarrow.parquet.ColumnChunkMetaData` describes it."""

    num_values: int = 1
    data_page_offset: int = 0
    has_dictionary_page: bool = False
    total_compressed_size: int = 100


@pytest.mark.parametrize("fields", HEADERS.values(), ids=HEADERS)
def test_headers_that_readers_take_differently(fields: tuple[Any, ...]) -> None:
    """A header that another reader would take for a page of another size is refused."""
    content = header(DATA, *fields) + bytes(200)
    with pytest.raises(ValueError, match=r"^it can't be decoded: a page"):
        [*pages_of(io.BytesIO(content), Chunk())]


def test_a_header_of_a_page_of_data() -> None:
    """The encoding is that of the header which belongs to the page's type."""
    plain, deltas = b"\0", b"\x0e"
    of_version_1 = (1, 12, header((1, 5, SIZE), (1, 5, plain)))
    of_version_2 = (3, 12, header((4, 5, deltas)))
    sizes = (1, 5, OTHER_SIZE), (1, 5, SIZE)
    first = header(DATA, *sizes, (2, 12, of_version_1[2]), of_version_2)
    second = header((1, 5, b"\x06"), *sizes, (2, 12, of_version_1[2]), of_version_2)
    for content, encoding in ((first, 0), (second, 7)):
        chunk = Chunk(total_compressed_size=len(content))
        (page,) = pages_of(io.BytesIO(content), chunk)
        assert page == (50, 10, encoding)


def test_a_file_whose_first_page_is_overwritten(tmp_path: Path) -> None:
    """Bytes that are no header are refused by a UserError, whatever they are."""
    path = tmp_path / "scores.parquet"
    parquet.write_table(pa.table({"system": ["a"] * 9, "score": np.zeros(9)}), path)
    content = bytearray(path.read_bytes())
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        spoiled = bytearray(content)
        spoiled[4:24] = draw.bytes(20)
        path.write_bytes(spoiled)
        try:
            table.read(path, None)
        except UserError:
            refused += 1
    assert refused == 200


def test_decimals_as_deltas(tmp_path: Path) -> None:
    """Values of fixed size take that size, however they are encoded."""
    path = tmp_path / "scores.parquet"
    costs = pa.array([Decimal(f"{number}.25") for number in range(9)], pa.decimal128(38, 2))
    parquet.write_table(
        pa.table({"system": ["a"] * 9, "score": np.zeros(9), "cost": costs}),
        path,
        use_dictionary=False,
        column_encoding={"cost": "DELTA_BYTE_ARRAY"},
    )
    (scores,) = table.read(path, None)
    assert [cost.column for cost in scores.costs] == ["cost cost"]


def within(name: str, value: Any, kind: Any) -> Any:
    """Return a column of structures with one field, equal in each row."""
    return pa.StructArray.from_arrays([repeated(value, kind)], [name])


def test_columns_whose_paths_are_taken_for_others(tmp_path: Path) -> None:
    """A column in another with the name of one beside it would be read with it, and is refused;
    names with points alone are no reason.
    """
    path = tmp_path / "scores.parquet"
    columns = {"system": pa.array(["a"] * ROWS), "score": np.zeros(ROWS)}
    hidden = pa.StructArray.from_arrays([within("z", "x" * 1_000_000, pa.string())], ["y"])
    for more in ({"x.y": NUMBERS, "x": hidden}, {"x": hidden, "x.y": NUMBERS}):
        parquet.write_table(pa.table(columns | more), path, store_schema=False)
        with pytest.raises(UserError, match=r"columns beside 'x.y' have paths that begin as it"):
            table.read(path, None)
    parquet.write_table(pa.table(columns | {"score.mean": NUMBERS, "score.": NUMBERS}), path)
    (scores,) = table.read(path, None)
    assert len(scores.lines) == ROWS


def test_many_columns_of_lists(tmp_path: Path) -> None:
    """They take no memory, and the sentence on them is short; too many are refused."""
    path = tmp_path / "scores.parquet"
    columns = {"system": ["a"] * 9, "score": np.zeros(9)}
    lists = {f"list {number}": [[1]] * 9 for number in range(300)}
    parquet.write_table(pa.table(columns | lists), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (scores,) = table.read(path, None)
    (remark,) = scores.remarks
    assert remark.endswith("list 10, list 11 and 288 others.")
    numbers = dict.fromkeys(map(str, range(10_000)), pa.nulls(9))
    parquet.write_table(pa.table(columns | numbers), path)
    with pytest.raises(UserError, match=r"more than 10,000 columns; take out those not needed$"):
        table.read(path, None)


def test_a_column_of_meaning_that_holds_lists(tmp_path: Path) -> None:
    """A score in a list is named as the error, and a table of lists alone lacks its columns."""
    path = tmp_path / "scores.parquet"
    parquet.write_table(pa.table({"system": ["a"] * 9, "score": [[1.0]] * 9}), path)
    with pytest.raises(UserError, match=r"the column 'score' holds lists, objects or bytes; give"):
        table.read(path, None)
    parquet.write_table(pa.table({"answers": [["a"]] * 9, "scores": [[1.0]] * 9}), path)
    with pytest.raises(UserError, match=r"there is no column 'system'; it has answers, scores"):
        table.read(path, None)


def test_whole_numbers_with_missing_ones(tmp_path: Path) -> None:
    """Ids of a nullable column stay whole, also those that a float can't tell apart."""
    path = tmp_path / "scores.parquet"
    group = pa.array([2**53 + 1, None, 2**53 + 3], pa.int64())
    columns = {"system": ["a"] * 3, "row": ["1", "2", "3"], "score": np.zeros(3), "group": group}
    parquet.write_table(pa.table(columns), path)
    (scores,) = table.read(path, None)
    assert [*scores.lines.group.dropna()] == ["9007199254740993", "9007199254740995"]


def test_an_index_of_pandas(tmp_path: Path) -> None:
    """One with a name is a column as others, and one without a name is left out."""
    frame = pd.DataFrame({"system": ["a", "a"], "score": [0.0, 1.0]}, index=["x", "y"])
    frame.to_parquet(tmp_path / "unnamed.parquet")
    frame.rename_axis("row").to_parquet(tmp_path / "named.parquet")
    (unnamed,) = table.read(tmp_path / "unnamed.parquet", None)
    (named,) = table.read(tmp_path / "named.parquet", None)
    assert "row" not in unnamed.lines
    assert [*named.lines.row] == ["x", "y"]
    assert unnamed.costs == named.costs == ()


def test_a_column_of_lists(tmp_path: Path) -> None:
    """It is left unread and named, and may have any size."""
    path = tmp_path / "scores.parquet"
    columns = {"system": ["a"] * ROWS, "score": np.zeros(ROWS), "tokens": [[1, 2]] * ROWS}
    parquet.write_table(pa.table(columns), path)
    (scores,) = table.read(path, None)
    assert scores.remarks == ("Columns of lists, objects or bytes weren't read: tokens.",)


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
