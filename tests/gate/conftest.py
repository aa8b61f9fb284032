"""Fixtures of the gate's tests."""

from __future__ import annotations

import pytest

from hpml_bench.gate import baseline, check, machine

QUIET = machine.Disturbance(0.0, 0.0, None)


@pytest.fixture
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be quiet, whatever else runs on it; a test may have it otherwise."""
    for module in (check, baseline):
        monkeypatch.setattr(module, "between", lambda *_: QUIET)
