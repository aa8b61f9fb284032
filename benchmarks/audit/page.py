"""Page of a report, read back from Markdown, and the audit of it."""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from audit.values import Fact, Near, agree


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    section: str
    caption: str
    header: list[str]
    rows: list[list[str]]


def plain(text: str) -> str:
    """Return Markdown without its escapes."""
    return re.sub(r"\\([^\w\s]|_)", r"\1", html.unescape(text).replace("\u200b", "")).strip()


def read_page(path: Path) -> tuple[list[Table], list[tuple[str, str]]]:
    """Read a report's tables, named by the bold line or the summary above them, and its other lines by section."""
    tables: list[Table] = []
    lines: list[tuple[str, str]] = []
    section, caption, within = "head", "", False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            cells = [plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not within:
                tables.append(Table(section, caption, cells, []))
            elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                tables[-1].rows.append(cells)
        elif line.startswith("## "):
            section, caption = plain(line[3:]), ""
        elif found := re.fullmatch(r"\*\*([^*]+)\*\*|<details>\s*<summary>(.*)</summary>", line.strip()):
            caption = plain(found[1] or found[2])
        elif line.strip():
            lines.append((section, plain(line.removeprefix("- "))))
        within = line.startswith("|")
    return tables, lines


@dataclass
class Audit:
    """What was compared, what disagrees, and what could not be checked."""

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)
    passed_over: list[str] = field(default_factory=list)

    def check(self, section: str, table: str, row: str, fact: Fact) -> None:
        """Compare what is said with what was recomputed."""
        column, shown, expected = fact
        self.checked[f"{section} | {table}"] += 1
        if not agree(shown, expected):
            value = expected[1] if isinstance(expected, tuple) and not isinstance(expected, Near) else expected
            self.problems.append(f"{section} | {table} | {row} | {column}: page {shown!r}, recomputed {value}")
