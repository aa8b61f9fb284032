"""Checks side by side: whatever one does, each has a line, without secrets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError

import pytest

from hpml_bench.doctor import checks
from hpml_bench.doctor.checks import run_checks
from hpml_bench.doctor.machine import Result
from hpml_bench.system.errors import UserError


def fine_one() -> Result:
    return Result("ok", "fine")


def named(name: str, error: Exception) -> Callable[[], Result]:
    """Return a check of this name that raises an error."""

    def check() -> Result:
        raise error

    check.__name__ = name
    return check


def test_each_check_has_a_line_whatever_it_raises() -> None:
    """In their order; an unexpected error stops nobody, a UserError and a missing library stop quickstart."""
    errors = {
        "broken": OSError(5, "Input/output error"), "refused": UserError("the disk is full; free some space; soon"),
        "unimportable": ModuleNotFoundError("no_such_library"), "uninstalled": PackageNotFoundError("hpml-bench"),
    }  # fmt: skip
    lines = list(run_checks((fine_one, *(named(name, error) for name, error in errors.items()))))
    states = ["ok", "warn", "fail", "fail", "warn"]
    assert [(line.name, line.state) for line in lines] == list(zip(["fine one", *errors], states, strict=True))
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
        assert [(line.name, line.state) for line in run_checks((hung, fine_one))] == [
            ("hung", "warn"),
            ("fine one", "ok"),
        ]
    finally:
        never.set()


def test_no_secret_and_no_control_character_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In findings, advice and texts of errors: values of keys and tokens, passwords in addresses, escapes."""
    monkeypatch.setenv("WANDB_API_KEY", "local-0123456789")

    def talks() -> Result:
        return Result("warn", "key local-0123456789 \x1b[31mred", "http://me:pass-word@host/ isn't reached")

    def fails() -> Result:
        raise RuntimeError("no local-0123456789\nsecond line")

    for line in run_checks((talks, fails)):
        text = line.finding + line.advice
        assert "0123456789" not in text
        assert "pass-word" not in text
        assert text.isprintable()
