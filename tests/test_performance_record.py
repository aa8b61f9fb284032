"""The committed record of speed is what the script writes, and the page shows that record."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
performance = importlib.import_module("performance")
FOLDER = ROOT / "reports" / "reference" / "performance"
RECORD, LEVERS = (json.loads((FOLDER / f"{name}.json").read_text()) for name in ("performance", "levers"))


def test_the_record_has_every_part_of_the_right_size() -> None:
    """All parts that are measured where none is named, and the time that they took; none of them by --quick."""
    parts = RECORD["parts"]
    assert set(parts) == {*performance.parts(quick=False)} - {"levers"} | {"time"}
    assert {part["quick"] for part in parts.values()} == {False}


@pytest.mark.parametrize(("mark", "record"), [("table", RECORD), ("levers", LEVERS)])
def test_the_page_shows_the_record(mark: str, record: dict[str, Any]) -> None:
    """The rows of docs/performance.md are those that `--show` prints, each, and no other."""
    page = (ROOT / "docs" / "performance.md").read_text()
    table = page[page.index(f"<!-- {mark} -->") : page.index(f"<!-- /{mark} -->")]
    shown = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| measured")]
    assert shown == performance.rows_of(record)


def test_the_readme_shows_the_ratios() -> None:
    """The table of ratios to the HF Trainer is that of the record."""
    assert "\n".join(performance.ratios_of(RECORD)) in (ROOT / "README.md").read_text()
