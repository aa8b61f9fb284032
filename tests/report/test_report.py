"""The pages as files: complete, self-contained, escaped, the same bytes every time, and made without torch."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from helpers import made_records
from helpers.elements import Elements
from helpers.made_records import failed, sweep
from hpml_bench.plugins.blocks import Table
from hpml_bench.report import render
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.model import PageSummary
from hpml_bench.report.export import csv_text, latex_table, load_results, markdown_table, markdown_text
from hpml_bench.report.numbers import number
from hpml_bench.report.render import all_sections, load, tables_of, write_report
from hpml_bench.report.results import Results
from hpml_bench.report.tables import table
from hpml_bench.suite.suite import packaged
from hpml_bench.system.errors import UserError


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with its report in every format."""
    place = made_records.write(tmp_path_factory.mktemp("quickstart"), [*sweep(), failed("full", 7, "diverged", "x")])
    write_report(place, None, ("html", "md", "csv", "tex"))
    return place


def page(folder: Path) -> Elements:
    """Parse a folder's report.html."""
    return Elements((folder / "report.html").read_text(encoding="utf-8"))


def test_only_our_scripts_and_styles_are_allowed(report_folder: Path) -> None:
    """The policy allows by hash the page's own scripts and sheets, and nothing else."""
    made = page(report_folder)
    policy = next(a["content"] for tag, a in made.found if tag == "meta" and a.get("http-equiv")) or ""
    rules = {kind: allowed for kind, *allowed in map(str.split, policy.split(";"))}
    for tag in ("style", "script"):
        texts = made.said(tag, type=None)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert rules[f"{tag}-src"] == [f"'sha256-{digest}'" for digest in digests]
        ours = packaged("templates", "templates")
        wanted = {path.read_text() for path in ours.glob("*.css" if tag == "style" else "*.js")}
        assert texts
        assert set(texts) <= wanted
    assert "unsafe" not in policy
    assert not [name for _, attributes in made.found for name in attributes if name.startswith("on")]


def test_no_element_has_a_style(report_folder: Path) -> None:
    """The policy would drop it; in charts too, which keep colours, widths and fonts as attributes."""
    folder, made = report_folder, page(report_folder)
    assert [tag for tag, attributes in made.found if "style" in attributes] == []
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert " style=" not in re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
    drawn = [attributes for tag, attributes in made.found if tag in {"line", "polyline", "circle", "text"}]
    assert {name for of in drawn for name in of} >= {"fill", "stroke", "stroke-width", "text-anchor"}
    assert all(" style=" not in path.read_text() for path in (folder / "figures").glob("*.svg"))


def test_links_lead_somewhere(report_folder: Path) -> None:
    """Every link and reference within a chart has its target in the page; no two elements share an id."""
    made = page(report_folder)
    ids = [attributes["id"] for _, attributes in made.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a.get("href") or a.get("xlink:href") or "data:" for _, a in made.found}
    assert {link for link in links if not link.startswith("data:")} <= {f"#{one}" for one in ids}


def test_report_needs_no_torch(report_folder: Path, tmp_path: Path) -> None:
    """A report is made without torch, transformers, wandb or matplotlib being imported."""
    code = (
        "import sys; from pathlib import Path; from hpml_bench.report.render import write_report;"
        f"write_report(Path({str(report_folder)!r}), Path({str(tmp_path)!r}));"
        "print({'torch', 'transformers', 'peft', 'datasets', 'wandb', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("shown", "value", "expected"), [
    ("1.2 ± 0.3 †", 1.23, "1.23,0.3,†"),
    ("1.2 ± 0.3 † ¶", 1.23, "1.23,0.3,† ¶"),
    ("1,234 †", 1234.5, "1234.5,†"),
    ("1,234 ± 1,000, never (2 of 5)", 1234.5, "1234.5,1000,never (2 of 5)"),
    ("never (5 of 5)", None, ",never (5 of 5)"),
    ("–", None, ""),
])  # fmt: skip
def test_csv_keeps_what_a_cell_says_beyond_its_value(shown: str, value: float | None, expected: str) -> None:
    """Marks of notes and seeds without a value stand in a column of notes; a missing value is empty."""
    made = table("t", "c", ["s", "t"], [[(shown, value), ("1", 1.0)]])
    assert csv_text(made).splitlines()[1] == f"{expected},1.0"


def test_latex_escapes() -> None:
    """Characters that LaTeX would obey are escaped, and numbers are aligned right."""
    made = table("t", "50% & more", ["method", "x_1 ($)"], [["a_b \\ {} ^~#", ("1 ± 2", 1.0)]])
    text = latex_table(made)
    assert r"\caption{50\% \& more}" in text
    assert r"method & x\_1 (\$) \\" in text
    assert r"a\_b \textbackslash{} \{\} \textasciicircum{}\textasciitilde{}\# & 1 $\pm$ 2 \\" in text
    assert r"\begin{tabular}{lr}" in text


def test_markdown_escapes() -> None:
    """Pipes, emphasis, links and tags become text; decimals and names with underscores stay readable."""
    assert markdown_text("a|b *c* [d](e) <f> 1.5 prompt_tuning") == r"a\|b \*c\* \[d\](e) &lt;f&gt; 1.5 prompt_tuning"
    assert markdown_text("1. no list") == r"1\. no list"
    assert markdown_text("www.x.com a@b.com") == "www&#8203;.x.com a@&#8203;b.com"
    two = Table(name="t", caption="c", columns=("a", "b"), rows=(("x", "1"),), values=(("x", 1.0),))
    assert markdown_table(two) == "| a | b |\n| --- | ---: |\n| x | 1 |"


@pytest.mark.parametrize(("value", "spec", "shown"), [
    (0.123456, ".3g", "0.123"),
    (1234567.0, ".3g", "1,234,567"),
    (12.0, ".3g", "12.0"),
    (0.0, ".3g", "0"),
    (-1.5, ".1f", "−1.5"),
    (-0.04, ".1f", "0.0"),
    (0.00001, ".3g", "1.00e-05"),
    (1340000.0, "d", "1,340,000"),
    (2.5, ".99999f", "2.50"),
    (None, ".3g", "–"),
    (float("nan"), ".3g", "–"),
])  # fmt: skip
def test_numbers_read_well(value: float | None, spec: str, shown: str) -> None:
    """Numbers have thousands separators and no needless exponent; what isn't known is a dash."""
    assert number(value, spec) == shown


def test_frame_has_a_row_a_run(report_folder: Path) -> None:
    """`load_results` gives identity, status and every metric as columns, in time order."""
    frame = load_results(report_folder)
    assert len(frame) == 26
    assert list(frame.columns[:5]) == ["run_id", "suite", "method", "seed", "status"]
    assert frame.test_accuracy.dtype == "float64"
    assert frame.started.is_monotonic_increasing


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    """An empty folder, a missing one and an unknown format are a user's mistakes, told in a sentence."""
    with pytest.raises(UserError, match="no recorded run"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        load_results(tmp_path / "missing")
    with pytest.raises(UserError, match="choose from html, md, csv, tex"):
        write_report(tmp_path, formats=("gif",))


# The figures of pages are those of the files beside them


@pytest.fixture(scope="module")
def results(report_folder: Path) -> Results:
    """Return the folder's results."""
    return load(report_folder)


@pytest.fixture(scope="module")
def page_tables(results: Results) -> tuple[Table, ...]:
    """Return the tables that pages and CSV files are made of."""
    return tables_of(all_sections(results))


SIGNS = {"better": " ▲", "worse": " ▼", "open": " ?", "equal": " ="}
"""Signs that the style sheet, with words for who hears the page, puts behind the cells of a matrix."""


def test_the_style_sheet_has_the_signs() -> None:
    """Each mark of a matrix has its sign, with words beside it."""
    sheet = (packaged("templates", "templates") / "report.css").read_text(encoding="utf-8")
    for kind, sign in SIGNS.items():
        assert re.search(
            rf'\.matrix \.{kind}::after {{ content: "{re.escape(sign[1:])}"; content: "[^"]+" / "[a-z\' ]+"; }}', sheet
        )


def test_a_table_too_long_for_a_page_stands_beside_it(
    results: Results, page_tables: tuple[Table, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the limit: the page has its caption and a link to the CSV, which is written; others stand on the page."""
    rows = next(len(one.rows) for one in page_tables if one.name == "runs")
    beside = {f"{one.name}.csv" for one in page_tables if len(one.rows) >= rows}
    assert len(beside) < len(page_tables)
    monkeypatch.setattr(render, "LONGEST", rows - 1)
    written = write_report(results, tmp_path / "out", ("html", "md"))
    html, markdown = ((tmp_path / "out" / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    runs = tmp_path / "out" / "tables" / "runs.csv"
    assert runs in written
    assert len(runs.read_text(encoding="utf-8").splitlines()) == 1 + rows
    assert f'<a href="tables/runs.csv">{rows} rows in tables/runs.csv</a>' in html
    for note in next(one for one in page_tables if one.name == "runs").notes:
        assert note in unescape(html)
    assert f"[{rows} rows](tables/runs.csv)" in markdown
    assert {path.name for path in runs.parent.iterdir()} == beside


def test_the_answer_stands_beside_the_page(report_folder: Path, results: Results, tmp_path: Path) -> None:
    """report.json is the answer, one value a line; tables alone bring none, nor do runs none of which is compared."""
    text = (report_folder / "report.json").read_text(encoding="utf-8")
    assert PageSummary.model_validate_json(text) == answer_of(results)
    assert text.endswith("\n}\n")
    assert '\n "suite": ' in text
    write_report(results, tmp_path, ("csv",))
    assert not (tmp_path / "report.json").exists()
    bare = made_records.write(tmp_path / "bare", [failed("full", 0, "failed", "x")])
    (bare / "report.json").write_text("{}")
    assert bare / "report.json" not in write_report(bare, None, ("md",))
    assert not (bare / "report.json").exists()
