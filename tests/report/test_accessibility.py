"""Pages in Chromium: no violation that axe-core finds, light and dark; no sideways scroll; small with many methods."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path

import pytest
from report_sections import renamed

from helpers.browser import CHROMIUM, FLAGS, needs_browser, site, visit
from helpers.made_records import failed, sweep, write
from hpml_bench.data.wheel import wheel_content
from hpml_bench.report.render import write_report

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
"""
WIDTHS = """
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("iframe")].filter(
    one => one.contentDocument.documentElement.scrollWidth > one.clientWidth).map(one => one.clientWidth);
  const said = document.createElement("pre");
  said.id = "wide";
  said.textContent = JSON.stringify(wide);
  document.body.append(said);
});
"""


KINDS = ("lora", "full", "adapter")


@pytest.fixture(scope="module", params=["five methods", "failures", "one seed", "many methods"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a page without its policy, which would keep the scripts of these tests out."""
    many = [f"method_of_a_rather_long_name_{n:02d}" for n in range(12)]
    records = {
        "five methods": sweep(),
        "failures": [*sweep(["lora", "full"]), failed("head", 0, "oom_cuda", "CUDA out of memory")],
        "one seed": sweep(seeds=1),
        "many methods": [renamed(r, name) for at, name in enumerate(many) for r in sweep([KINDS[at % 3]], 3)],
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
    file.write_text(page.replace("</body>", f"<script>{script}</script><script>{RUN}</script></body>"))
    mode = ["--blink-settings=preferredColorScheme=0"] if dark else []
    flags = [
        *(flag for flag in FLAGS if not re.search("budget|timeout", flag)),
        "--virtual-time-budget=60000",
        f"--window-size={size}",
    ]
    command = [CHROMIUM, *flags, *mode, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    found = re.search(r'<pre id="axe">(.*?)</pre>', shown, re.DOTALL)
    assert found
    assert json.loads(html.unescape(found[1])) == []


@needs_browser
def test_no_page_scrolls_sideways(page: str, tmp_path: Path) -> None:
    """From a phone's 360 pixels to 1600 the page is as wide as its window."""
    frames = "".join(f'<iframe src="/inner.html" width="{width}" height="600" style="border:0"></iframe>'
                     for width in (360, 390, 600, 760, 900, 1120, 1280, 1600))  # fmt: skip
    with site() as served:
        served.pages["/inner.html"] = page
        shown, _ = visit(served, f"<body>{frames}<script>{WIDTHS}</script></body>", tmp_path)
    found = re.search(r'<pre id="wide">(.*?)</pre>', shown)
    assert found
    assert json.loads(found[1]) == []


METHODS, LARGEST = 26, 900_000


def test_many_methods_make_a_small_page(tmp_path: Path) -> None:
    """It has every method's row and numbers in under so many bytes; tables of pairs stand beside it."""
    runs = [renamed(r, f"{KINDS[at % 3]}_variant_{at:02d}_of_a_long_name")
            for at in range(METHODS) for r in sweep([KINDS[at % 3]], 3)]  # fmt: skip
    page, *rest = write_report(write(tmp_path, runs), formats=("html",))
    text = page.read_text()
    assert all(f'id="m-{n}"' in text for n in range(1, METHODS + 1))
    assert f"Of {METHODS} methods the 20 with the best mean score" in text
    assert "pairs_test_accuracy.csv" in {path.name for path in rest}
    assert page.stat().st_size < LARGEST, page.stat().st_size
