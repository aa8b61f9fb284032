"""The end of a file that another process appends to."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO


class Tail:
    """Reads what was added to a file since the last look, whole lines only.

    The file is held from the first look on: one put in its place (a log without its secrets) would begin again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def lines(self) -> list[str]:
        """Return the new complete lines; none while the file isn't there yet."""
        try:
            self._file = self._file or self._path.open("rb")
            new = self._file.read()
        except OSError:
            return []
        *whole, self._rest = (self._rest + new).split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def close(self) -> None:
        """Let the file go."""
        if self._file:
            self._file.close()
