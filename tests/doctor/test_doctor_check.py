"""Checks side by side, and `hpml-bench doctor`: whatever a check does, it has a line; the list,
the status; nobody.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError

import pytest

from helpers import skips
from helpers.commands import called
from hpml_bench.doctor import checks
from hpml_bench.doctor.checks import SECONDS, run_checks
from hpml_bench.doctor.machine import Check, Result
from hpml_bench.system.checklist import name_of
from hpml_bench.system.errors import UserError

NOBODY = 65534


def named(name: str, found: Result | Exception) -> Check:
    """Return a check of this name that finds this, or raises it."""

    def check() -> Result:
        if isinstance(found, Exception):
            raise found
        return found

    check.__name__ = name
    return check


FINE = named("memory", Result("ok", "12 GB free"))
LESS = named(
    "package_index", Result("warn", "offline: " + "no answer " * 12, "see pip config list " * 5)
)
STOPS = named("results_folder", Result("fail", "it can't be written to", "take another"))


def test_each_check_has_a_line_whatever_it_raises() -> None:
    """In their order; an unexpected error stops nobody, a UserError and a missing library stop
    quickstart.
    """
    errors = {
        "broken": OSError(5, "Input/output error"),
        "refused": UserError("the disk is full; free some space; soon"),
        "unimportable": ModuleNotFoundError("no_such_library"),
        "uninstalled": PackageNotFoundError("hpml-bench"),
    }
    fine = named("fine_one", Result("ok", "fine"))
    lines = list(run_checks((fine, *(named(name, error) for name, error in errors.items()))))
    states = ["ok", "warn", "fail", "fail", "warn"]
    assert [(line.name, line.state) for line in lines] == list(
        zip(["fine one", *errors], states, strict=True)
    )
    assert lines[0] == Result("ok", "fine", name="fine one")
    assert "Input/output error" in lines[1].finding
    assert (lines[2].finding, lines[2].advice) == ("the disk is full", "free some space; soon")
    assert "no_such_library" in lines[3].finding
    assert "pip install" in lines[4].advice


def test_a_check_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network drive that doesn't answer; the others are shown."""
    monkeypatch.setattr(checks, "SECONDS", 0.2)
    never = threading.Event()

    def hung() -> Result:
        never.wait()
        return Result("ok", "")

    try:
        assert [(line.name, line.state) for line in run_checks((hung, FINE))] == [
            ("hung", "warn"),
            ("memory", "ok"),
        ]
    finally:
        never.set()


def test_no_secret_and_no_control_character_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In findings, advice and texts of errors: values of keys and tokens, passwords in
    addresses, escapes.
    """
    monkeypatch.setenv("WANDB_API_KEY", "local-0123456789")
    talks = Result(
        "warn", "key local-0123456789 \x1b[31mred", "http://me:pass-word@host/ isn't reached"
    )
    for found in (talks, RuntimeError("no local-0123456789\nsecond line")):
        (line,) = run_checks((named("talks", found),))
        text = line.finding + line.advice
        assert "0123456789" not in text
        assert "pass-word" not in text
        assert text.isprintable()


def shown(
    monkeypatch: pytest.MonkeyPatch,
    *options: str,
    of: tuple[Check, ...],
    status: int = 1,
    width: int = 80,
) -> str:
    monkeypatch.setattr(checks, "CHECKS", of)
    return called("doctor", *options, status=status, width=width).stdout


@pytest.mark.parametrize(
    ("of", "status", "words"),
    [
        ((FINE, LESS), 0, "quickstart can run here: hpml-bench run-all"),
        ((FINE, STOPS, LESS), 1, "quickstart can't run here: see results folder"),
    ],
)
def test_the_status_says_whether_quickstart_can_run(
    of: tuple[Check, ...], status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 if and only if a check failed; the last line says it too. JSON is a list of the checks,
    and nothing else.
    """
    assert shown(monkeypatch, of=of, status=status).splitlines()[-1] == words
    found = json.loads(shown(monkeypatch, "--json", of=of, status=status))
    assert [*found[0]] == ["name", "state", "finding", "advice"]
    assert found == [asdict(replace(check(), name=name_of(check))) for check in of]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_are_as_wide_as_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer texts go on beneath their beginning, the advice on a line of its own."""
    lines = shown(monkeypatch, of=(FINE, LESS, STOPS), width=width).splitlines()
    assert max(map(len, lines)) <= width
    column = lines[0].index("12 GB")
    assert lines[0] == f"ok    memory{' ' * (column - 12)}12 GB free"
    assert all(
        line[:column].strip() == ""
        for line in lines[1:-1]
        if line[:4].strip() not in {"warn", "fail"}
    )
    assert f"{' ' * column}-> take another" in lines


def test_a_user_who_owns_nothing_gets_an_answer() -> None:
    """Not root, without home, variables and a folder of its own: no traceback, and every check
    has its line.
    """
    # Without a folder for results and for the cache quickstart can't run; the advice says what to
    # set.
    if os.geteuid():
        skips.only_as_root("the user can't be changed")
    variables = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    nobody = {
        "user": NOBODY,
        "group": NOBODY,
        "extra_groups": [],
        "cwd": "/",
        "text": True,
        "capture_output": True,
    }
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
    assert {name for name, check in found.items() if check["state"] == "fail"} == {
        "results folder",
        "cache",
    }
    assert "HPML_BENCH_CACHE" in found["cache"]["advice"]
    assert found["torch"]["state"] in {"ok", "warn"}
