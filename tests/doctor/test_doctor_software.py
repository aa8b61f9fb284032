"""Software and services: packages by the metadata, torch's own process beside the driver, what answers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from hpml_bench.builtin.engines.slurm import Slurm
from hpml_bench.data import sources
from hpml_bench.doctor import software
from hpml_bench.doctor.checks import run_checks
from hpml_bench.doctor.machine import Result
from hpml_bench.suite import registry
from hpml_bench.system import child, gpus, packages
from hpml_bench.system.errors import UserError
from hpml_bench.training import torch_report

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
NEEDS = ["numpy>=2.0", "wandb>=0.31", "gguf>=0.17.1; extra == 'gguf'", "optuna >=4.0 ; extra == \"tune\"",
         "tox>=4; extra == 'dev'"]  # fmt: skip
CLASSIFIERS = [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)] + ["Typing :: Typed"]
CARD = {"name": "NVIDIA H100", "uuid": "GPU-1-2", "memory_mb": 81_000}
WORKS: dict[str, Any] = {
    "status": 0,
    "torch": "2.13.0",
    "gpus": [],
    "cpu": {"fp32": 4e-3, "bf16": 1e-3},
    "worker": True,
}
KEY = "hf_0123456789abcdef"


def only(check: Callable[[], Result]) -> Result:
    """Return the line of a check."""
    (line,) = run_checks((check,))
    return line


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Installed package -> version, which the test changes, under the metadata above."""
    found = {"hpml-bench": "0.1.0", "numpy": "2.1.0", "wandb": "0.31", "gguf": "0.18", "optuna": "4.0.0"}

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    lists = {"Requires-Dist": NEEDS, "Classifier": CLASSIFIERS}
    for module in (software, packages):
        monkeypatch.setattr(module, "version", version)
        monkeypatch.setattr(module, "metadata", lambda _: SimpleNamespace(get_all=lambda key, _: lists[key]))
    return found


def test_all_requirements_of_the_project_are_understood() -> None:
    """Name, lower bound and extra of each, as pyproject.toml has them: none is left out; each extra has a purpose."""
    lines = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    expected = {(*re.fullmatch(r"(.+)(>=.+)", line).groups(), extra) for extra in lines for line in lines[extra]}
    found = packages.requirements()
    assert {(need.name, str(need.specifier), extra) for extra in found for need in found[extra]} == expected
    assert set(software.PURPOSES) == set(PROJECT["optional-dependencies"]) - {"dev"}
    assert set(software.DISPENSABLE) <= {need.name for need in found[""]}


def test_versions_at_or_above_their_bounds(installed: dict[str, str]) -> None:
    """A local build counts as its release; zeros at the end count nothing."""
    installed |= {"numpy": "2", "wandb": "0.31.0a1+local.9"}
    assert only(software.dependencies).state == "ok"


@pytest.mark.parametrize(("package", "version", "state", "words"), [
    ("numpy", "1.26.4", "warn", "numpy 1.26.4 (2.0 or newer)"),
    ("numpy", None, "fail", "numpy is missing (2.0 or newer)"),
    ("wandb", None, "warn", "wandb is missing (0.31 or newer)"),
])  # fmt: skip
def test_a_dependency_that_is_old_or_missing(
    package: str, version: str | None, state: str, words: str, installed: dict[str, str]
) -> None:
    """An old one may do; without one quickstart can't run, unless it is of those that it doesn't use."""
    installed.pop(package)
    installed |= {package: version} if version else {}
    line = only(software.dependencies)
    assert (line.state, line.finding) == (state, words)
    assert "pip install" in line.advice


def test_an_extra_that_is_missing_or_old(installed: dict[str, str]) -> None:
    """By name and with its purpose; those of developers are left out."""
    assert only(software.extras).state == "ok"
    installed.pop("gguf")
    installed["optuna"] = "3.6"
    line = only(software.extras)
    assert line.state == "warn"
    assert line.finding == "not installed: gguf (for models in GGUF files), tune (for the command tune)"
    assert line.advice.endswith("pip install 'gguf>=0.17.1' 'optuna>=4.0'")


def test_python_that_the_tests_do_not_use(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifiers say which they use."""
    monkeypatch.setattr(software.platform, "python_version_tuple", lambda: ("3", "12", "1"))
    assert only(software.python).state == "ok"
    monkeypatch.setattr(software.platform, "python_version_tuple", lambda: ("3", "14", "0"))
    line = only(software.python)
    assert line.state == "warn"
    assert "3.11 to 3.13" in line.advice


def test_a_clone_that_is_not_installed(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metadata are missing; that is said, and stops nothing."""

    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(software, "metadata", none)
    monkeypatch.setattr(packages, "metadata", none)
    assert [line.state for line in run_checks((software.python, software.dependencies, software.extras))] == [
        "warn"
    ] * 3


def test_the_files_of_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come with the package; without the model quickstart can't run."""
    line = only(software.quickstart)
    assert line.state == "ok"
    assert "2 processes on cpu" in line.finding
    monkeypatch.setattr(sources, "ASSETS", tmp_path)
    assert only(software.quickstart).state == "fail"


def reported(check: Callable[[], Result], monkeypatch: pytest.MonkeyPatch, cards: int = 0, **report: Any) -> Result:
    """Return the line of a check where torch reports this, and the driver shows so many cards."""
    monkeypatch.setattr(software, "torch_report", lambda: report)
    monkeypatch.setattr(gpus, "visible_gpus", lambda: (CARD,) * cards)
    (line,) = run_checks((check,))
    return line


def test_libraries_that_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's version, by which builds differ."""
    line = reported(software.torch, monkeypatch, **WORKS)
    assert (line.state, "2.13.0" in line.finding) == ("ok", True)


@pytest.mark.parametrize(("report", "state", "words"), [
    ({"status": 0, "torch_error": "ModuleNotResultError: No module named 'torch'"}, "fail", "No module named 'torch'"),
    ({"status": 0, "torch": "2.13.0", "worker_error": "ImportError: old"}, "fail", "ImportError: old"),
    ({"status": -4, "stderr": ""}, "fail", "SIGILL"),
    ({"status": -9, "stderr": ""}, "fail", "SIGKILL"),
    ({"status": 1, "stderr": "No space"}, "fail", "can't be imported: No space"),
    ({"status": None, "torch": "2.13.0"}, "warn", "not imported in time"),
])  # fmt: skip
def test_libraries_that_cannot(report: dict[str, Any], state: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, of versions that don't fit, ended by an unknown instruction; a slow disk proves nothing."""
    line = reported(software.torch, monkeypatch, **report)
    assert line.state == state
    assert words in line.finding
    assert line.advice


def test_torch_and_the_driver_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """On no GPU, or on the same ones: torch's UUIDs lack the prefix."""
    assert reported(software.gpus, monkeypatch, **WORKS).finding == "none; runs are on the CPU"
    seen = {**WORKS, "gpus": [{"name": "NVIDIA H100", "uuid": "1-2"}]}
    line = reported(software.gpus, monkeypatch, cards=1, **seen)
    assert line.state == "ok"
    assert line.finding.startswith("NVIDIA H100 (81.0 GB)")


@pytest.mark.parametrize(("cards", "report", "words"), [
    (1, WORKS, "NVIDIA H100 (81.0 GB), torch 2.13.0 sees none"),
    (0, {**WORKS, "gpus": [{"name": "Other", "uuid": "3"}]}, "shows none, torch 2.13.0 sees Other"),
    (1, {"status": None}, "torch: no answer"),
    (1, {**WORKS, "gpus": [{"name": "NVIDIA H100", "uuid": "1-2"}], "cuda_error": "out of memory"}, "out of memory"),
])  # fmt: skip
def test_torch_and_the_driver_disagree(
    cards: int, report: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a torch for CPUs on a machine with a GPU: quickstart runs, on the CPU."""
    line = reported(software.gpus, monkeypatch, cards=cards, **report)
    assert line.state == "warn"
    assert words in line.finding


def test_the_faster_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest first, against the slowest, of each device."""
    cuda = {"fp32": 8e-3, "tf32": 2e-3, "bf16": 1e-3}
    line = reported(software.precision, monkeypatch, **WORKS, cuda=cuda)
    assert line.finding == (
        "CPU: products in bf16 4 times as fast as in fp32; "
        "GPU: products in bf16 8 times and tf32 4 times as fast as in fp32"
    )
    assert reported(software.precision, monkeypatch, status=1).state == "warn"


def test_a_part_that_fails_is_reported() -> None:
    """By its exception, and the other parts go on."""

    def fail() -> None:
        raise RuntimeError("no such\nkernel")

    assert torch_report._found("gpus", fail) == {"gpus_error": "RuntimeError: no such"}
    assert torch_report._found("gpus", list) == {"gpus": []}


def test_the_report_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines are put together but one that its end cut off; of its messages the last line is kept."""
    program = 'import os; os.write(1, b\'{"torch": "2"}\\n{"gpus": [\'); os.write(2, b"first\\nlast\\n"); os.abort()'
    monkeypatch.setattr(child, "module", lambda _: ["-c", program])
    assert software._report.__wrapped__() == {"torch": "2", "status": -6, "stderr": "last"}


def test_a_process_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed; what it has printed counts."""
    program = 'import time; print(\'{"torch": "2"}\', flush=True); time.sleep(600)'
    monkeypatch.setattr(child, "module", lambda _: ["-c", program])
    monkeypatch.setattr(software, "TORCH_SECONDS", 1.0)
    assert software._report.__wrapped__() == {"torch": "2", "status": None, "stderr": ""}


def test_torch_reports() -> None:
    """Version, times of products in both precisions, and that a rank's modules can be imported."""
    assert torch_report._version() == torch.__version__
    seconds = torch_report._cpu()
    assert set(seconds) == {"fp32", "bf16"}
    assert min(seconds.values()) > 0
    assert torch_report._worker()


@pytest.mark.gpu
def test_torch_reports_gpus() -> None:
    """Each with a UUID, and the times of products in three precisions; in a process, since it initialises CUDA."""
    command = [sys.executable, *child.module("hpml_bench.training.torch_report")]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    report = {key: value for line in output.splitlines() for key, value in json.loads(line).items()}
    assert [gpu["uuid"] for gpu in report["gpus"]] == [gpu["uuid"].partition("-")[2] for gpu in gpus.visible_gpus()]
    assert set(report["cuda"]) == {"fp32", "tf32", "bf16"}
    assert min(report["cuda"].values()) > 0


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


def test_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks meet over it: without it quickstart can't run."""
    assert only(software.loopback).state == "ok"

    def refuse(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    line = only(software.loopback)
    assert line.state == "fail"
    assert "Network is unreachable" in line.finding


def test_a_hub_that_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it answers; whether there is a token is said, the token never."""
    monkeypatch.setattr(constants, "ENDPOINT", server)
    monkeypatch.setenv("HF_TOKEN", KEY)
    line = only(software.hub)
    assert line == Result("ok", f"{server} answers; a token is set", name="hub")


def test_a_hub_that_cannot_be_reached(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, in plain words, with what can be used instead."""
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    line = only(software.hub)
    assert line.state == "warn"
    assert line.finding.startswith(f"offline: {closed} can't be reached")
    assert "HF_HUB_OFFLINE=1" in line.advice


def test_a_hub_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server accepts connections and says nothing: given up in time."""
    monkeypatch.setattr(software, "HUB_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert only(software.hub).state == "warn"


def test_a_hub_that_the_user_has_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(software, "_hub_problem", lambda _: pytest.fail("it was asked"))
    line = only(software.hub)
    assert line.state == "ok"
    assert "HF_HUB_OFFLINE is set" in line.finding


def test_a_package_index_that_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that pip is set to; its password isn't shown."""
    monkeypatch.setenv("PIP_INDEX_URL", server.replace("http://", "http://me:0123456789@"))
    line = only(software.package_index)
    assert line.state == "ok", line
    assert "0123456789" not in line.finding


def test_a_package_index_that_cannot_be_reached(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which suites need it is said."""
    monkeypatch.setenv("PIP_INDEX_URL", closed)
    line = only(software.package_index)
    assert line.state == "warn"
    assert line.finding.startswith("offline: ")
    assert "minilm" in line.advice


def test_an_environment_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """As uv makes them."""
    monkeypatch.setattr(software, "find_spec", lambda _: None)
    line = only(software.package_index)
    assert line.state == "warn"
    assert "ensurepip" in line.advice


def test_trackers_with_their_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key wandb is offline, and with one where it is told to be; the key isn't shown."""
    line = only(software.trackers)
    assert line.state == "ok"
    assert line.finding == "wandb: offline, there is no API key for api.wandb.ai"
    assert "WANDB_API_KEY" in line.advice
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with socket.create_server(("127.0.0.1", 0)) as own:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{own.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "*")
        line = only(software.trackers)
    assert line.finding == "wandb: offline, with a key and a route"
    assert KEY not in line.finding + line.advice
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert only(software.trackers).finding == "wandb: off"


def test_engines_and_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named; what is missing is said of those that can't start jobs here."""
    monkeypatch.setenv("PATH", "/nowhere")
    line = only(software.engines)
    assert line.state == "ok"
    assert all(name in line.finding for name in registry.names("engines"))
    assert "not slurm: sbatch, squeue, scancel can't be found" in line.finding
    monkeypatch.setattr(Slurm, "lacks", classmethod(lambda _: None))
    assert "not slurm" not in only(software.engines).finding


@pytest.mark.parametrize("check", [software.trackers, software.engines])
def test_a_plug_in_of_another_package_that_is_broken(
    check: Callable[[], Result], monkeypatch: pytest.MonkeyPatch
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
