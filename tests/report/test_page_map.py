"""Where all that the page of sections held, section after section, stands on the page of questions: nothing is lost.

`files/page_map.json` lists that page's sections, tables, figures and texts, as version 0.1.0 made them from committed
references and from made records: place on the page now, kind, name (of a section: its title now), caption (of a
section: its title then), and number of notes or sentences.
"""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from helpers import rich_records
from hpml_bench.plugins.blocks import Fold, Table, Tabs, Text
from hpml_bench.report.export import markdown_text
from hpml_bench.report.questions import TITLES
from hpml_bench.report.render import all_sections, load, write_report

WAS: dict[str, list[tuple[str, str, str, str, int]]] = json.loads(
    (Path(__file__).parents[1] / "files" / "page_map.json").read_text(encoding="utf-8")
)
REFERENCES = Path(__file__).parents[2] / "reports" / "reference"


class Outline(HTMLParser):
    """What stands in each part of a page: ids of tables and figures, captions, titles of sections."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.part, self.inside, self.open = "", "", 0
        self.ids: set[tuple[str, str]] = set()
        self.texts: dict[tuple[str, str], list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an id, the part that begins, or an element whose text counts."""
        found = dict(attrs)
        if tag == "section":
            self.part = found.get("id") or ""
        elif tag == "details" and found.get("class") == "how":
            self.part = "reading"
        self.ids.add((self.part, found.get("id") or ""))
        if tag in {"summary", "h2", "h3", "figcaption", "li", "p"}:
            self.inside = tag
            self.texts.setdefault((self.part, tag), []).append("")

    def handle_endtag(self, tag: str) -> None:
        """End an element whose text counts."""
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data: str) -> None:
        """Add to the text of an element."""
        if self.inside:
            self.texts[self.part, self.inside][-1] += data


@pytest.fixture(scope="module", params=WAS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return a source of records and its report."""
    name: str = request.param
    place = tmp_path_factory.mktemp(name)
    source = rich_records.write(place / "records") if name == "made" else REFERENCES / name
    write_report(source, place / "report")
    return name, place / "report"


def test_all_of_the_page_before_has_its_place(made: tuple[str, Path]) -> None:
    """Each section, table with its caption and notes, and figure with its caption stands in the part named."""
    name, folder = made
    page = Outline((folder / "report.html").read_text(encoding="utf-8"))
    lost = []
    for part, kind, what, caption, notes in WAS[name]:
        titles = page.texts.get((part, "summary"), []) + page.texts.get((part, "h3"), [])
        titles += page.texts.get((part, "h2"), [])
        captions = page.texts.get((part, "figcaption"), []) + titles
        if kind == "section":
            found = any(title.startswith(what) for title in titles) or what in ONLY_OPEN.get(part, ())
        elif kind == "text":
            found = sum(len(page.texts.get((part, tag), [])) for tag in ("p", "li")) >= notes
        else:
            found = (part, f"{kind}-{what}") in page.ids and caption in captions
        lost += [] if found else [(part, kind, what, caption)]
    assert lost == []


ONLY_OPEN = {"training": ("Training curves",), "setup": ("Methods",)}
"""Sections in the open without a heading of their own, since they are their part's only open one."""


def test_notes_and_sentences_are_as_many_as_before(made: tuple[str, Path]) -> None:
    """Tables keep their notes, and texts their sentences; all stand in both pages."""
    name, folder = made
    source = folder.parent / "records" if name == "made" else REFERENCES / name
    html, markdown = ((folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    html = unescape(re.sub(r"</?strong>", "", html))
    markdown = markdown.replace("**", "")
    blocks = [block for section in all_sections(load(source)) for block in section.blocks]
    tables = {block.name: block for block in blocks if isinstance(block, Table)}
    for _, kind, what, _, notes in WAS[name]:
        if kind == "table":
            assert len(tables[what].notes) == notes, what
    every = [text for block in blocks for text in _said(block)]
    assert len(every) > 50
    for text in every:
        assert text in html, text
        assert markdown_text(text) in markdown, text


def _said(block: Any) -> tuple[str, ...]:
    """Return the sentences, notes and captions of a block."""
    if isinstance(block, Text):
        return block.sentences
    if isinstance(block, Table):
        return (block.caption, *block.notes)
    if isinstance(block, Tabs | Fold):
        return tuple(text for one in (block.tables if isinstance(block, Tabs) else block.blocks) for text in _said(one))
    return (block.caption,)


def test_the_parts_are_the_seven_questions(made: tuple[str, Path]) -> None:
    """Both pages have a heading per question in their order; the HTML links each from its bar."""
    _, folder = made
    html, markdown = ((folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    titles = [title for title, _ in TITLES.values()]
    assert re.findall(r"^## (.*)$", markdown, re.MULTILINE) == titles
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", html) == titles[:-1]
    assert re.findall(r'<section id="(\w+)"', html) == list(TITLES)[:-1]
    bar = html.partition("<nav")[2].partition("</nav>")[0]
    assert re.findall(r'href="#(\w+)"', bar) == list(TITLES)[:-1]
