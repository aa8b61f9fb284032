"""The figures of the pages are those of the files beside them, which the auditor recomputes: tables and answer."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import lxml.html
import pytest

from helpers.made_records import failed, sweep, write
from hpml_bench.plugins.blocks import Table
from hpml_bench.report import render
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.model import PageSummary
from hpml_bench.report.export import markdown_text
from hpml_bench.report.render import all_sections, load, tables_of, write_report
from hpml_bench.report.results import Results
from hpml_bench.suite.suite import packaged


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with its pages."""
    place = write(tmp_path_factory.mktemp("pages"), [*sweep(), failed("full", 7, "diverged", "x")])
    write_report(place)
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    """Return the folder's results."""
    return load(folder)


@pytest.fixture(scope="module")
def tables(results: Results) -> tuple[Table, ...]:
    """Return the tables that pages and CSV files are made of."""
    return tables_of(all_sections(results))


SIGNS = {"better": " ▲", "worse": " ▼", "open": " ?", "equal": " ="}
"""Signs that the style sheet, with words for who hears the page, puts behind the cells of a matrix."""


def cell_of(element: Any) -> str:
    """Return the text of a cell, with the sign of its class."""
    sign = next((sign for kind, sign in SIGNS.items() if kind in (element.get("class") or "").split()), "")
    return " ".join((element.text_content() + sign).split())


def test_tables_of_pages_are_those_of_the_files(folder: Path, tables: tuple[Table, ...]) -> None:
    """Both pages have every row of every table, each cell as the table has it, in order."""
    page = lxml.html.fromstring((folder / "report.html").read_text())
    html = [[*map(cell_of, row.iterchildren("td", "th"))] for row in page.iter("tr")]
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    markdown = [re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in lines if line.startswith("|")]
    assert sum(len(table.rows) for table in tables) > 100
    for table in tables:
        for row in table.rows:
            assert [" ".join(cell.split()) for cell in row] in html
            assert [markdown_text(cell) for cell in row] in markdown


def test_the_style_sheet_has_the_signs() -> None:
    """Each mark of a matrix has its sign, with words beside it."""
    sheet = (packaged("templates", "templates") / "report.css").read_text(encoding="utf-8")
    for kind, sign in SIGNS.items():
        assert re.search(
            rf'\.matrix \.{kind}::after {{ content: "{re.escape(sign[1:])}"; content: "[^"]+" / "[a-z\' ]+"; }}', sheet
        )


def test_a_table_too_long_for_a_page_stands_beside_it(
    results: Results, tables: tuple[Table, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the limit: the page has its caption and a link to the CSV, which is written; others stand on the page."""
    rows = next(len(table.rows) for table in tables if table.name == "runs")
    beside = {f"{table.name}.csv" for table in tables if len(table.rows) >= rows}
    assert len(beside) < len(tables)
    monkeypatch.setattr(render, "LONGEST", rows - 1)
    written = write_report(results, tmp_path / "out", ("html", "md"))
    html, markdown = ((tmp_path / "out" / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    runs = tmp_path / "out" / "tables" / "runs.csv"
    assert runs in written
    assert len(runs.read_text(encoding="utf-8").splitlines()) == 1 + rows
    assert f'<a href="tables/runs.csv">{rows} rows in tables/runs.csv</a>' in html
    for note in next(table for table in tables if table.name == "runs").notes:
        assert note in unescape(html)
    assert f"[{rows} rows](tables/runs.csv)" in markdown
    assert {path.name for path in runs.parent.iterdir()} == beside


def test_the_answer_stands_beside_the_page(folder: Path, results: Results, tmp_path: Path) -> None:
    """report.json is the answer, one value a line; tables alone bring none, nor do runs none of which is compared."""
    text = (folder / "report.json").read_text(encoding="utf-8")
    assert PageSummary.model_validate_json(text) == answer_of(results)
    assert text.endswith("\n}\n")
    assert '\n "suite": ' in text
    write_report(results, tmp_path, ("csv",))
    assert not (tmp_path / "report.json").exists()
    bare = write(tmp_path / "bare", [failed("full", 0, "failed", "x")])
    (bare / "report.json").write_text("{}")
    assert bare / "report.json" not in write_report(bare, None, ("md",))
    assert not (bare / "report.json").exists()
