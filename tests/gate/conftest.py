"""Fixtures of the gate's tests."""

import pytest
from residents import QUIET

from hpml_bench.gate import baseline, check


@pytest.fixture
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be quiet, whatever else runs on it; a test may have it otherwise."""
    for module in (check, baseline):
        monkeypatch.setattr(module, "disturbance", lambda *_: QUIET)
