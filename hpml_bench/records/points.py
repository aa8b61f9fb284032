"""Points of a run: appended by rank 0 to points.jsonl, read back whole, or followed while they
are written.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from pydantic import ValidationError

from hpml_bench.records.files import POINTS
from hpml_bench.records.run import Point
from hpml_bench.system.files import end_of, mostly_holes, open_plain

# of points and of predictions; a larger file is not read
MOST_BYTES = 1_000_000_000
MOST_LAST = 200_000  # bytes of the last points, of which the newest step is shown
MOST_CUT = 20_000_000  # of points that are done again, which are only counted
MAX_LINE = 10_000  # characters of a line of points.jsonl; a longer one is skipped
LARGEST_STEP = 2**63 - 1


CHUNK = 2**20  # bytes that are read at once


class Written(NamedTuple):
    """The points written so far, as a checkpoint names them."""

    size: int  # bytes of the file
    digest: str  # SHA-256 of these bytes


class PointWriter:
    """Appends points to points.jsonl, one per line; flushed lines survive the process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / POINTS
        self._file: IO[str] = self._path.open("a", encoding="utf-8")
        # of what was written here, not of the file: a change from outside is no part of the run.
        # What an earlier start wrote is counted once `cut` says how much of it stays.
        self._digest = hashlib.sha256()

    def write(self, points: list[Point]) -> None:
        text = "".join(f"{point.model_dump_json(exclude_unset=True)}\n" for point in points)
        self._file.write(text)
        self._file.flush()
        self._digest.update(text.encode())

    def sync(self) -> Written:
        """Let what is written survive a crash of the machine; return what it is."""
        os.fsync(self._file.fileno())
        return Written(os.fstat(self._file.fileno()).st_size, self._digest.hexdigest())

    def begins_with(self, written: Written) -> bool:
        """Return whether the file begins with what was written when a checkpoint was saved."""
        size = os.fstat(self._file.fileno()).st_size
        return (
            0 <= written.size <= size <= MOST_BYTES
            and self._digest_of_first(written.size).hexdigest() == written.digest
        )

    def cut(self, size: int) -> list[Point]:
        """Leave the first `size` bytes, of at least as many; return the points behind them that
        are whole, of at most `MOST_CUT` bytes.
        """
        with self._path.open("rb") as file:
            file.seek(size)
            tail = io.BytesIO(file.read(MOST_CUT))
        lost = list(_whole_lines(io.TextIOWrapper(tail, encoding="utf-8", errors="replace")))
        os.ftruncate(self._file.fileno(), size)
        self._digest = self._digest_of_first(size)
        return lost

    def close(self) -> None:
        self._file.close()

    def _digest_of_first(self, size: int) -> "hashlib._Hash":
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while size > 0 and (part := file.read(min(size, CHUNK))):
                digest.update(part)
                size -= len(part)
        return digest


def iterate_points(folder: Path) -> Iterator[Point]:
    """Yield the points of a run in their order; incomplete lines (a crash, or a write in
    progress) are skipped.
    """
    try:
        file = open_plain(folder / POINTS)
    except OSError:
        return
    with io.TextIOWrapper(file, encoding="utf-8", errors="replace") as lines:
        if os.fstat(file.fileno()).st_size <= MOST_BYTES and not mostly_holes(file):
            yield from _whole_lines(lines)


def _whole_lines(file: IO[str]) -> Iterator[Point]:
    while line := file.readline(MAX_LINE):
        try:
            point = Point.model_validate_json(line)
        except ValidationError:
            continue
        if abs(point.step) <= LARGEST_STEP:
            yield point


def read_points(folder: Path) -> list[Point]:
    return list(iterate_points(folder))


def read_last_points(folder: Path) -> list[Point]:
    """Return the points of the last `MOST_LAST` bytes of a run, however many there are."""
    return list(_whole_lines(io.StringIO(end_of(folder / POINTS, MOST_LAST))))


class Tail:
    """Reads the complete lines added to a file since the last call, up to `MOST_BYTES`; stays open:
    a redacted log would be read anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def lines(self) -> list[str]:
        """Return the new complete lines; none while there is no file."""
        try:
            self._file = self._file or open_plain(self._path)
            if os.fstat(self._file.fileno()).st_size > MOST_BYTES or mostly_holes(self._file):
                return []
            new = self._file.read()
        except OSError:
            return []
        *whole, self._rest = (self._rest + new).split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def close(self) -> None:
        if self._file:
            self._file.close()
