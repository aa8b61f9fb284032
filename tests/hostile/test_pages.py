"""Reports of hostile records: no browser, Markdown viewer, chart or spreadsheet obeys anything
of the data.
"""

import csv
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from payloads import LONG, OWNED, attack, folder

from helpers.browser import Site, look, needs_browser, site, visit
from helpers.elements import Elements
from hpml_bench.page import render
from hpml_bench.page.export import csv_text, latex_table
from hpml_bench.page.tables import TITLES, table

FORMATS = ("html", "md", "csv", "tex")


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with site() as one:
        yield one


@pytest.fixture(scope="module")
def hostile_report(served: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose every text attacks, with its report in every format."""
    place = folder(tmp_path_factory.mktemp("evil"), attack(served.address))
    render.write_report(place, None, FORMATS)
    return place


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the page of the same records with harmless text."""
    place = folder(tmp_path_factory.mktemp("plain"), "harmless")
    render.write_report(place, None, ["html"])
    return (place / "report.html").read_text(encoding="utf-8")


def own(html: str) -> dict[str, int]:
    return {
        kind: sum(tag == kind for tag, _ in Elements(html).found) for kind in ("script", "input")
    }


def obeyed(html: str, local: re.Pattern[str], allowed: dict[str, int] | None = None) -> list[str]:
    """Return what of a page would run or load: scripts beyond ours, event handlers, addresses
    that aren't local.
    """
    found, elements = [], Elements(html).found
    counts = {"script": 0, "input": 0} | (allowed or {})
    found += [
        kind for kind, count in counts.items() if sum(tag == kind for tag, _ in elements) != count
    ]
    for tag, attributes in elements:
        if tag in {"iframe", "object", "embed", "base", "video", "audio"} or (
            tag == "form" and "action" in attributes
        ):
            found.append(tag)
        for name, value in attributes.items():
            if name.startswith("on"):
                found.append(f"{tag} {name}")
            if name in {
                "src",
                "href",
                "xlink:href",
                "srcset",
                "action",
                "data",
                "poster",
            } and not local.match(value or ""):
                found.append(f"{tag} {name}={value}")
    return found


@needs_browser
def test_the_browser_sees_an_attack_that_works(served: Site, tmp_path: Path) -> None:
    """The eyes of the tests below: unprotected, the same text runs its script and loads from the
    site.
    """
    document, asked = visit(served, f"<!doctype html><body>{attack(served.address)}", tmp_path)
    assert (
        OWNED in re.findall("<title>(.*?)</title>", document, re.DOTALL) or "/leak-script" in asked
    )
    assert asked & {"/leak-img", "/leak-script", "/leak-css"}


@needs_browser
def test_a_browser_obeys_nothing(
    hostile_report: Path, harmless: str, served: Site, tmp_path: Path
) -> None:
    """In Chromium no script of the data runs, no element of it arises, and no request leaves the
    page.
    """
    document, asked = visit(
        served, (hostile_report / "report.html").read_text(encoding="utf-8"), tmp_path
    )
    assert asked == set()
    assert document.count("<h2") == 7, "the page is whole"
    assert "aria-sort" in document or "<button" in document, "our own script ran"
    assert f"<title>{OWNED}" not in document
    plain, _ = visit(served, harmless, tmp_path / "plain")
    assert obeyed(document, re.compile("#|data:,$"), own(plain)) == []


@needs_browser
def test_the_policy_holds_alone(hostile_report: Path, served: Site, tmp_path: Path) -> None:
    """Were a text put into the page unescaped, its Content-Security-Policy would still stop
    scripts and requests.
    """
    page = (hostile_report / "report.html").read_text(encoding="utf-8")
    raw = attack(served.address).replace(
        "http-equiv=refresh", "http-equiv=x"
    )  # no policy stops a redirection
    document, asked = visit(
        served, page.replace('<main id="content">', f'<main id="content">{raw}'), tmp_path
    )
    assert "onerror=" in document
    assert asked == set()
    assert f"<title>{OWNED}" not in document


@needs_browser
def test_the_console_stays_empty(hostile_report: Path, tmp_path: Path) -> None:
    """Chromium finds nothing to say of a page: its policy allows all that the page itself has,
    and it has no error.
    """
    assert look(hostile_report / "report.html", tmp_path / "profile")[1] == []
    page = (hostile_report / "report.html").read_text(encoding="utf-8")
    styled = tmp_path / "styled.html"
    styled.write_text(page.replace("<main ", '<main style="color: red" ', 1), encoding="utf-8")
    assert any("style" in line for line in look(styled, tmp_path / "profile")[1]), (
        "its eyes are open"
    )


def test_html_holds_no_element_of_the_data(hostile_report: Path, harmless: str) -> None:
    """Without a browser: our scripts alone, no handler, no address outside; and a policy that
    starts from nothing.
    """
    text = (hostile_report / "report.html").read_text(encoding="utf-8")
    assert obeyed(text, re.compile("#|data:,$"), own(harmless)) == []
    assert re.search(r'http-equiv="Content-Security-Policy" content="default-src \'none\'', text)
    assert text.index("Content-Security-Policy") < text.index("<style") < text.index("<script")


@pytest.mark.parametrize("html", [True, False])
def test_markdown_becomes_no_element_of_the_data(hostile_report: Path, html: bool) -> None:
    """Rendered with raw HTML allowed, or shown: charts and folded tables only; no link, image,
    script or heading.
    """
    text = (hostile_report / "report.md").read_text(encoding="utf-8")
    viewer = MarkdownIt("commonmark", {"html": html}).enable(["table", "strikethrough"])
    made = viewer.render(text)
    assert obeyed(made, re.compile(r"figures/\w+\.svg$")) == []
    tags = {tag for tag, _ in Elements(made).found}
    known = {
        "h1",
        "h2",
        "h3",
        "p",
        "ul",
        "li",
        "strong",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "img",
    }
    assert tags <= known | ({"details", "summary"} if html else set())
    titles = re.findall("<h2>(.*?)</h2>", made)
    assert titles == [title for title, _ in TITLES.values()]
    parts = re.findall("<h3>(.*?)</h3>", made)
    assert len(parts) == len(set(parts)) > 1
    assert not [title for title in parts if OWNED in title or title == "heading"]


def test_pages_hold_no_control_characters(hostile_report: Path) -> None:
    """Every file written is free of control, escape and direction-changing characters, and of
    endless lines.
    """
    for path in hostile_report.rglob("*"):
        if path.suffix in {".html", ".md", ".csv", ".tex", ".svg"}:
            text = path.read_text(encoding="utf-8")
            odd = {c for c in text if not c.isprintable() and c != "\n"}
            assert not odd, (path.name, odd)
            assert LONG[:20_000] not in text, path.name


def test_charts_are_sound_xml(hostile_report: Path) -> None:
    """Each drawing parses, in a file and in the page, and holds shapes, text and links within
    the page only.
    """
    files = sorted((hostile_report / "figures").glob("*.svg"))
    texts = [path.read_text(encoding="utf-8") for path in files]
    texts += re.findall(
        r"<svg.*?</svg>", (hostile_report / "report.html").read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(texts) >= 16
    for text in texts:
        tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()}
        assert tags <= {"svg", "g", "a", "line", "polyline", "polygon", "circle", "text"}, tags


def test_spreadsheets_run_nothing(hostile_report: Path) -> None:
    """Every CSV table is rectangular, and no cell or heading of text begins as a formula."""
    for path in (hostile_report / "tables").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert len({len(row) for row in rows}) == 1, path.name
        for cell in (cell for row in rows for cell in row):
            assert not re.match(r"[=+@＝＋＠－]|-(?![\d.]+(e[+-]?\d+)?$)", cell), (
                path.name,
                cell[:40],
            )
    formulas = table("t", "c", ["=1+1", "＝1"], [["@SUM(A1)", "\t=1"]])
    assert csv_text(formulas) == "'=1+1,'＝1\n'@SUM(A1),'=1\n"


def test_latex_obeys_nothing(hostile_report: Path) -> None:
    """No command of the data is left; a row that begins with a bracket is no argument of the row
    before.
    """
    known = {
        "begin",
        "end",
        "centering",
        "caption",
        "label",
        "toprule",
        "midrule",
        "bottomrule",
        "par",
        "smallskip",
        "footnotesize",
        "textbackslash",
        "textasciitilde",
        "textasciicircum",
        "textless",
        "textgreater",
        "textbar",
        "pm",
        "approx",
        "surd",
        "times",
        "ldots",
        "cdot",
    }
    for path in (hostile_report / "tables").glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"(?<!\\)\\([A-Za-z]+)", text)) <= known, path.name
        assert text.count(r"\begin{") == text.count(r"\end{") == 2
    rows = latex_table(table("t", "c", ["[a]", "b"], [["[9cm]", "x"], ["*", "y"]]))
    assert r"{}[a] & b \\" in rows
    assert r"{}[9cm] & x \\" in rows
    assert r"{}* & y \\" in rows


def test_names_are_not_looked_for_in_what_escaping_wrote() -> None:
    """A method called `amp` is made bold where its name stands, and not inside `&amp;`."""
    assert (
        render._emphasise("a &amp; b of amp", ["amp", "39"], "<b>", "</b>")
        == "a &amp; b of <b>amp</b>"
    )
    assert render._emphasise("&#39;x 39", ["amp", "39"], "<b>", "</b>") == "&#39;x <b>39</b>"
