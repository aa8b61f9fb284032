"""Committed reports: the readme shows them, and without a package of theirs too; `verify` accepts them (tests/cli)."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from report_sections import said

from hpml_bench.report import predictions
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.render import load
from hpml_bench.verify import figures
from hpml_bench.verify.files import same

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"


def test_only_the_last_digits_of_a_number_may_differ() -> None:
    """A word, a sign, a number more and a tenth digit are noticed; a fifteenth isn't."""
    text = "lora: 94.196857114426 points"
    assert same(text, "lora: 94.19685711442625 points")
    assert not same(text, "Lora: 94.196857114426 points")
    assert not same(text, "lora: -94.196857114426 points")
    assert not same(text, "lora: 94.196857124426 points")
    assert not same(text, "lora: 94.196857114426 94.196857114426 points")
    for shown, other in (("1.50 s", "1.5 s"), ("-0.0", "0.0"), ("2.50e+03", "2500.0")):
        assert not same(shown, other)


def test_the_readme_shows_committed_answers() -> None:
    """README's tables and sentences are those of the committed reports of minilm and quickstart."""
    readme = (REFERENCE.parents[1] / "README.md").read_text(encoding="utf-8")
    for name in ("minilm", "quickstart"):
        lines = (REFERENCE / name / "report.md").read_text(encoding="utf-8").splitlines()
        first = next(at for at, line in enumerate(lines) if line.startswith("| method |"))
        assert "\n".join(lines[first : lines.index("", first)]) in readme
        assert lines[2].strip("*") in readme


@pytest.mark.parametrize("recorded", [True, False])
def test_without_a_scorer_s_package_recorded_scores_are_used(
    recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer, and a caution with what to install; files without recorded scores of rows are set apart."""
    with_package = answer_of(load(REFERENCE / "faq"))
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    if not recorded:
        read = predictions.read_predictions
        monkeypatch.setattr(predictions, "read_predictions", lambda folder: replace(read(folder), scores=None))
    results = load(REFERENCE / "faq")
    found = said("cautions", results)
    if recorded:
        assert answer_of(results) == with_package
        evidence: Any = SimpleNamespace(selection=results.selection, excluded=lambda _: iter(()))
        (finding,) = figures.predictions(evidence)
        assert finding.state == "not checked"
        assert re.search(r"as the runs recorded them, not computed anew: the scorer rouge_l needs .*install", found)
    else:
        assert not answer_of(results).methods
        assert "is missing, or can't be read or scored here" in said("failures", results)
