"""Files beside a page, its answer and its tables, and the audit of them."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from audit.values import Cell, Near, agree

EXACT = re.compile(r"-?\d+(\.\d+(e[+-]\d+)?|e[+-]\d+)")
"""A real number as CSV has it, in all its digits."""


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    name: str
    header: list[str]
    rows: list[list[str]]


def read_table(path: Path) -> Table:
    """Read a table's CSV; deviations and notes stand behind the values that they are of, as on the page."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    own = [at for at, name in enumerate(header) if re.sub(r" (sd|note)$", "", name) not in header[:at]]
    return Table(path.stem, [header[at] for at in own], [[_cell(header, row, at) for at in own] for row in rows])


def _cell(header: list[str], row: list[str], at: int) -> str:
    """Return a cell with its deviation and note; a number that stands alone is exact, others are rounded."""
    beside = dict(zip(header[at + 1 : at + 3], row[at + 1 : at + 3], strict=True))
    value = re.sub(r"^'(?=[=+@＝＋＠－-])", "", row[at])
    if EXACT.fullmatch(value):
        value = f"{float(value):.11e}"
    spread, note = (beside.get(f"{header[at]} {kind}", "") for kind in ("sd", "note"))
    return " ".join(filter(None, [value, spread and f"± {spread}", note]))


@dataclass
class Audit:
    """What was compared, and what disagrees."""

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def check(self, part: str, path: str, shown: str | None, expected: Cell) -> None:
        """Compare what is said with what was recomputed."""
        self.checked[part] += 1
        if not agree(shown, expected):
            value = expected[1] if isinstance(expected, tuple) and not isinstance(expected, Near) else expected
            self.problems.append(f"{part} | {path}: said {shown!r}, recomputed {value!r}")

    def uncovered(self, part: str, path: str, shown: object) -> None:
        """Note a figure that no rule is for."""
        self.checked[part] += 1
        self.problems.append(f"{part} | {path}: {shown!r} is covered by no rule")
