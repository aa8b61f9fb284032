"""`hpml-bench doctor`: its lines, its list, its status, and a run by a user who owns nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from helpers import skips
from hpml_bench.cli import main
from hpml_bench.doctor import checks, machine
from hpml_bench.doctor.checks import SECONDS

NOBODY = 65534


def named(name: str, found: machine.Result) -> Callable[[], machine.Result]:
    def check() -> machine.Result:
        return found

    check.__name__ = name
    return check


FINE = named("memory", machine.Result("ok", "12 GB free"))
LESS = named("package_index", machine.Result("warn", "offline: " + "no answer " * 12, "see pip config list " * 5))
STOPS = named("results_folder", machine.Result("fail", "it can't be written to", "take another"))


def call(
    monkeypatch: pytest.MonkeyPatch, *options: str, of: tuple[Callable[[], machine.Result], ...], width: int = 80
) -> Result:
    monkeypatch.setattr(checks, "CHECKS", of)
    return CliRunner(env={"COLUMNS": str(width)}).invoke(main, ["doctor", *options])


@pytest.mark.parametrize(("of", "status", "words"), [
    ((FINE, LESS), 0, "quickstart can run here: hpml-bench run-all"),
    ((FINE, STOPS, LESS), 1, "quickstart can't run here: see results folder"),
])  # fmt: skip
def test_the_status_says_whether_quickstart_can_run(
    of: tuple[Callable[[], machine.Result], ...], status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 if and only if a check failed; the last line says it too."""
    done = call(monkeypatch, of=of)
    assert done.exit_code == status
    assert done.stdout.splitlines()[-1] == words
    assert call(monkeypatch, "--json", of=of).exit_code == status


def test_json_is_a_list_of_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is on standard output."""
    found = json.loads(call(monkeypatch, "--json", of=(FINE, STOPS)).stdout)
    assert found == [
        {"name": "memory", "state": "ok", "finding": "12 GB free", "advice": ""},
        {"name": "results folder", "state": "fail", "finding": "it can't be written to", "advice": "take another"},
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_are_as_wide_as_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer texts go on beneath their beginning, the advice on a line of its own."""
    lines = call(monkeypatch, of=(FINE, LESS, STOPS), width=width).stdout.splitlines()
    assert max(map(len, lines)) <= width
    column = lines[0].index("12 GB")
    assert lines[0] == f"ok    memory{' ' * (column - 12)}12 GB free"
    assert all(line[:column].strip() == "" for line in lines[1:-1] if line[:4].strip() not in {"warn", "fail"})
    assert f"{' ' * column}-> take another" in lines


def test_a_user_who_owns_nothing_gets_an_answer() -> None:
    """Not root, without home, variables and a folder of its own: no traceback, and every check has its line."""
    # Without a folder for results and for the cache quickstart can't run; the advice says what to set.
    if os.geteuid():
        skips.only_as_root("the user can't be changed")
    variables = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/", "text": True, "capture_output": True}
    nobody["env"] = variables | {"HOME": "/nonexistent", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hpml_bench", "doctor", "--json"]
    try:
        subprocess.run([*command[:-2], "--help"], check=True, **nobody)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip(skips.CLOSED)
    done = subprocess.run(command, timeout=SECONDS + 60, check=False, **nobody)
    assert done.stderr == ""
    assert done.returncode == 1
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert {name for name, check in found.items() if check["state"] == "fail"} == {"results folder", "cache"}
    assert "HPML_BENCH_CACHE" in found["cache"]["advice"]
    assert found["torch"]["state"] in {"ok", "warn"}
