"""Services that are silent or gone: bounded time, one sentence, results untouched. Each one's own
tests have the rest.

wandb: test_wandb.py, test_trackers.py; the hub and wrong hashes: test_sources.py.
"""

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import tiny
from helpers.cli_process import Command
from helpers.commands import called
from helpers.fake_hub import Hub
from hpml_bench.data import sources, wheel
from hpml_bench.system.errors import UserError


@pytest.fixture
def silent() -> Iterator[str]:
    """Yield host:port of a server whose connections the kernel takes, and which never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_package_index(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download is given up at its limit, in one sentence, and leaves nothing in the cache."""
    monkeypatch.setattr(wheel, "PIP_SECONDS", 4)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{silent}/simple")
    began = time.monotonic()
    with pytest.raises(UserError, match="longer than 4 s"):
        sources.fetch(f"wheel:silent==1.0/x#sha256={'0' * 64}")
    assert time.monotonic() - began < 29  # pip by itself: twice 15


@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_a_hub_that_does_not_answer(
    kind: str, silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command: status 2 and a sentence within half a minute, and no run is recorded."""
    address = silent if kind == "silent" else "127.0.0.1:9"
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://{address}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    suite = tiny.local_suite(tmp_path)
    began = time.monotonic()
    options = [
        "--out",
        str(tmp_path / "out"),
        "--wandb",
        "off",
        "--set",
        f"backbone=hub:nobody/nothing-{kind}",
    ]
    result = called("run-all", suite, *options, status=2)
    assert time.monotonic() - began < 30
    (line,) = result.stderr.splitlines()
    assert f"nobody/nothing-{kind}" in line
    assert list((tmp_path / "out").glob("*/*/run.json")) == []


@pytest.fixture
def dripping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Hub, Path]]:
    """Yield a hub that gives commit and files at once, but of the weights a byte each half
    second; and a suite.
    """
    suite = tiny.local_suite(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with Hub(tmp_path / "model", "drip") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub, suite


@pytest.mark.parametrize("end", ["Ctrl-C", pytest.param("--max-hours", marks=pytest.mark.suites)])
def test_a_hub_that_drips(end: str, dripping: tuple[Hub, Path]) -> None:
    """The download ends with --max-hours in a sentence, status 2, and with Ctrl-C, status 130;
    nothing is left.
    """
    hub, suite = dripping
    with tempfile.TemporaryDirectory(prefix="hpml-test-", dir="/tmp") as room:
        out = Path(room) / "out"
        options = ["--set", "backbone=hub:o/n"] + (
            ["--max-hours", str(30 / 3600)] if end == "--max-hours" else []
        )
        command = Command(
            suite, out, *options, cold=True
        )  # the hub's address is read at the import
        command.until(hub.dripping.is_set)
        if end == "Ctrl-C":
            os.killpg(command.process.pid, signal.SIGINT)
        began = time.monotonic()
        said = command.ends(130 if end == "Ctrl-C" else 2, 120)
        assert time.monotonic() - began < (10 if end == "Ctrl-C" else 90)
        assert ("hub:o/n: the preparation of model and data was not done after 30 s" in said) == (
            end == "--max-hours"
        )
        assert list(out.glob("*/*/run.json")) == []
