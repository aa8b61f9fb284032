"""Committed reports are what this version writes from their committed records, byte for byte."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from hpml_bench.report.render import write_report

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
REPORTS = sorted(path.parent.name for path in REFERENCE.glob("*/report.md"))
DRAWN_WITH = "3.11"
"""matplotlib's version that drew the committed charts; another may write other bytes."""


@pytest.mark.parametrize("name", REPORTS)
def test_a_committed_report_is_what_its_records_give(name: str, tmp_path: Path) -> None:
    """Pages, report.json, figures and tables: none differs, none is missing, none is left of an older version."""
    folder = REFERENCE / name
    made = {path.relative_to(tmp_path) for path in write_report(folder, tmp_path, ("html", "md", "csv"))}
    drawn_alike = version("matplotlib").startswith(f"{DRAWN_WITH}.")
    for path in made:
        if drawn_alike or path.suffix not in {".html", ".svg"}:
            again = f"hpml-bench report reports/reference/{name} --format html,md,csv"
            assert (folder / path).read_bytes() == (tmp_path / path).read_bytes(), f"{path} differs; {again}"
    kept = {path.relative_to(folder) for part in ("figures", "tables") for path in (folder / part).glob("*")}
    assert kept <= made


def test_the_readme_shows_committed_answers() -> None:
    """README's tables and sentences are those of the committed reports of minilm and quickstart."""
    readme = (REFERENCE.parents[1] / "README.md").read_text(encoding="utf-8")
    for name in ("minilm", "quickstart"):
        lines = (REFERENCE / name / "report.md").read_text(encoding="utf-8").splitlines()
        first = next(at for at, line in enumerate(lines) if line.startswith("| method |"))
        assert "\n".join(lines[first : lines.index("", first)]) in readme
        assert lines[2].strip("*") in readme


def test_there_are_committed_reports() -> None:
    """The tests above have something to compare."""
    assert {"quickstart", "minilm", "faq", "chat", "regression", "tagging"} <= set(REPORTS)
