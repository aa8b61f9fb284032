"""Measure of parquet files: what they hold once they are decoded, by their metadata alone."""

from typing import Any

MOST_VALUES = 100_000_000
"""Most values of a file, over all columns: of numbers 800 MB. Equal values take no room on disk."""


def too_large(metadata: Any) -> str | None:
    """Return what a file has too much of by its `pyarrow.parquet.FileMetaData`, in words; None
    where it may be decoded.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    # a list's values count one by one, and a file's rows where it has no column
    values = metadata.num_rows + sum(
        group.column(number).num_values for group in groups for number in range(group.num_columns)
    )
    if values <= MOST_VALUES:
        return None
    return (
        f"{metadata.num_rows:,} rows with {values:,} values, and at most {MOST_VALUES:,} are read"
    )


def text_bytes(column: Any) -> int:
    """Return the bytes of a column of texts that was read by its dictionary (`read_dictionary`),
    once each row has its own.
    """
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
        total += pc.sum(lengths).as_py() or 0
    return total
