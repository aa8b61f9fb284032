"""The pages as files: complete, self-contained, escaped, the same bytes every time, and made
without torch.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from report_sections import renamed

from helpers import made_records
from helpers.browser import CHROMIUM, FLAGS, needs_browser, site, visit
from helpers.elements import Elements
from helpers.made_records import failed, sweep, write
from hpml_bench.data.wheel import wheel_content
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summary import PageSummary
from hpml_bench.page import render
from hpml_bench.page.export import (
    csv_text,
    latex_table,
    load_results,
    markdown_table,
    markdown_text,
)
from hpml_bench.page.render import all_sections, load, tables_of, write_report
from hpml_bench.page.tables import table
from hpml_bench.plugins.blocks import Table
from hpml_bench.records.numbers import number
from hpml_bench.suite.suite import packaged
from hpml_bench.system.errors import UserError


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with its report in every format."""
    place = made_records.write(
        tmp_path_factory.mktemp("quickstart"), [*sweep(), failed("full", 7, "diverged", "x")]
    )
    write_report(place, None, ("html", "md", "csv", "tex"))
    return place


@pytest.fixture(scope="module")
def made(report_folder: Path) -> Elements:
    """Return the elements of the folder's report.html."""
    return Elements((report_folder / "report.html").read_text(encoding="utf-8"))


def test_only_our_scripts_and_styles_are_allowed(made: Elements) -> None:
    """The policy allows by hash the page's own scripts and sheets, and nothing else."""
    policy = (
        next(a["content"] for tag, a in made.found if tag == "meta" and a.get("http-equiv")) or ""
    )
    rules = {kind: allowed for kind, *allowed in map(str.split, policy.split(";"))}
    for tag in ("style", "script"):
        texts = made.said(tag, type=None)
        digests = [
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts
        ]
        assert rules[f"{tag}-src"] == [f"'sha256-{digest}'" for digest in digests]
        ours = packaged("templates", "templates")
        wanted = {path.read_text() for path in ours.glob("*.css" if tag == "style" else "*.js")}
        assert texts
        assert set(texts) <= wanted
    assert "unsafe" not in policy
    assert not [
        name for _, attributes in made.found for name in attributes if name.startswith("on")
    ]


def test_no_element_has_a_style_and_links_lead_somewhere(
    report_folder: Path, made: Elements
) -> None:
    """The policy would drop a style; in charts too, which keep colours, widths and fonts as
    attributes.

    Every link and reference within a chart has its target in the page; no two elements share an id.
    """
    assert [tag for tag, attributes in made.found if "style" in attributes] == []
    text = (report_folder / "report.html").read_text(encoding="utf-8")
    assert " style=" not in re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
    drawn = [
        attributes
        for tag, attributes in made.found
        if tag in {"line", "polyline", "circle", "text"}
    ]
    assert {name for of in drawn for name in of} >= {
        "fill",
        "stroke",
        "stroke-width",
        "text-anchor",
    }
    assert all(
        " style=" not in path.read_text() for path in (report_folder / "figures").glob("*.svg")
    )

    ids = [attributes["id"] for _, attributes in made.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a.get("href") or a.get("xlink:href") or "data:" for _, a in made.found}
    assert {link for link in links if not link.startswith("data:")} <= {f"#{one}" for one in ids}


def test_report_needs_no_torch(report_folder: Path, tmp_path: Path) -> None:
    """A report is made without torch, transformers, wandb or matplotlib being imported."""
    code = (
        "import sys; from pathlib import Path; from hpml_bench.page.render import write_report;"
        f"write_report(Path({str(report_folder)!r}), Path({str(tmp_path)!r}));"
        "print({'torch', 'transformers', 'peft', 'datasets', 'wandb', 'matplotlib'} & "
        "set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("shown", "value", "expected"),
    [
        ("1.2 ± 0.3 †", 1.23, "1.23,0.3,†"),
        ("1.2 ± 0.3 † ¶", 1.23, "1.23,0.3,† ¶"),
        ("1,234 †", 1234.5, "1234.5,†"),
        ("1,234 ± 1,000, never (2 of 5)", 1234.5, "1234.5,1000,never (2 of 5)"),
        ("never (5 of 5)", None, ",never (5 of 5)"),
        ("–", None, ""),
    ],
)
def test_csv_keeps_what_a_cell_says_beyond_its_value(
    shown: str, value: float | None, expected: str
) -> None:
    """Marks of notes and seeds without a value stand in a column of notes; a missing value is
    empty.
    """
    made = table("t", "c", ["s", "t"], [[(shown, value), ("1", 1.0)]])
    assert csv_text(made).splitlines()[1] == f"{expected},1.0"


def test_latex_and_markdown_escape() -> None:
    """Characters that LaTeX would obey are escaped, and numbers are aligned right; so in Markdown,
    but for decimals.

    Pipes, emphasis, links and tags become text; names with underscores stay readable.
    """
    made = table("t", "50% & more", ["method", "x_1 ($)"], [["a_b \\ {} ^~#", ("1 ± 2", 1.0)]])
    text = latex_table(made)
    assert r"\caption{50\% \& more}" in text
    assert r"method & x\_1 (\$) \\" in text
    assert (
        r"a\_b \textbackslash{} \{\} \textasciicircum{}\textasciitilde{}\# & 1 $\pm$ 2 \\" in text
    )
    assert r"\begin{tabular}{lr}" in text
    assert (
        markdown_text("a|b *c* [d](e) <f> 1.5 prompt_tuning")
        == r"a\|b \*c\* \[d\](e) &lt;f&gt; 1.5 prompt_tuning"
    )
    assert markdown_text("1. no list") == r"1\. no list"
    assert markdown_text("www.x.com a@b.com") == "www&#8203;.x.com a@&#8203;b.com"
    two = Table(name="t", caption="c", columns=("a", "b"), rows=(("x", "1"),), values=(("x", 1.0),))
    assert markdown_table(two) == "| a | b |\n| --- | ---: |\n| x | 1 |"


@pytest.mark.parametrize(
    ("value", "spec", "shown"),
    [
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
    ],
)
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
    """An empty folder, a missing one and an unknown format are a user's mistakes, told in a
    sentence.
    """
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


def test_the_style_sheet_has_the_signs() -> None:
    """Each mark of a matrix has its sign behind the cell, with words beside it for who hears the
    page.
    """
    sheet = (packaged("templates", "templates") / "report.css").read_text(encoding="utf-8")
    for kind, sign in {"better": "▲", "worse": "▼", "open": "?", "equal": "="}.items():
        assert re.search(
            rf'\.matrix \.{kind}::after {{ content: "{re.escape(sign)}"; content: "[^"]+" / '
            rf'"[a-z\' ]+"; }}',
            sheet,
        )


def test_a_table_too_long_for_a_page_stands_beside_it(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the limit: the page has its caption and a link to the CSV, which is written; others
    stand on the page.
    """
    page_tables = tables_of(all_sections(results))
    rows = next(len(one.rows) for one in page_tables if one.name == "runs")
    beside = {f"{one.name}.csv" for one in page_tables if len(one.rows) >= rows}
    assert len(beside) < len(page_tables)
    monkeypatch.setattr(render, "LONGEST", rows - 1)
    written = write_report(results, tmp_path / "out", ("html", "md"))
    html, markdown = (
        (tmp_path / "out" / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md")
    )
    runs = tmp_path / "out" / "tables" / "runs.csv"
    assert runs in written
    assert len(runs.read_text(encoding="utf-8").splitlines()) == 1 + rows
    assert f'<a href="tables/runs.csv">{rows} rows in tables/runs.csv</a>' in html
    for note in next(one for one in page_tables if one.name == "runs").notes:
        assert note in unescape(html)
    assert f"[{rows} rows](tables/runs.csv)" in markdown
    assert {path.name for path in runs.parent.iterdir()} == beside


def test_the_answer_stands_beside_the_page(
    report_folder: Path, results: Results, tmp_path: Path
) -> None:
    """report.json is the answer, one value a line; tables alone bring none, nor do runs none of
    which is compared.
    """
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


# In Chromium: no violation that axe-core finds, light and dark; no sideways scroll; small with many
# methods


AXE = (
    "wheel:axe-playwright-python==0.1.8/axe_playwright_python/axe.min.js"
    "#sha256=fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8"
)
"""axe-core 4.12.1, in a wheel of PyPI."""
RUN = """
axe.run().then(found => {
  const said = document.createElement("pre");
  said.id = "axe";
  said.textContent = JSON.stringify(found.violations.map(one => [one.id, one.nodes[0].html.slice(0, 200)]));
  document.body.append(said);
});
"""  # noqa: E501
WIDTHS = """
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("iframe")].filter(
    one => one.contentDocument.documentElement.scrollWidth > one.clientWidth).map(one => one.clientWidth);
  const said = document.createElement("pre");
  said.id = "wide";
  said.textContent = JSON.stringify(wide);
  document.body.append(said);
});
"""  # noqa: E501


KINDS = ("lora", "full", "adapter")


@pytest.fixture(scope="module", params=["five methods", "failures", "one seed", "many methods"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a page without its policy, which would keep the scripts of these tests out."""
    many = [f"method_of_a_rather_long_name_{n:02d}" for n in range(12)]
    records = {
        "five methods": sweep(),
        "failures": [*sweep(["lora", "full"]), failed("head", 0, "oom_cuda", "CUDA out of memory")],
        "one seed": sweep(seeds=1),
        "many methods": [
            renamed(r, name) for at, name in enumerate(many) for r in sweep([KINDS[at % 3]], 3)
        ],
    }
    folder = write(tmp_path_factory.mktemp("page"), records[request.param])
    write_report(folder, None, ("html",))
    text = (folder / "report.html").read_text(encoding="utf-8")
    return re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", ["1280,800", "500,844"])
def test_axe_finds_no_violation(page: str, size: str, dark: bool, tmp_path: Path) -> None:
    """Contrast, names, headings, roles: none of axe-core's rules is broken."""
    assert CHROMIUM
    script = wheel_content(AXE).read_text(encoding="utf-8")
    file = tmp_path / "page.html"
    file.write_text(
        page.replace("</body>", f"<script>{script}</script><script>{RUN}</script></body>")
    )
    mode = ["--blink-settings=preferredColorScheme=0"] if dark else []
    flags = [
        *(flag for flag in FLAGS if not re.search("budget|timeout", flag)),
        "--virtual-time-budget=60000",
        f"--window-size={size}",
    ]
    command = [
        CHROMIUM,
        *flags,
        *mode,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        file.as_uri(),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    found = re.search(r'<pre id="axe">(.*?)</pre>', shown, re.DOTALL)
    assert found
    assert json.loads(unescape(found[1])) == []


@needs_browser
def test_no_page_scrolls_sideways(page: str, tmp_path: Path) -> None:
    """From a phone's 360 pixels to 1600 the page is as wide as its window."""
    frames = "".join(
        f'<iframe src="/inner.html" width="{width}" height="600" style="border:0"></iframe>'
        for width in (360, 390, 600, 760, 900, 1120, 1280, 1600)
    )
    with site() as served:
        served.pages["/inner.html"] = page
        shown, _ = visit(served, f"<body>{frames}<script>{WIDTHS}</script></body>", tmp_path)
    found = re.search(r'<pre id="wide">(.*?)</pre>', shown)
    assert found
    assert json.loads(found[1]) == []


def test_many_methods_make_a_small_page(tmp_path: Path) -> None:
    """It has every method's row and numbers in under so many bytes; tables of pairs stand beside
    it.
    """
    methods, largest = 26, 900_000
    runs = [
        renamed(r, f"{KINDS[at % 3]}_variant_{at:02d}_of_a_long_name")
        for at in range(methods)
        for r in sweep([KINDS[at % 3]], 3)
    ]
    page, *rest = write_report(write(tmp_path, runs), formats=("html",))
    text = page.read_text()
    assert all(f'id="m-{n}"' in text for n in range(1, methods + 1))
    assert f"Of {methods} methods the 20 with the best mean score" in text
    assert "pairs_test_accuracy.csv" in {path.name for path in rest}
    assert page.stat().st_size < largest, page.stat().st_size
