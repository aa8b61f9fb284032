"""The committed records of speed are what the script writes, and the pages show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import performance
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "reports" / "reference" / "performance"
NAMES = ("intel-xeon", "amd-epyc", "quick", "language")
RECORD, BEFORE, QUICK, LANGUAGE = (json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES)


@pytest.mark.parametrize(("record", "quick"), [(RECORD, False), (BEFORE, False), (QUICK, True)])
def test_a_record_has_every_part_of_its_size(record: dict[str, Any], quick: bool) -> None:
    """All parts that are measured where none is named, and the time that they took; an earlier version had more."""
    parts = record["parts"]
    assert {*performance.parts(quick)} - {*performance.APART} | {"time"} <= set(parts)
    assert {part["quick"] for part in parts.values()} == {quick}


def marked(mark: str) -> list[str]:
    """Return the lines of a table between marks of docs/performance.md."""
    page = (ROOT / "docs" / "performance.md").read_text()
    lines = page[page.index(f"<!-- {mark} -->") : page.index(f"<!-- /{mark} -->")].splitlines()
    return [line for line in lines if line.startswith("|")]


def test_the_page_shows_the_records() -> None:
    """The ratios to the HF Trainer are the record's, each and no other; of other rows, those that are shown."""
    assert marked("speed") == performance.ratios_of(RECORD)
    for mark, record in (("language", LANGUAGE), ("table", RECORD)):
        assert marked(mark)[2:]
        assert set(marked(mark)[2:]) <= set(performance.rows_of(record))


def test_the_readme_names_the_range_of_the_ratios() -> None:
    """Its three ranges of samples/s are the smallest and the largest ratio of the record."""
    rows = [row.split(" | ") for row in performance.ratios_of(RECORD)[2:]]
    cells = [[float(cell.removesuffix(" x").removesuffix(" x |")) for cell in row[1:4]] for row in rows]
    defaults, dynamic, grouped = zip(*cells, strict=True)
    readme = (ROOT / "README.md").read_text()
    assert f"{min(grouped):.1f} to {max(grouped):.1f} times the samples/s" in readme
    assert f"{min(dynamic):.1f} to {max(dynamic):.1f} times its samples/s" in readme
    assert f"{min(defaults):.1f} to {max(defaults):.1f} times those of its defaults" in readme
