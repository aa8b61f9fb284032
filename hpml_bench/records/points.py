"""Points of a run: appended by rank 0 to points.jsonl, read back whole, or followed while they
are written.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from pydantic import ValidationError

from hpml_bench.records.files import POINTS
from hpml_bench.records.run import Point
from hpml_bench.system.files import is_plain_file

MAX_LINE = 10_000  # characters of a line of points.jsonl; a longer one is skipped
LARGEST_STEP = 2**63 - 1


class PointWriter:
    """Appends points to points.jsonl, one per line; flushed lines survive the process."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = (folder / POINTS).open("a", encoding="utf-8")

    def write(self, points: list[Point]) -> None:
        self._file.write(
            "".join(f"{point.model_dump_json(exclude_unset=True)}\n" for point in points)
        )
        self._file.flush()

    def sync(self) -> int:
        """Let what is written survive a crash of the machine; return the file's bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def cut(self, size: int) -> list[Point]:
        """Leave the first `size` bytes, of at least as many; return the points behind them that
        are whole.
        """
        rest = Path(self._file.name).read_bytes()[size:]
        os.ftruncate(self._file.fileno(), size)
        return list(_whole_lines(io.StringIO(rest.decode(errors="replace"))))

    def close(self) -> None:
        self._file.close()


def iterate_points(folder: Path) -> Iterator[Point]:
    """Yield the points of a run in their order; incomplete lines (a crash, or a write in
    progress) are skipped.
    """
    path = folder / POINTS
    if is_plain_file(path):
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from _whole_lines(file)


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


class Tail:
    """Reads the complete lines added to a file since the last call; stays open: a redacted log
    would be read anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def lines(self) -> list[str]:
        """Return the new complete lines; none while there is no file."""
        try:
            self._file = self._file or self._path.open("rb")
            new = self._file.read()
        except OSError:
            return []
        *whole, self._rest = (self._rest + new).split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def close(self) -> None:
        if self._file:
            self._file.close()
