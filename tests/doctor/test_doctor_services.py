"""Services: what answers, and what a user has switched off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from hpml_bench.builtin.engines.slurm import Slurm
from hpml_bench.doctor import services
from hpml_bench.doctor.check import Check, Found, look
from hpml_bench.suite import registry
from hpml_bench.system.errors import UserError

KEY = "hf_0123456789abcdef"


class Answers(BaseHTTPRequestHandler):
    """A hub that refuses who it doesn't know, and an index with one package."""

    def do_HEAD(self) -> None:
        """Refuse: an answer all the same."""
        self.send_response(401)
        self.end_headers()

    def do_GET(self) -> None:
        """List a wheel."""
        page = b'<a href="pip-99.0-py3-none-any.whl">pip-99.0-py3-none-any.whl</a>'
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a hub and index on this machine, reached without a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def closed() -> str:
    """Address at which every connection is refused."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, without the user's settings of pip, tokens and keys."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX", "WANDB_API_KEY", "WANDB_MODE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("NETRC", "/dev/null")


def only(check: Callable[[], Found]) -> Check:
    """Return the line of a check."""
    (line,) = look((check,))
    return line


def test_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks meet over it: without it quickstart can't run."""
    assert only(services.loopback).state == "ok"

    def refuse(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    line = only(services.loopback)
    assert line.state == "fail"
    assert "Network is unreachable" in line.finding


def test_a_hub_that_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it answers; whether there is a token is said, the token never."""
    monkeypatch.setattr(constants, "ENDPOINT", server)
    monkeypatch.setenv("HF_TOKEN", KEY)
    line = only(services.hub)
    assert line == Check("hub", "ok", f"{server} answers; a token is set")


def test_a_hub_that_cannot_be_reached(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, in plain words, with what can be used instead."""
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    line = only(services.hub)
    assert line.state == "warn"
    assert line.finding.startswith(f"offline: {closed} can't be reached")
    assert "HF_HUB_OFFLINE=1" in line.advice


def test_a_hub_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server accepts connections and says nothing: given up in time."""
    monkeypatch.setattr(services, "HUB_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert only(services.hub).state == "warn"


def test_a_hub_that_the_user_has_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(services, "_hub_problem", lambda _: pytest.fail("it was asked"))
    line = only(services.hub)
    assert line.state == "ok"
    assert "HF_HUB_OFFLINE is set" in line.finding


def test_a_package_index_that_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that pip is set to; its password isn't shown."""
    monkeypatch.setenv("PIP_INDEX_URL", server.replace("http://", "http://me:0123456789@"))
    line = only(services.package_index)
    assert line.state == "ok", line
    assert "0123456789" not in line.finding


def test_a_package_index_that_cannot_be_reached(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which suites need it is said."""
    monkeypatch.setenv("PIP_INDEX_URL", closed)
    line = only(services.package_index)
    assert line.state == "warn"
    assert line.finding.startswith("offline: ")
    assert "minilm" in line.advice


def test_an_environment_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """As uv makes them."""
    monkeypatch.setattr(services, "find_spec", lambda _: None)
    line = only(services.package_index)
    assert line.state == "warn"
    assert "ensurepip" in line.advice


def test_trackers_with_their_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key wandb is offline, and with one where it is told to be; the key isn't shown."""
    line = only(services.trackers)
    assert line.state == "ok"
    assert line.finding == "wandb: offline, there is no API key for api.wandb.ai"
    assert "WANDB_API_KEY" in line.advice
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with socket.create_server(("127.0.0.1", 0)) as own:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{own.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "*")
        line = only(services.trackers)
    assert line.finding == "wandb: offline, with a key and a route"
    assert KEY not in line.finding + line.advice
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert only(services.trackers).finding == "wandb: off"


def test_engines_and_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named; what is missing is said of those that can't start jobs here."""
    monkeypatch.setenv("PATH", "/nowhere")
    line = only(services.engines)
    assert line.state == "ok"
    assert all(name in line.finding for name in registry.names("engines"))
    assert "not slurm: sbatch, squeue, scancel can't be found" in line.finding
    monkeypatch.setattr(Slurm, "lacks", classmethod(lambda _: None))
    assert "not slurm" not in only(services.engines).finding


@pytest.mark.parametrize("check", [services.trackers, services.engines])
def test_a_plug_in_of_another_package_that_is_broken(
    check: Callable[[], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and stops neither the others nor quickstart."""
    names, plugin = registry.names, registry.plugin

    def found(kind: registry.Kind, name: str) -> type:
        if name == "theirs":
            raise UserError("the plug-in theirs can't be imported: no module")
        return plugin(kind, name)

    monkeypatch.setattr(registry, "names", lambda kind: (*names(kind), "theirs"))
    monkeypatch.setattr(registry, "plugin", found)
    line = only(check)
    assert line.state == "warn"
    assert line.finding.endswith("the plug-in theirs can't be imported: no module")
    assert line.finding.startswith(("wandb: offline", "local"))
