"""`hpml-bench verify`: the references, the lines in a terminal, the status, verified.json."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.forging import REFERENCE, Forged, of_quickstart
from hpml_bench.cli import main
from hpml_bench.verify.verify import ALL

WIDTH = 80


def call(folder: Path, width: int = WIDTH) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(main, ["verify", str(folder)])


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_quickstart(tmp_path_factory.mktemp("honest") / "quickstart").folder


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "quickstart"))


@pytest.mark.parametrize("name", ["quickstart", "minilm", "faq", "chat", "regression", "tagging", "trainers"])
def test_the_references_are_accepted(name: str, tmp_path: Path) -> None:
    """With their pages; each check has a line, and none is beyond the terminal's width."""
    done = call(Path(shutil.copytree(REFERENCE / name, tmp_path / name)))
    assert done.exit_code == 0, done.output
    assert "failed" not in done.output
    assert max(map(len, done.output.replace(str(tmp_path / name), "").splitlines())) <= WIDTH
    assert {check.__name__.replace("_", " ") for check in ALL} == {
        check["name"] for check in json.loads((tmp_path / name / "verified.json").read_text())["checks"]
    }


def test_edited_pages_and_charts_are_refused(tmp_path: Path) -> None:
    """Numbers for programs, sentences, lines, words and elements are compared with those that the records give."""
    folder = Path(shutil.copytree(REFERENCE / "tagging", tmp_path / "tagging"))
    edits = {
        "report.json": ('"seeds": 1', '"seeds": 5'),
        "report.md": ("full", "lora"),
        "report.html": (' x2="', ' x2="1'),
        "figures/latency.svg": ("</svg>", "<text>head scores best</text></svg>"),
        "figures/curve_train_loss.svg": ("<line ", '<line onload="document.title = 1" '),
    }
    for name, (old, new) in edits.items():
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
    (folder / "tables" / "best.csv").write_text("method,accuracy\nours,99\n")
    assert call(folder).exit_code == 1
    checks = json.loads((folder / "verified.json").read_text())["checks"]
    assert {check["finding"] for check in checks if check["state"] == "failed"} == {
        *(f"{name}: is not what the records give" for name in edits),
        "tables/best.csv: is no part of the report that the records give",
    }


def test_pages_beside_the_report_are_not_checked(folder: Path) -> None:
    """A reader may take them for the report's: a line names each, and refuses nothing."""
    for name in ("index.html", "RESULTS.md", "figures.svg"):
        (folder / name).write_text("head scores best\n")
    done = call(folder, width=200)
    assert done.exit_code == 0
    for name in ("index.html", "RESULTS.md", "figures.svg"):
        assert re.search(rf"not checked +page +{name}: is no page of the report", done.output)


def test_what_is_wrong_stands_first(folder: Path) -> None:
    """A line for each finding, five of a check at most; then what isn't checked, then what holds; status 1."""
    made = Forged(folder)
    made.edit(*made.runs, environment__python=None)
    done = call(folder)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    states = [state for line in lines if (state := line[:11].strip()) in {"failed", "not checked", "ok"}]
    assert states == sorted(states, key=["failed", "not checked", "ok"].index)
    assert states.count("failed") == 5
    assert "and 4 more of environment, in verified.json" in done.output
    assert "not consistent: see environment" in done.output
    assert max(len(line) for line in lines if str(folder) not in line) <= WIDTH
    assert len(json.loads((folder / "verified.json").read_text())["checks"]) == len(states) + 4


def test_the_verdicts_are_written_with_all_digests(folder: Path) -> None:
    """The digest of everything is what the commands of docs/submit.md print.

    The same folder gives the same file again; else the output names what differs.
    """
    done = call(folder)
    written = json.loads((folder / "verified.json").read_text())
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "verified.json"]
    sums = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert written["files"] == sums
    text = (Path(__file__).parents[2] / "docs" / "submit.md").read_text()
    (command,) = re.findall(r"^    (find .*sha256sum)$", text, re.MULTILINE)
    assert subprocess.check_output(["bash", "-c", command], cwd=folder, text=True).split()[0] == written["digest"]
    assert (written["consistent"], written["suite"], written["format"]) == (True, "quickstart", 1)
    assert f"sha256:{written['digest']}" in done.output
    before = (folder / "verified.json").read_bytes()
    assert "last written" not in call(folder).output
    assert (folder / "verified.json").read_bytes() == before
    (folder / "notes.txt").write_text("a note\n")
    assert "since verified.json was last written changed: notes.txt" in call(folder).output


def test_a_folder_without_a_readable_record_is_refused(folder: Path) -> None:
    """Each is named; what needs records isn't checked."""
    for path in folder.glob("*/run.json"):
        path.write_text("{}")
    done = call(folder)
    assert done.exit_code == 1
    assert "0 runs" in done.output
    assert "no record can be read" in done.output


@pytest.mark.parametrize("where", ["missing", "empty", "several"])
def test_a_folder_that_is_no_result_is_a_mistake(where: str, tmp_path: Path, honest: Path) -> None:
    """One sentence and status 2."""
    (tmp_path / "empty").mkdir()
    for name in ("a", "b"):
        shutil.copytree(honest, tmp_path / "several" / name)
    done = call(tmp_path / where)
    assert done.exit_code == 2
    assert len(done.output.splitlines()) == 1


def test_a_folder_that_can_not_be_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdicts are printed, then the sentence."""

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("hpml_bench.verify.verify.write_atomically", refuse)
    done = call(folder)
    assert done.exit_code == 2
    assert "plain files" in done.output
    assert "Read-only file system; verify a copy of the folder" in done.output


def test_a_record_made_to_stop_a_check_is_refused(folder: Path) -> None:
    """What a check stops at is a finding, since else it would pass."""
    made = Forged(folder)
    made.edit(made.run("lora", 0), environment__fingerprint={"a": 1}, environment__hardware="b", seconds=1e300)
    done = call(folder, width=200)
    assert done.exit_code == 1
    assert "can't be checked (OverflowError" in done.output
