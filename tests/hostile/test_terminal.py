"""What reaches a terminal, or a CI system's log, is lines of plain text, whatever records and
errors hold.
"""

import re
import shutil
from pathlib import Path

import pytest
from payloads import OWNED, attack, folder
from rich.console import Console

from helpers.commands import called
from helpers.fake_wandb import runs_below
from hpml_bench.builtin.trackers.wandb import Wandb
from hpml_bench.page.render import all_tables, load, page_of
from hpml_bench.records.load import load_records
from hpml_bench.sweep.execute import SweepProgress
from hpml_bench.system.text import LONGEST, for_terminal, sanitize


@pytest.fixture(scope="module")
def hostile_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of results folders, one of hostile name, all of hostile content."""
    place = tmp_path_factory.mktemp("reports")
    folder(place / "one", attack())
    shutil.copytree(place / "one", place / "\x1b[31m\n::error::owned \u202e")
    return place


def assert_inert(text: str) -> None:
    """Fail if a terminal or GitHub's runner would obey any of the text."""
    assert {c for c in text if not c.isprintable()} <= {"\n"}
    assert not re.search(r"^\s*::\w|##\[", text, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "runs", "{evil}"],
        ["report", "{evil}", "--format", "md"],
        ["report", "{evil}/one", "--format", "md,csv", "--out", "{tmp}/\x1b[31m\n::error::out"],
        ["run-all", "\x1b[31m\n::error::suite \u202e"],
        ["run-all", "quickstart", "--set", "\n::error::x=\x1b[31m"],
        ["run-all", "quickstart", "--methods", "\n::error::x\u202e", "--out", "{tmp}"],
        ["report", "{evil}/\n::error::none\x9b31m"],
        ["plan", "{evil}/one", "--detect", "\n::error::accuracy=1", "--out", "{evil}"],
    ],
)
def test_commands_print_plain_lines(
    arguments: list[str], hostile_folders: Path, tmp_path: Path
) -> None:
    """No escape, control or direction-changing character, and no workflow command, on either
    stream; no traceback.
    """
    filled = [
        part.format(evil=hostile_folders, tmp=tmp_path) if "{" in part else part
        for part in arguments
    ]
    done = called(*filled, status=None)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.output.strip()
    assert_inert(done.output)
    if arguments[0] == "list":  # a line of bounded length for each run
        lines = done.output.splitlines()
        assert len(lines) == 2 * len(load_records(hostile_folders / "one").records) > 20
        assert max(map(len, lines)) < 400


@pytest.mark.parametrize("width", [20, 140])
def test_progress_prints_plain_lines(
    width: int, capsys: pytest.CaptureFixture[str], hostile_folders: Path
) -> None:
    """A failed run's line and a rank's log lines are inert, wherever they are wrapped; markup is
    shown, not obeyed.
    """
    record = next(
        r
        for r in load_records(hostile_folders / "one").records
        if r.error and OWNED in r.error.message
    )
    with SweepProgress(Console(width=width), 1) as progress:
        progress.finished(record)
        progress.say(f"  rank 0: {attack()} [bold]x[/bold]")
        progress.say("a " * (width // 2) + "::error::at the beginning of a wrapped line")
    shown = capsys.readouterr().out
    assert "[bold]x[/bold]".replace(" ", "") in "".join(shown.split())
    assert_inert(shown)


def test_plain_text_is_kept_and_bounded() -> None:
    """What needs no mending is not changed; other alphabets neither. Megabytes are cut, and made
    plain in no time.
    """
    for text in ("lora r=8 ± 0.3 %", "peft:IA3", "a::1", "שלום 你好 é", "C++ ::"):
        assert sanitize(text) == for_terminal(text) == text
    assert for_terminal("  two  spaces") == "  two  spaces"

    assert len(sanitize("\x1b[31m" * 10**6 + "x")) <= LONGEST
    assert sanitize("a" * 10**6, 10) == "aaaaaaaaa…"


# wandb gets hostile text as text


def test_hostile_runs_are_kept_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every run and the comparison are kept whole, texts to the letter, and nothing is written
    elsewhere.
    """
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = folder(tmp_path / "reports" / "one", attack())
    before = {path for path in tmp_path.rglob("*") if "wandb" not in path.parts}
    results = load(place)
    records = load_records(place).records
    sentence = Wandb("offline").publish(place, records, lambda: all_tables(page_of(results)))
    assert sentence is not None, capsys.readouterr().err
    assert "kept offline" in sentence
    runs = runs_below(place)
    assert len(runs) == len(load_records(place).records) + 1
    for name, run in runs.items():
        assert run["config"]["suite"] == attack(), "to the letter"
        assert run["group"].startswith(attack())
        if name == "comparison":
            cells = [
                cell for shown in run["tables"].values() for row in shown["data"] for cell in row
            ]
            assert cells.count(sanitize(attack())) >= 3, (
                "as one line, as in the report's own tables"
            )
        else:
            assert run["config"]["settings"]["dataset"] == {
                "name": attack(),
                "options": {attack(): attack()},
            }
    assert {
        path for path in tmp_path.rglob("*") if not {"wandb", "home"} & set(path.parts)
    } <= before
