"""A report as an HTML page."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers import made_checks
from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.records import CheckReport, Rules, TimedRun, Verdict
from hpml_bench.gate.render import drawings, outputs
from hpml_bench.report.pictures.svg import svg
from hpml_bench.system.errors import UserError


class Outline(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.text += data


def outline(report: CheckReport) -> Outline:
    """Return a report's page, parsed."""
    return Outline(outputs.html(report))


def test_it_loads_and_runs_nothing() -> None:
    """Its policy forbids both but for its own style sheet, by hash; there is no script, style attribute or address."""
    seen = outline(made_checks.report(grown=2))
    policy = next(attrs["content"] for tag, attrs in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    page = outputs.html(made_checks.report(grown=2))
    sheet = hashlib.sha256(page.partition("<style>")[2].partition("</style>")[0].encode()).digest()
    own = f"style-src 'sha256-{base64.b64encode(sheet).decode()}'"
    assert policy.startswith(f"default-src 'none'; {own}; img-src data:;")
    assert not any("style" in attrs for _, attrs in seen.tags)
    assert "script-src" not in policy
    assert not [tag for tag, _ in seen.tags if tag in {"script", "iframe", "object", "img"}]
    used = [value for _, attrs in seen.tags for key, value in attrs.items() if key in {"src", "href", "xlink:href"}]
    assert all(value is not None and value.startswith(("#", "data:,")) for value in used)


def test_every_methods_blocks_are_drawn() -> None:
    """A chart a method and one of bounds, each with a text alternative; ids are unique."""
    seen = outline(made_checks.report({"lora": 0.05, "adapter": 0.0}))
    figures = [attrs["id"] for tag, attrs in seen.tags if tag == "figure" and attrs.get("class") == "chart"]
    assert figures == ["figure-bounds", "figure-blocks_0", "figure-blocks_1"]
    alternatives = [attrs.get("aria-label") for _, attrs in seen.tags if attrs.get("role") == "img"]
    assert "Scatter of 24 blocks of lora in 12 pairs" in str(alternatives[1])
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_disturbed_blocks_are_set_apart() -> None:
    """They are drawn, by another mark, and counted in words."""
    made = made_checks.report({"lora": 0.0})
    disturbed = made_checks.block(1.3, 3, disturbed="steal 9 %")
    figure = drawings.blocks(made.model_copy(update={"blocks": (*made.blocks, disturbed)}))[0]
    assert "Scatter of 24 blocks" in figure.alt
    assert "1 disturbed ones set apart" in figure.alt
    assert "disturbed" in svg(figure)
    assert "disturbed" not in svg(drawings.blocks(made)[0])


def test_the_same_report_gives_the_same_bytes() -> None:
    """So that a page can be committed and compared."""
    assert outputs.html(made_checks.report()) == outputs.html(made_checks.report())


def test_hostile_names_stay_text() -> None:
    """In titles, tables, charts and text alternatives."""
    made = made_checks.report(
        {made_checks.HOSTILE: 0.05}, grown=1, label=made_checks.HOSTILE, suite=made_checks.HOSTILE
    )
    seen = outline(made)
    assert not [tag for tag, _ in seen.tags if tag == "script"]
    assert not [key for _, attrs in seen.tags for key in attrs if key.startswith("on")]
    assert "<script>alert(1)</script>" in seen.text
    assert "\u202e" not in outputs.html(made)


def test_counts_without_times_and_times_without_counts() -> None:
    """Either may be missing."""
    assert "No step was timed." in outline(made_checks.report(blocks=(), verdicts=())).text
    assert not [1 for _, attrs in outline(made_checks.report(counts=())).tags if attrs.get("id") == "counts"]


def test_runs_against_a_baseline_are_drawn() -> None:
    """A chart a method of stored runs and those of now; no process pairs are spoken of."""
    generator = random.Random(0)

    def run(factor: float) -> TimedRun:
        seconds = {method: (factor * generator.uniform(0.99, 1.01),) * 3 for method in ("lora", "adapter")}
        steps = dict.fromkeys(seconds, 4)
        return TimedRun(seconds=seconds, steps=steps, calibration=({"gemm": 0.1}, {"gemm": 0.1}), steal=0.0, load=0.1)

    stored, now = tuple(run(1.0) for _ in range(10)), tuple(run(1.1) for _ in range(10))
    found = verdicts.of_runs(
        verdicts.run_effects(stored, ("lora", "adapter")), verdicts.run_effects(now, ("lora", "adapter")), Rules()
    )
    made = made_checks.report(
        {"lora": 0.0, "adapter": 0.0}, mode="baseline", blocks=(), pairs=0, verdicts=found, runs=now,
        reference_runs=stored,
    )  # fmt: skip
    seen = outline(made)
    figures = [attrs["id"] for tag, attrs in seen.tags if tag == "figure" and attrs.get("class") == "chart"]
    assert figures == ["figure-bounds", "figure-runs_0", "figure-runs_1"]
    assert "10 now, 10 stored" in seen.text
    assert "Process pairs" not in seen.text
    assert "FAIL" in seen.text


def test_bounds_that_so_few_pairs_do_not_give_are_open() -> None:
    """The bar reaches to the edge, and the words say infinity."""
    verdict = Verdict(method="lora", metric="step_time", status="INCONCLUSIVE", estimate=0.01, upper=0.02, detail="x")
    figure = drawings.bounds(made_checks.report(verdicts=(verdict,)))
    assert figure is not None
    assert "[−∞, +2.00 %]" in figure.alt


def test_all_files_are_written_and_the_report_reads_back(tmp_path: Path) -> None:
    """JSON has every raw block; a folder that isn't there is made; a format without a file is left out."""
    made = made_checks.report(grown=1)
    files = {kind: tmp_path / "new" / f"check.{kind}" for kind in ("json", "junit", "html")}
    outputs.write(made, **files, markdown=None)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"check.json", "check.junit", "check.html"}
    assert CheckReport.model_validate_json(files["json"].read_text()) == made


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """One sentence with the option."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=re.escape("--junit ")):
        outputs.write(made_checks.report(), junit=tmp_path / "file" / "x.xml")
