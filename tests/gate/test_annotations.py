"""What GitHub shows of a check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers import made_checks
from hpml_bench.gate.records import Verdict
from hpml_bench.gate.render import github
from hpml_bench.system.errors import UserError

COMMAND = re.compile(r"::(error|warning|notice) title=([^:,\n\r]*)::([^\n\r]*)")


@pytest.fixture
def on_github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend to run there; return the summary's file."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path / "summary.md"


def test_nothing_is_said_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On one's own machine no command is printed, and no summary written."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    github.emit(made_checks.report({"lora": 0.05}))
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "summary.md").exists()


def test_a_regression_is_an_error_and_the_summary_is_appended(
    on_github: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an earlier step wrote into the summary stays."""
    on_github.write_text("before\n")
    github.emit(made_checks.report({"lora": 0.05, "adapter": 0.0}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("::a step")[0] for line in lines] == ["::error title=FAIL lora%3A step time"]
    assert on_github.read_text().startswith("before\n<!-- hpml-bench check -->")


def test_an_error_is_one_command_of_one_line(on_github: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escaped like what is said of a verdict; nothing is written into the summary."""
    github.emit_error("a: 50 %,\r\n::warning::https://me:secret@host")
    assert capsys.readouterr().out == "::error title=hpml-bench check::a: 50 %25, ::warning::https://host\n"
    assert not on_github.exists()


def test_an_error_is_no_command_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence on standard error is all there is."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    github.emit_error("a")
    assert capsys.readouterr().out == ""


def test_kinds_of_annotations() -> None:
    """FAIL is an error, undecided a warning, and a check that passes one notice."""
    verdicts = tuple(
        Verdict(method="m", metric="step_time", status=status, detail="x")
        for status in ("PASS", "FAIL", "INCONCLUSIVE", "INCOMPARABLE")
    )
    lines = github.commands(made_checks.report(verdicts=verdicts))
    assert [line.split()[0] for line in lines] == ["::error", "::warning", "::warning"]
    assert [line.split()[0] for line in github.commands(made_checks.report())] == ["::notice"]


def test_data_cannot_end_its_line_or_property() -> None:
    """Per cent, line ends, colons and commas are escaped; each line is one whole command."""
    made = made_checks.report({made_checks.HOSTILE + "\r\n::error::a,b": 0.05})
    lines = list(github.commands(made))
    assert len(lines) == 1
    found = COMMAND.fullmatch(lines[0])
    assert found is not None
    assert "%250A" in found[2], "a name's own %0A stays text"
    assert github._data("50 %\r\n::x") == "50 %25%0D%0A::x"
    assert github._property("a:b,c") == "a%3Ab%2Cc"


def test_no_more_annotations_than_are_shown() -> None:
    """GitHub shows ten of a kind; the summary has all."""
    verdicts = tuple(Verdict(method=f"m{i}", metric="step_time", status="FAIL", detail="x") for i in range(30))
    assert len(list(github.commands(made_checks.report(verdicts=verdicts)))) == 10


def test_a_summary_that_is_too_long_is_cut(on_github: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub would drop all of it; the cut is between characters."""
    monkeypatch.setattr(github, "LONGEST_SUMMARY", 301)
    github.emit(made_checks.report(label="ü" * 300))
    assert len(on_github.read_bytes()) < 320
    assert on_github.read_text(encoding="utf-8").endswith("(cut)\n")


def test_a_summary_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "folder"))
    with pytest.raises(UserError, match="GITHUB_STEP_SUMMARY"):
        github.emit(made_checks.report())
