"""A report in Markdown."""

from __future__ import annotations

import re

from helpers import made_checks
from hpml_bench.gate.render import github


def test_outcome_first_and_a_mark_for_bots() -> None:
    """A bot finds its own comment by the mark; a reader sees the outcome in the heading."""
    lines = github.markdown(made_checks.report({"lora": 0.05, "adapter": 0.0})).splitlines()
    assert lines[0] == github.MARK
    assert lines[2] == "### hpml-bench check: FAIL: slower or heavier: lora (step time)"
    assert lines[4].startswith("- FAIL lora: a step takes ")


def test_tables_have_a_row_a_method_and_all_counts_are_folded() -> None:
    """Step times are open, and of counts only the changed ones."""
    text = github.markdown(made_checks.report(grown=3))
    opened, folded = text.split("<details>", 1)
    assert len(re.findall(r"^\| (?:lora|prompt_tuning|adapter) ", opened, re.MULTILINE)) == 4
    assert len(re.findall(r"^\| (?:lora|prompt_tuning|adapter) ", folded, re.MULTILINE)) == 6


def test_hostile_names_stay_text() -> None:
    """No HTML, no table cell, no code, no mathematics, no link of theirs; our own tags alone are left."""
    text = github.markdown(made_checks.report({made_checks.HOSTILE: 0.05}, grown=1, label=made_checks.HOSTILE))
    tags = {*re.findall(r"<[^>]*>", text)}
    assert tags == {github.MARK, "<details>", "</details>", "<summary>", "</summary>"}
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in {8, 9}
    assert not re.search(r"(?<!\\)[`$]", text)
    assert "\x1b" not in text


def test_a_report_with_nothing_in_it() -> None:
    """Still says so, without empty tables."""
    text = github.markdown(made_checks.report(verdicts=(), blocks=(), counts=(), notes=()))
    assert "nothing was measured" in text
    assert "| ---" not in text
