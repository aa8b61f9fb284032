"""Pages of made folders are the kept ones, word by word; reports/reference has those of real runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.golden import MADE, OVER, PAGES, page


@pytest.mark.parametrize("name", [*MADE, *OVER])
def test_a_page_is_the_kept_one(name: str, tmp_path: Path) -> None:
    """Read the difference; if it is meant, `GOLDEN=write python -m pytest tests/report/test_golden.py` keeps it."""
    made, kept = page(name, tmp_path), PAGES / f"{name}.md"
    if os.environ.get("GOLDEN") == "write":
        kept.write_text(made, encoding="utf-8")
    assert made.splitlines() == kept.read_text(encoding="utf-8").splitlines()
