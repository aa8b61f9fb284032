"""What tests of the gate share."""

from __future__ import annotations

import pytest

from hpml_bench.gate.measure import machine, pairs


@pytest.fixture
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be quiet, whatever else runs on it; a test may have it otherwise."""
    monkeypatch.setattr(pairs, "between", lambda *_: machine.Disturbance(0.0, 0.0, None))
