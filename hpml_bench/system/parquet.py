"""Reading of parquet files from others, which are measured before they are decoded: equal values
take no room on disk.
"""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hpml_bench.system.files import open_plain
from hpml_bench.system.pages import DELTA_BYTE_ARRAY, pages_of
from hpml_bench.system.text import count_of

MOST_FILE = 500_000_000  # bytes of a file
MOST_FOOTER = 4_000_000  # bytes of the metadata at a file's end, which grow when they are decoded
MOST_GROUPS = 10_000  # groups of rows
MOST_PAGES = 100_000  # of all columns: pages hold about a megabyte
MOST_DECODED = 200_000_000  # bytes of all columns, once each row has its own
MOST_LEVELS = 100  # of columns in each other, and of points in a name
WIDEST_FIXED = 32  # bytes of a value of fixed size: those of the widest decimal
OBJECT = 100  # bytes that Python takes for a text or an array beside its content
MAGIC = b"PAR1"
END = 4 + len(MAGIC)  # bytes: the length of the footer, and what each file ends with


def read_table(
    path: Path,
    allowed: Callable[[str, Any], bool],
    most_cells: int,
    columns: Collection[str] | None = None,
    *,
    follow: bool = False,
) -> Any:
    """Return a file as a `pyarrow.Table`, with columns of texts by their dictionary.

    `allowed`: whether a column of this name may have this `pyarrow.DataType`; `most_cells`: most
    rows times columns; `columns`: those that are read, all where it is None; `follow`: through a
    link too. Raises OSError as `open_plain`, and ValueError for a file that is damaged or that has
    too much of something, in words that follow the file's name.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with open_plain(path, follow=follow) as file:
        _check_end(file)
        try:
            with parquet.ParquetFile(file) as opened:
                metadata, schema = opened.metadata, opened.schema_arrow
            fields = [field for field in schema if columns is None or field.name in columns]
            for field in fields:
                if not allowed(field.name, field.type):
                    raise ValueError(f"column {field.name!r:.60} is of type {field.type!s:.60}")
            leaves = _leaves(fields, metadata)
            _check_size(leaves, metadata, most_cells)
            _check_pages(file, leaves, metadata)
            texts = [field.name for field in fields if is_text(field.type)]
            # by its dictionary a text takes its room once, and not in each row
            with parquet.ParquetFile(file, metadata=metadata, read_dictionary=texts) as opened:
                return _decoded(opened, [field.name for field in fields])
        except (pa.ArrowException, MemoryError) as error:
            raise _undecodable(error) from None


def columns_of_types(
    path: Path, allowed: Callable[[str, Any], bool], *, follow: bool = False
) -> tuple[list[str], list[str]]:
    """Return the columns of a file that may have their types, and the others; raises as
    `read_table`.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with open_plain(path, follow=follow) as file:
        _check_end(file)
        try:
            schema = parquet.read_schema(file)
        except (pa.ArrowException, MemoryError) as error:
            raise _undecodable(error) from None
    named = [field.name for field in schema if allowed(field.name, field.type)]
    return named, [field.name for field in schema if field.name not in named]


def _undecodable(error: BaseException) -> ValueError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ValueError(f"it can't be decoded: {reason}")


def _check_end(file: BinaryIO) -> None:
    """Check size and footer of a file, since the library reads a footer of any length at once."""
    size = os.fstat(file.fileno()).st_size
    if size > MOST_FILE:
        raise ValueError(f"it is larger than {MOST_FILE:,} bytes")
    file.seek(max(0, size - END))
    end = file.read(END)
    file.seek(0)
    if len(end) < END or not end.endswith(MAGIC):
        raise ValueError("it doesn't end as a parquet file does; it may be cut off")
    length = int.from_bytes(end[:4], "little")
    if length > min(size, MOST_FOOTER):
        raise ValueError(
            f"its footer claims {length:,} bytes, and at most {MOST_FOOTER:,} are read"
        )


def _leaves(fields: list[Any], metadata: Any) -> dict[int, Any]:
    """Return the numbers of the file's columns that are decoded for these `pyarrow.Field`s, with
    the types of these.

    The library finds them by their paths, such as `reference.list.element` of a list. It also
    takes an `x.y` in a column `x` for the column that is named `x.y`, and reads both. Raises
    ValueError where a column has not exactly one of its own.
    """
    types = {field.name: field.type for field in fields}
    leaves: dict[int, Any] = {}
    paths: set[str] = set()
    read: set[str] = set()
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        path = column.path
        if path in paths:
            raise ValueError(f"two columns have the path {path!r:.60}")
        paths.add(path)
        # a column of its own has a name that is all of its path; it may have points, too
        names = [path] if column.name == path else _prefixes(path)
        for name in names:
            if name not in types:
                continue
            if name in read or number in leaves:
                raise ValueError(f"columns beside {name!r:.60} have paths that begin as it does")
            read.add(name)
            leaves[number] = types[name]
        # decimals, of which a file may say that each takes a megabyte
        is_fixed = number in leaves and column.physical_type == "FIXED_LEN_BYTE_ARRAY"
        if is_fixed and column.length > WIDEST_FIXED:
            raise ValueError(f"column {path!r:.60} has values of {column.length:,} bytes")
    return leaves


def _prefixes(path: str) -> list[str]:
    """Return a path's beginnings at its points, and itself."""
    ends = [place for place, character in enumerate(path) if character == "."]
    if len(ends) > MOST_LEVELS:
        raise ValueError(f"column {path!r:.60} has more than {MOST_LEVELS} levels")
    return [path[:end] for end in (*ends, len(path))]


def _check_size(leaves: dict[int, Any], metadata: Any, most_cells: int) -> None:
    """Check what a file holds by its metadata alone."""
    cells = metadata.num_rows * len(leaves)
    if cells > most_cells:
        raise ValueError(
            f"it has {metadata.num_rows:,} rows of {count_of(len(leaves), 'column')}, and at most "
            f"{most_cells:,} values are read"
        )
    if metadata.num_row_groups > MOST_GROUPS:
        raise ValueError(
            f"it has {metadata.num_row_groups:,} groups of rows, and at most {MOST_GROUPS:,} are "
            f"read"
        )
    size = metadata.num_rows * sum(map(_row_bytes, leaves.values()))
    for column, kind in _chunks(leaves, metadata):
        size += _bytes_of_chunk(column, kind)
    _check_bytes(size)


def _chunks(leaves: dict[int, Any], metadata: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the parts of a file's columns in its groups of rows, each with the column's type."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place, kind in leaves.items():
            if place >= group.num_columns:
                raise ValueError("it can't be decoded: a group of rows lacks a column")
            yield group.column(place), kind


def _check_pages(file: BinaryIO, leaves: dict[int, Any], metadata: Any) -> None:
    """Check the pages of a file's columns by their own headers: the metadata may claim less."""
    size = 0
    pages = 0
    for column, _ in _chunks(leaves, metadata):
        for page in pages_of(file, column):
            pages += 1
            size += page.decompressed_bytes
            if pages > MOST_PAGES:
                raise ValueError(f"it has more than {MOST_PAGES:,} pages")
            # a text may repeat all of the one before
            if page.encoding == DELTA_BYTE_ARRAY and column.physical_type == "BYTE_ARRAY":
                raise ValueError(
                    f"column {column.path_in_schema!r:.60} is encoded as DELTA_BYTE_ARRAY, whose "
                    f"size isn't known before it is decoded; encode it as PLAIN or by a dictionary"
                )
            _check_bytes(size)


def _row_bytes(kind: Any) -> int:
    """Return the bytes that a row takes in a column of this type, whatever it holds."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):  # a missing list takes as much as another one
        return int(kind.list_size) * _row_bytes(kind.value_type)
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        return max(1, int(kind.bit_width) // 8)
    return OBJECT


def _bytes_of_chunk(column: Any, kind: Any) -> int:
    """Return the bytes of a column's values in a group of rows that have sizes of their own."""
    import pyarrow as pa

    if is_text(kind):
        return int(column.total_uncompressed_size)
    if pa.types.is_list(kind):
        return int(column.num_values) * _row_bytes(kind.value_type)
    return 0


def _decoded(file: Any, columns: list[str]) -> Any:
    """Return a file's columns, group by group: a group that holds more than its metadata say is
    the last.
    """
    import pyarrow as pa

    parts = []
    size = 0
    for number in range(file.metadata.num_row_groups):
        part = file.read_row_group(number, columns=columns, use_threads=False)
        for column in part.columns:
            coded = pa.types.is_dictionary(column.type)
            size += _text_bytes(column) if coded else column.nbytes
        _check_bytes(size)
        parts.append(part)
    if not parts:
        return file.read(columns=columns, use_threads=False)
    return pa.concat_tables(parts)


def _check_bytes(size: int) -> None:
    if size > MOST_DECODED:
        raise ValueError(f"it holds {size:,} bytes, decoded, and at most {MOST_DECODED:,} are read")


def _text_bytes(column: Any) -> int:
    """Return the bytes of a column of texts by its dictionary once each row has its own."""
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        lengths = pc.cast(pc.binary_length(chunk.dictionary), "int64").take(chunk.indices)
        total += pc.sum(lengths).as_py() or 0
    return total


def is_text(kind: Any) -> bool:
    """Return whether a `pyarrow.DataType` is of texts, also by a dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: Any) -> bool:
    """Return whether a `pyarrow.DataType` is of truth values, integers or floats."""
    import pyarrow as pa

    return bool(
        pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    )
