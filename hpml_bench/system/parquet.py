"""Reading of parquet files from others, which are measured before they are decoded: equal values
take no room on disk.
"""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hpml_bench.system.files import open_plain
from hpml_bench.system.pages import DELTA_BYTE_ARRAY, pages_of

MOST_FILE = 500_000_000  # bytes of a file
MOST_FOOTER = 4_000_000  # bytes of the metadata at a file's end, which grow when they are decoded
MOST_GROUPS = 10_000  # groups of rows
MOST_PAGES = 100_000  # of all columns: pages hold about a megabyte
MOST_DECODED = 200_000_000  # bytes of all columns, once each row has its own
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
            _check_types(fields, metadata, allowed)
            _check_size(fields, metadata, most_cells)
            _check_pages(file, fields, metadata)
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


def _check_types(fields: list[Any], metadata: Any, allowed: Callable[[str, Any], bool]) -> None:
    for field in fields:
        if not allowed(field.name, field.type):
            raise ValueError(f"column {field.name!r:.60} is of type {field.type!s:.60}")
    types = {field.name: field.type for field in fields}
    paths: set[str] = set()
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        # a struct `a` with a field `b` and a column named `a.b` are read together
        if column.path in paths:
            raise ValueError(f"two columns have the path {column.path!r:.60}")
        paths.add(column.path)
        if _type_of(column.path, types) is None:
            continue
        # decimals, of which a file may say that each takes a megabyte
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > WIDEST_FIXED:
            raise ValueError(f"column {column.path!r:.60} has values of {column.length:,} bytes")


def _check_size(fields: list[Any], metadata: Any, most_cells: int) -> None:
    """Check what a file holds by its metadata alone."""
    cells = metadata.num_rows * len(fields)
    if cells > most_cells:
        raise ValueError(
            f"it has {metadata.num_rows:,} rows of {len(fields)} columns, and at most "
            f"{most_cells:,} values are read"
        )
    if metadata.num_row_groups > MOST_GROUPS:
        raise ValueError(
            f"it has {metadata.num_row_groups:,} groups of rows, and at most {MOST_GROUPS:,} are "
            f"read"
        )
    types = {field.name: field.type for field in fields}
    size = metadata.num_rows * sum(map(_row_bytes, types.values()))
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            kind = _type_of(column.path_in_schema, types)
            if kind is not None:
                size += _bytes_of_chunk(column, kind)
    _check_bytes(size)


def _type_of(path: str, types: Mapping[str, Any]) -> Any:
    """Return the type of the column that a path of the file's schema belongs to; None where the
    column isn't read.
    """
    # such as `reference.list.element` of a list; a column's own name may have points, too
    return types.get(path, types.get(path.partition(".")[0]))


def _check_pages(file: BinaryIO, fields: list[Any], metadata: Any) -> None:
    """Check the pages of a file's columns by their own headers: the metadata may claim less."""
    types = {field.name: field.type for field in fields}
    size = 0
    pages = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            kind = _type_of(column.path_in_schema, types)
            if kind is None:
                continue
            for page in pages_of(file, column):
                pages += 1
                size += page.decompressed_bytes
                if pages > MOST_PAGES:
                    raise ValueError(f"it has more than {MOST_PAGES:,} pages")
                if page.encoding == DELTA_BYTE_ARRAY:  # a text may repeat all of the one before
                    raise ValueError(f"column {column.path_in_schema!r:.60} has texts as deltas")
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
