"""Software and services: packages by the metadata, torch's own process beside the driver, what
answers.
"""

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from huggingface_hub import constants
from test_doctor_machine import only

from helpers import web
from hpml_bench.builtin.engines.slurm import Slurm
from hpml_bench.data import sources
from hpml_bench.doctor import software
from hpml_bench.doctor.checks import run_checks
from hpml_bench.doctor.machine import Result
from hpml_bench.suite import registry
from hpml_bench.system import child, gpus, packages
from hpml_bench.system.errors import UserError

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
NEEDS = [
    "numpy>=2.0",
    "wandb>=0.31",
    "gguf>=0.17.1; extra == 'gguf'",
    'optuna >=4.0 ; extra == "tune"',
    "tox>=4; extra == 'dev'",
]
CLASSIFIERS = [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)] + [
    "Typing :: Typed"
]
SPEEDS = {"fp32": 4e-3, "bf16": 1e-3}
WORKS: dict[str, Any] = {"status": 0, "torch": "2.13.0", "gpus": [], "cpu": SPEEDS, "worker": True}
KEY = "hf_0123456789abcdef"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Installed package -> version, which the test changes, under the metadata above."""
    found = {
        "hpml-bench": "0.1.0",
        "numpy": "2.1.0",
        "wandb": "0.31",
        "gguf": "0.18",
        "optuna": "4.0.0",
    }

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    lists = {"Requires-Dist": NEEDS, "Classifier": CLASSIFIERS}
    for module in (software, packages):
        monkeypatch.setattr(module, "version", version)
        monkeypatch.setattr(
            module, "metadata", lambda _: SimpleNamespace(get_all=lambda key, _: lists[key])
        )
    return found


def test_all_requirements_of_the_project_are_understood() -> None:
    """Name, lower bound and extra of each, as pyproject.toml has them: none is left out; each
    extra has a purpose.
    """
    lines = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    expected = {
        (*re.fullmatch(r"(.+)(>=.+)", line).groups(), extra)
        for extra in lines
        for line in lines[extra]
    }
    found = packages.requirements()
    assert {
        (need.name, str(need.specifier), extra) for extra in found for need in found[extra]
    } == expected
    assert set(software.PURPOSES) == set(PROJECT["optional-dependencies"]) - {"dev"}
    assert set(software.DISPENSABLE) <= {need.name for need in found[""]}


@pytest.mark.parametrize(
    ("check", "versions", "state", "finding", "advice"),
    [
        (
            software.dependencies,
            {"numpy": "2", "wandb": "0.31.0a1+local.9"},
            "ok",
            "all 2 are installed",
            "",
        ),
        (
            software.dependencies,
            {"numpy": "1.26.4"},
            "warn",
            "numpy 1.26.4 (2.0 or newer)",
            "pip install",
        ),
        (
            software.dependencies,
            {"numpy": None},
            "fail",
            "numpy is missing (2.0 or newer)",
            "pip install",
        ),
        (
            software.dependencies,
            {"wandb": None},
            "warn",
            "wandb is missing (0.31 or newer)",
            "pip install",
        ),
        (software.extras, {}, "ok", "all are installed: gguf", ""),
        (
            software.extras,
            {"gguf": None, "optuna": "3.6"},
            "warn",
            "not installed: gguf, tune",
            "for models in GGUF files: pip install 'gguf>=0.17.1'\n"
            "for tune --sampler tpe: pip install 'optuna>=4.0'",
        ),
    ],
)
def test_packages_that_are_old_or_missing(
    check: Callable[[], Result],
    versions: dict[str, str | None],
    state: str,
    finding: str,
    advice: str,
    installed: dict[str, str],
) -> None:
    """A local build counts as its release; quickstart can't run without a dependency, unless it
    doesn't use that.
    """
    for name, version in versions.items():
        installed.pop(name)
        installed |= {name: version} if version else {}
    line = only(check)
    assert (line.state, line.finding.startswith(finding), advice in line.advice) == (
        state,
        True,
        True,
    ), line


def test_python_that_the_tests_do_not_use(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classifiers say which they use; a clone that isn't installed lacks its metadata, which
    stops nothing.
    """
    for minor, state, advice in (("12", "ok", ""), ("14", "warn", "3.11 to 3.13")):
        monkeypatch.setattr(
            software.platform, "python_version_tuple", lambda minor=minor: ("3", minor, "1")
        )
        line = only(software.python)
        assert (line.state, advice in line.advice) == (state, True)
    for module in (software, packages):
        monkeypatch.setattr(
            module, "metadata", Mock(side_effect=PackageNotFoundError("hpml-bench"))
        )
    lines = run_checks((software.python, software.dependencies, software.extras))
    assert [line.state for line in lines] == ["warn"] * 3


SEES = {**WORKS, "gpus": [{"name": "NVIDIA H100", "uuid": "1-2"}]}  # torch's UUIDs lack the prefix
CUDA = {"fp32": 8e-3, "tf32": 2e-3, "bf16": 1e-3}


@pytest.mark.parametrize(
    ("check", "cards", "report", "state", "words"),
    [
        (software.torch, 0, WORKS, "ok", "torch 2.13.0"),
        (
            software.torch,
            0,
            {"status": 0, "torch_error": "No module named 'torch'"},
            "fail",
            "No module named 'torch'",
        ),
        (
            software.torch,
            0,
            {"status": 0, "torch": "2.13.0", "worker_error": "ImportError: old"},
            "fail",
            "Error: old",
        ),
        (software.torch, 0, {"status": -4, "stderr": ""}, "fail", "SIGILL"),
        (software.torch, 0, {"status": -9, "stderr": ""}, "fail", "SIGKILL"),
        (
            software.torch,
            0,
            {"status": 1, "stderr": "No space"},
            "fail",
            "can't be imported: No space",
        ),
        (
            software.torch,
            0,
            {"status": None, "torch": "2.13.0"},
            "warn",
            "not imported in time",
        ),  # a slow disk, say
        (software.gpus, 0, WORKS, "ok", "none; runs are on the CPU"),
        (software.gpus, 1, SEES, "ok", "NVIDIA H100 (81.0 GB)"),
        (software.gpus, 1, WORKS, "warn", "NVIDIA H100 (81.0 GB), torch 2.13.0 sees none"),
        (
            software.gpus,
            0,
            {**WORKS, "gpus": [{"name": "Other", "uuid": "3"}]},
            "warn",
            "none, torch 2.13.0 sees Other",
        ),
        (software.gpus, 1, {"status": None}, "warn", "torch: no answer"),
        (software.gpus, 1, {**SEES, "cuda_error": "out of memory"}, "warn", "out of memory"),
        (
            software.precision,
            1,
            {**WORKS, "cuda": CUDA},
            "ok",
            "CPU: products in bf16 4 times as fast as in fp32; "
            "GPU: products in bf16 8 times and tf32 4 times as fast as in fp32",
        ),
        (software.precision, 0, {"status": 1}, "warn", "not measured"),
    ],
)
def test_what_torch_reports_beside_the_driver(
    check: Callable[[], Result],
    cards: int,
    report: dict[str, Any],
    state: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Libraries that can't be imported end quickstart; where torch and the driver disagree it
    runs, on the CPU.
    """
    monkeypatch.setattr(software, "torch_report", lambda: report)
    card = {"name": "NVIDIA H100", "uuid": "GPU-1-2", "memory_mb": 81_000}
    monkeypatch.setattr(gpus, "visible_gpus", lambda: (card,) * cards)
    line = only(check)
    assert (line.state, words in line.finding) == (state, True), line


@pytest.mark.parametrize(
    ("program", "found"),
    [
        (
            'import os; os.write(1, b\'{"torch": "2"}\\n{"gpus": [\'); os.write(2, '
            'b"first\\nlast\\n"); os.abort()',
            {"status": -6, "stderr": "last"},
        ),
        (
            'import time; print(\'{"torch": "2"}\', flush=True); time.sleep(600)',
            {"status": None, "stderr": ""},
        ),
    ],
)
def test_a_report_that_breaks_off(
    program: str, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole lines count, and the last one of the messages; a process that takes too long is
    killed.
    """
    monkeypatch.setattr(child, "module", lambda _: ["-c", program])
    monkeypatch.setattr(software, "TORCH_SECONDS", 1.0)
    assert software._report.__wrapped__() == {"torch": "2", **found}


def reported(*words: str) -> dict[str, Any]:
    output = subprocess.run(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return {key: value for line in output.splitlines() for key, value in json.loads(line).items()}


def test_torch_reports() -> None:
    """Version, times of products in both precisions, a rank's modules; a part that fails is told
    by its exception.
    """
    program = (
        "from hpml_bench.training import torch_report as of\nof._gpus = lambda: "
        "int('no')\nof.main()"
    )
    report = reported("-c", program)
    assert report["torch"] == torch.__version__
    assert report["gpus_error"] == "ValueError: invalid literal for int() with base 10: 'no'"
    assert set(report["cpu"]) == {"fp32", "bf16"}
    assert min(report["cpu"].values()) > 0
    assert report["worker"]


@pytest.mark.gpu
def test_torch_reports_gpus() -> None:
    """Each with a UUID, and the times of products in three precisions; in a process, since it
    initialises CUDA.
    """
    report = reported(*child.module("hpml_bench.training.torch_report"))
    assert [gpu["uuid"] for gpu in report["gpus"]] == [
        gpu["uuid"].partition("-")[2] for gpu in gpus.visible_gpus()
    ]
    assert set(report["cuda"]) == {"fp32", "tf32", "bf16"}
    assert min(report["cuda"].values()) > 0


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an index on this machine that has one package, reached without a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "pip-99.0-py3-none-any.whl").touch()
    with web.Server(partial(SimpleHTTPRequestHandler, directory=tmp_path)) as running:
        yield running.address


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


def test_what_quickstart_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, which come with the package, the model among them, and the loopback, over which
    ranks meet.
    """
    line = only(software.quickstart)
    assert line.state == "ok"
    assert "2 processes on cpu" in line.finding
    monkeypatch.setattr(sources, "ASSETS", tmp_path)
    assert only(software.quickstart).state == "fail"
    assert only(software.loopback).state == "ok"
    monkeypatch.setattr(
        socket, "create_connection", Mock(side_effect=OSError(101, "Network is unreachable"))
    )
    line = only(software.loopback)
    assert (line.state, "Network is unreachable" in line.finding) == ("fail", True)


def test_services_that_answer(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub, with whatever, and the index that pip is set to; neither token nor password is
    shown.
    """
    monkeypatch.setattr(constants, "ENDPOINT", f"{server}/none")
    monkeypatch.setenv("HF_TOKEN", KEY)
    assert only(software.hub) == Result("ok", f"{server}/none answers; a token is set", name="hub")
    monkeypatch.setenv("PIP_INDEX_URL", server.replace("http://", "http://me:0123456789@"))
    line = only(software.package_index)
    assert line.state == "ok", line
    assert "0123456789" not in line.finding


def test_services_that_do_not_answer(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, in plain words, with what can be used instead; a silent hub is given up, one
    switched off not asked.

    Nor is an index, where the environment has no pip, as uv makes them.
    """
    monkeypatch.setenv("PIP_INDEX_URL", closed)
    line = only(software.package_index)
    assert (line.state, line.finding[:9], "minilm" in line.advice) == ("warn", "offline: ", True)
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    line = only(software.hub)
    assert (line.state, "HF_HUB_OFFLINE=1" in line.advice) == ("warn", True)
    assert line.finding.startswith(f"offline: {closed} can't be reached")
    monkeypatch.setattr(software, "HUB_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "timed out" in only(software.hub).finding
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = only(software.hub)
    assert (line.state, "HF_HUB_OFFLINE is set" in line.finding) == ("ok", True)
    monkeypatch.setattr(software, "find_spec", lambda _: None)
    line = only(software.package_index)
    assert (line.state, "ensurepip" in line.advice) == ("warn", True)


def test_trackers_with_their_modes(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key wandb is offline, with a key, never shown, and a route online, and where it
    is told so, off.
    """
    line = only(software.trackers)
    assert line.state == "ok"
    assert line.finding == "wandb: offline, there is no API key for api.wandb.ai"
    assert "WANDB_API_KEY" in line.advice
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert only(software.trackers) == Result(
        "ok", "wandb: online, with a key and a route", name="trackers"
    )
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert only(software.trackers).finding == "wandb: off"


def test_engines_and_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named; what is missing is said of those that can't start jobs here."""
    monkeypatch.setenv("PATH", "/nowhere")
    line = only(software.engines)
    assert line.state == "ok"
    assert all(name in line.finding for name in registry.names("engines"))
    assert "not slurm: sbatch, squeue, scancel, scontrol can't be found" in line.finding
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
