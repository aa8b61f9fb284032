"""The figures of the pages are those of the files beside them, which the auditor recomputes: tables and answer."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers.made_records import failed, sweep, write
from helpers.without_charts import without_charts
from hpml_bench.plugins.blocks import Table
from hpml_bench.report.answer.model import Answer
from hpml_bench.report.answer.numbers import answer_of
from hpml_bench.report.export import markdown_text
from hpml_bench.report.render import all_sections, load, tables_of, write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with its pages."""
    place = write(tmp_path_factory.mktemp("pages"), [*sweep(), failed("full", 7, "diverged", "x")])
    with without_charts():
        write_report(place)
    return place


@pytest.fixture(scope="module")
def tables(folder: Path) -> tuple[Table, ...]:
    """Return the tables that pages and CSV files are made of."""
    with without_charts():
        return tables_of(all_sections(load(folder)))


class Rows(HTMLParser):
    """The rows of a page's tables: the text of their cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a row or a cell."""
        del attrs
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag: str) -> None:
        """End a cell."""
        self.open = self.open and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        """Add to a cell."""
        if self.open:
            self.rows[-1][-1] += data


def test_tables_of_pages_are_those_of_the_files(folder: Path, tables: tuple[Table, ...]) -> None:
    """Both pages have every row of every table, each cell as the table has it, in order."""
    html = [[" ".join(cell.split()) for cell in row] for row in Rows((folder / "report.html").read_text()).rows]
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    markdown = [re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in lines if line.startswith("|")]
    assert sum(len(table.rows) for table in tables) > 100
    for table in tables:
        for at, row in enumerate(table.rows):
            assert [" ".join(cell.split()) for cell in spoken(table, at)] in html
            assert [markdown_text(cell) for cell in row] in markdown


def spoken(table: Table, at: int) -> list[str]:
    """Return a row's cells as the page has them: a mark is followed by its meaning for who hears the page."""
    marks = table.marks[at] if table.marks else [None] * len(table.columns)
    words = {"better": ", better", "worse": ", worse", "open": ", can't tell", "equal": ", equal"}
    return [
        f"{cell[:-2]}{cell[-1]}{words[mark]}" if mark else cell
        for cell, mark in zip(table.rows[at], marks, strict=True)
    ]


def test_the_answer_stands_beside_the_page(folder: Path, tmp_path: Path) -> None:
    """report.json is the answer, one value a line; tables alone bring none, nor do runs none of which is compared."""
    text = (folder / "report.json").read_text(encoding="utf-8")
    assert Answer.model_validate_json(text) == answer_of(load(folder))
    assert text.endswith("\n}\n")
    assert '\n "suite": ' in text
    write_report(folder, tmp_path, ("csv",))
    assert not (tmp_path / "report.json").exists()
    bare = write(tmp_path / "bare", [failed("full", 0, "failed", "x")])
    (bare / "report.json").write_text("{}")
    assert bare / "report.json" not in write_report(bare, None, ("md",))
    assert not (bare / "report.json").exists()
