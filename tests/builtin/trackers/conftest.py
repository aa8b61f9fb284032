"""What tests of publishing share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest

from helpers import tiny
from helpers.commands import called
from hpml_bench.plugins.publishing import Publisher


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without keys, an environment without wandb's variables and proxies, and a busy
    machine's patience.
    """
    monkeypatch.setattr(Publisher, "run_seconds", 300.0)
    monkeypatch.setattr(Publisher, "sweep_seconds", 300.0)
    for name in [*os.environ]:
        if name.startswith("WANDB_") or name.lower().endswith("_proxy") or name == "NETRC":
            monkeypatch.delenv(name)
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    return place


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Sweep one method on two ranks with a tracker; what it computes is to the bit what it is
    without one.

    Returns what was said.
    """
    place = tmp_path_factory.mktemp("undisturbed")
    suite = tiny.local_suite(place)

    def sweep(out: Path, *options: str) -> str:
        command = [
            "run-all",
            str(suite),
            "--out",
            str(out),
            "--wandb",
            "off",
            "--methods",
            "head",
            "--seeds",
            "1",
        ]
        done = called(*command, "--set", "steps=40", *options)
        computed.append(faults.content(out / "colours"))
        assert computed[-1] == computed[0]
        return done.stderr

    computed: list[dict[str, dict[str, Any]]] = []
    assert "wandb" not in sweep(place / "out")
    (content,) = computed[0].values()
    assert content["ended"] == ("ok", None)
    assert all(content[part] for part in ("points", "steps", "predictions"))
    assert content["metrics"]["test_accuracy"]
    return sweep
