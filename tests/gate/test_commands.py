"""The commands: what must be said, and statuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from residents import compared, fake

from hpml_bench.cli import main
from hpml_bench.gate import baseline, commands


def invoke(*arguments: str) -> Result:
    """Run hpml-bench."""
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("arguments", [(), ("--against", "main", "--self-test")])
def test_exactly_one_thing_to_compare_with(arguments: tuple[str, ...]) -> None:
    """None and two are mistakes, with the four there are."""
    done = invoke("check", *arguments)
    assert done.exit_code == 2
    assert "exactly one of --against REV, --against-env PYTHON, --baseline FILE and --self-test" in done.output


@pytest.mark.parametrize("value", ["0", "3 percent", "-1%", "200%"])
def test_a_share_is_checked(value: str) -> None:
    """Zero, words, negatives and more than all."""
    done = invoke("check", "--self-test", "--slowdown", value)
    assert done.exit_code == 2
    assert "is no share" in done.output


def test_a_slowdown_within_what_is_let_through_is_refused() -> None:
    """A target below the null could be neither found nor excluded."""
    done = invoke("check", "--self-test", "--slowdown", "0.5%")
    assert done.exit_code == 2
    assert "must be above the 1%" in done.output


@pytest.mark.parametrize(("extra", "status"), [(0, 0), (1, 1)])
def test_status_and_files(extra: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 where nothing grew, 1 where something did; every file asked for is written."""
    sides = compared(fake(tmp_path / "a"), fake(tmp_path / "b", extra=extra, label="b"))
    monkeypatch.setattr(commands, "_comparison", lambda *_: sides)
    files = {kind: tmp_path / f"check.{kind}" for kind in ("json", "junit", "markdown", "html")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    done = invoke("check", "--against", "main", "--counts-only", "--methods", "lora", *options)
    assert done.exit_code == status, done.output
    assert all(path.stat().st_size for path in files.values())


@pytest.mark.parametrize(("options", "status"), [((), 0), (("--strict",), 3)])
def test_two_versions_that_cannot_be_compared_are_shown(
    options: tuple[str, ...], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INCOMPARABLE fails only where that is asked for."""
    sides = compared(fake(tmp_path / "a", protocol=7, label="v7"), fake(tmp_path / "b", label="b"))
    monkeypatch.setattr(commands, "_comparison", lambda *_: sides)
    done = invoke("check", "--against", "v7", "--methods", "lora", *options)
    assert done.exit_code == status
    assert "INCOMPARABLE" in done.output
    assert "protocol 7" in done.output


def test_a_bug_is_no_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own status for what nobody caught would be that of a FAIL."""

    def broken(*_: object) -> None:
        raise RuntimeError("what nobody foresaw")

    monkeypatch.setattr(commands, "_comparison", broken)
    done = invoke("check", "--against", "main", "--methods", "lora")
    assert done.exit_code == 2
    assert "RuntimeError: what nobody foresaw (test_commands.py:" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("option", ["--strict", "--counts-only", "--json=x", "--junit=x", "--markdown=x", "--html=x"])
def test_a_self_test_refuses_what_it_would_not_heed(option: str) -> None:
    """It has no receipt of its own and no counts."""
    done = invoke("check", "--self-test", option)
    assert done.exit_code == 2
    assert f"{option.removesuffix('=x')}: goes with a check" in done.output


@pytest.mark.parametrize("error", [RuntimeError("no foresight"), OSError(32, "Broken pipe"), EOFError()])
def test_whatever_goes_wrong_while_a_baseline_is_saved_is_an_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2 and one sentence: 1, which is Python's and click's, would be a regression."""

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(baseline, "save", broken)
    done = invoke("baseline", "save", str(tmp_path / "base.json"), "--methods", "lora")
    assert done.exit_code == 2
    assert type(error).__name__ in done.output
    assert len(done.output.splitlines()) == 1


def test_baseline_save_asks_for_ten_runs_at_least(tmp_path: Path) -> None:
    """Fewer don't tell the spread between runs."""
    done = invoke("baseline", "save", str(tmp_path / "base.json"), "--runs", "9")
    assert done.exit_code == 2
    assert "--runs" in done.output
