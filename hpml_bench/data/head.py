"""Head of a large file with rows: its first rows as a file of their own, so that the whole is never read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from hpml_bench.system.cache import cache_folder, locked, new_entry
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest

LARGE = 16 * 2**20
"""Bytes of a file beyond which only its head is read."""
QUOTED = frozenset({".csv", ".tsv", ".tab"})
"""Kinds of files whose cells may have line breaks within quotes; where half a file seems to be quoted, none is."""
HEAD_ROWS = 20_000
"""Most rows read of a parquet file, whose bytes say little about its rows."""


class Head(NamedTuple):
    """The first rows of a file."""

    file: Path
    """A file of the cache, or the file itself where it is small."""
    share: float
    """Share of the file that it is, by bytes; by rows of parquet."""


def head_of(file: Path) -> Head:
    """Return a small file itself, and of a large one a file with its first rows, of about `LARGE` bytes.

    Raises:
        UserError: no row ends within them.

    """
    facts = file.stat()
    if facts.st_size <= LARGE:
        return Head(file, 1.0)
    name = digest([str(file.resolve()), facts.st_size, facts.st_mtime_ns, LARGE], 16)
    suffix = file.suffix.lower()
    target = cache_folder() / "heads" / name / f"head{suffix}"
    with locked(target.parent):
        if suffix == ".parquet":
            return Head(target, _parquet_head(file, target))
        with file.open("rb") as opened:
            content = opened.read(LARGE)
        whole = (
            _first_values(content)
            if content.lstrip()[:1] == b"[" and suffix == ".json"
            else _lines(content, quotes=suffix in QUOTED)
        )
        if not whole:
            raise UserError(f"{file}: no row ends within its first {LARGE / 2**20:.0f} MB, so that it holds no rows")
        kept = _as_lines(whole) if isinstance(whole, list) else whole
        share = (whole[-1][1] if isinstance(whole, list) else len(whole)) / facts.st_size
        if not target.is_file():
            with new_entry(target) as fresh:
                fresh.write_bytes(kept)
    return Head(target, share)


def _lines(content: bytes, *, quotes: bool) -> bytes:
    """Return a text up to its last line break; with `quotes` one outside of them. Empty without one."""
    end = len(content)
    while (end := content.rfind(b"\n", 0, end)) >= 0:
        if not quotes or content.count(b'"', 0, end) % 2 == 0 or end < len(content) // 2:
            return content[: end + 1]
    return b""


def _first_values(content: bytes) -> list[tuple[object, int]]:
    """Return the whole objects at the beginning of a JSON list, each with the place after it."""
    text = content.decode("utf-8", errors="ignore")
    decoder, place, found = json.JSONDecoder(), text.index("[") + 1, []
    try:
        while True:
            place += len(text[place : place + 1000]) - len(text[place : place + 1000].lstrip(" ,\t\r\n"))
            value, place = decoder.raw_decode(text, place)
            found.append((value, place))
    except (ValueError, RecursionError):
        return found


def _as_lines(objects: list[tuple[object, int]]) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value, _ in objects).encode()


def _parquet_head(file: Path, target: Path) -> float:
    """Write the first rows of a parquet file to `target`, and return which share they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        whole = pq.ParquetFile(file)
        batches, rows = [], 0
        for batch in whole.iter_batches(batch_size=min(1000, HEAD_ROWS)):
            batches.append(batch)
            rows += batch.num_rows
            if rows >= HEAD_ROWS or sum(part.nbytes for part in batches) > LARGE:
                break
        if not target.is_file():
            with new_entry(target) as fresh:
                pq.write_table(pa.Table.from_batches(batches, whole.schema_arrow), fresh)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read as parquet: {str(error)[:200]}") from None
    return float(rows / max(1, whole.metadata.num_rows))
