"""The commands: what must be said, and statuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from residents import compared, fake

from hpml_bench.cli import main
from hpml_bench.cli.commands import check
from hpml_bench.gate import baseline, outputs


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


FOUR = "exactly one of --against REV, --against-env PYTHON, --baseline FILE and --self-test"
UNHEEDED = ("--strict", "--counts-only", "--json=x", "--junit=x", "--markdown=x", "--html=x")


@pytest.mark.parametrize(("arguments", "sentence"), [
    ("check", FOUR),
    ("check --against main --self-test", FOUR),
    *((f"check --self-test --slowdown {value}", "is no share") for value in ("0", "three", "-1%", "200%")),
    ("check --self-test --slowdown 0.5%", "must be above the 1%"),
    *((f"check --self-test {option}", f"{option.removesuffix('=x')}: goes with a check") for option in UNHEEDED),
    ("baseline save base.json --runs 9", "--runs"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(arguments: str, sentence: str) -> None:
    """What to compare with is named once; a slowdown is a share above what is let through; ten runs at least."""
    done = invoke(*arguments.split())
    assert done.exit_code == 2
    assert sentence in done.output


@pytest.mark.parametrize(("extra", "status"), [(0, 0), (1, 1)])
def test_status_and_files(extra: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 where nothing grew, 1 where something did; every file asked for is written."""
    sides = compared(fake(tmp_path / "a"), fake(tmp_path / "b", extra=extra, label="b"))
    monkeypatch.setattr(check, "_comparison", lambda *_: sides)
    files = {kind: tmp_path / f"check.{kind}" for kind in ("json", "junit", "markdown", "html")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    done = invoke("check", "--against", "main", "--counts-only", "--methods", "lora", *options)
    assert done.exit_code == status, done.output
    assert done.output.splitlines()[0] == "suite quickstart, lora"
    assert all(path.stat().st_size for path in files.values())


@pytest.mark.parametrize("kind", ["json", "junit", "markdown", "html"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is a file, or can't have any in it; nothing is installed for it."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setattr(check, "_comparison", lambda *_: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "check", Path("/proc/check"), tmp_path / ("long" * 99)):
        done = invoke("check", "--against", "main", "--methods", "lora", f"--{kind}", str(path))
        assert done.exit_code == 2
        assert f"--{kind} {path}: can't be written (" in done.output
        assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize("broken", ["files", "summary"])
def test_annotations_and_files_do_not_cost_each_other(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that filled up meanwhile leaves the annotations, a summary that can't be written leaves the files."""
    sides = compared(fake(tmp_path / "a"), fake(tmp_path / "b", extra=1, label="b"))
    monkeypatch.setattr(check, "_comparison", lambda *_: sides)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    summary = tmp_path / ("none/summary" if broken == "summary" else "summary")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if broken == "files":
        monkeypatch.setattr(outputs, "write_atomically", full)
    report = tmp_path / "check.json"
    done = invoke("check", "--against", "main", "--counts-only", "--methods", "lora", "--json", str(report))
    assert done.exit_code == 2
    assert "::error title=FAIL lora%3A operators" in done.output
    assert (summary.exists(), report.exists()) == ((True, False) if broken == "files" else (False, True))


@pytest.mark.parametrize(("arguments", "sentence"), [
    ((), "say what to compare with"),
    (("--against", "main", "--max-minutes", "ten"), "'ten' is not a valid float range."),
    (("--against", "main", "--methods", "nosuch"), "nosuch"),
])  # fmt: skip
def test_a_mistake_is_annotated_in_a_github_workflow(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status and sentence are those it has elsewhere, where there is no annotation."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    elsewhere = invoke("check", *arguments)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    there = invoke("check", *arguments)
    annotation, _, rest = there.output.partition("\n")
    assert annotation.startswith("::error title=hpml-bench check::")
    assert sentence in annotation
    assert (there.exit_code, rest) == (elsewhere.exit_code, elsewhere.output)
    assert elsewhere.exit_code == 2


@pytest.mark.parametrize(("options", "status"), [((), 0), (("--strict",), 3)])
def test_two_versions_that_cannot_be_compared_are_shown(
    options: tuple[str, ...], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INCOMPARABLE fails only where that is asked for."""
    sides = compared(fake(tmp_path / "a", protocol=7, label="v7"), fake(tmp_path / "b", label="b"))
    monkeypatch.setattr(check, "_comparison", lambda *_: sides)
    done = invoke("check", "--against", "v7", "--methods", "lora", *options)
    assert done.exit_code == status
    assert "INCOMPARABLE" in done.output
    assert "protocol 7" in done.output


@pytest.mark.parametrize("error", [RuntimeError("no foresight"), OSError(32, "Broken pipe"), EOFError()])
@pytest.mark.parametrize("command", ["check --against main", "baseline save base.json"])
def test_a_bug_is_no_regression(command: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 2 and one sentence with the place: 1, which is Python's and click's, would be a regression."""

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(check, "_comparison", broken)
    monkeypatch.setattr(baseline, "save", broken)
    done = invoke(*command.split(), "--methods", "lora")
    assert done.exit_code == 2
    assert f"{type(error).__name__}: {error} (test_commands.py:" in done.output
    assert "Traceback" not in done.output
