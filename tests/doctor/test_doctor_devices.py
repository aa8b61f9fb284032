"""Devices: what torch's own process reports, beside what the driver shows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hpml_bench.doctor import devices
from hpml_bench.doctor.check import Check, Found, look
from hpml_bench.system import child, gpus
from hpml_bench.training import products

CARD = {"name": "NVIDIA H100", "uuid": "GPU-1-2", "memory_mb": 81_000}
WORKS: dict[str, Any] = {
    "status": 0,
    "torch": "2.13.0",
    "gpus": [],
    "cpu": {"fp32": 4e-3, "bf16": 1e-3},
    "worker": True,
}


def only(check: Callable[[], Found], monkeypatch: pytest.MonkeyPatch, cards: int = 0, **report: Any) -> Check:
    """Return the line of a check where torch reports this, and the driver shows so many cards."""
    monkeypatch.setattr(devices, "torch_report", lambda: report)
    monkeypatch.setattr(gpus, "visible_gpus", lambda: (CARD,) * cards)
    (line,) = look((check,))
    return line


def test_libraries_that_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's version, by which builds differ."""
    line = only(devices.torch, monkeypatch, **WORKS)
    assert (line.state, "2.13.0" in line.finding) == ("ok", True)


@pytest.mark.parametrize(("report", "state", "words"), [
    ({"status": 0, "torch_error": "ModuleNotFoundError: No module named 'torch'"}, "fail", "No module named 'torch'"),
    ({"status": 0, "torch": "2.13.0", "worker_error": "ImportError: old"}, "fail", "ImportError: old"),
    ({"status": -4, "stderr": ""}, "fail", "SIGILL"),
    ({"status": -9, "stderr": ""}, "fail", "SIGKILL"),
    ({"status": 1, "stderr": "No space"}, "fail", "can't be imported: No space"),
    ({"status": None, "torch": "2.13.0"}, "warn", "not imported in time"),
])  # fmt: skip
def test_libraries_that_cannot(report: dict[str, Any], state: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, of versions that don't fit, ended by an unknown instruction; a slow disk proves nothing."""
    line = only(devices.torch, monkeypatch, **report)
    assert line.state == state
    assert words in line.finding
    assert line.advice


def test_torch_and_the_driver_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """On no GPU, or on the same ones: torch's UUIDs lack the prefix."""
    assert only(devices.gpus, monkeypatch, **WORKS).finding == "none; runs are on the CPU"
    seen = {**WORKS, "gpus": [{"name": "NVIDIA H100", "uuid": "1-2"}]}
    line = only(devices.gpus, monkeypatch, cards=1, **seen)
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
    line = only(devices.gpus, monkeypatch, cards=cards, **report)
    assert line.state == "warn"
    assert words in line.finding


def test_the_faster_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest first, against the slowest, of each device."""
    cuda = {"fp32": 8e-3, "tf32": 2e-3, "bf16": 1e-3}
    line = only(devices.precision, monkeypatch, **WORKS, cuda=cuda)
    assert line.finding == (
        "CPU: products in bf16 4 times as fast as in fp32; "
        "GPU: products in bf16 8 times and tf32 4 times as fast as in fp32"
    )
    assert only(devices.precision, monkeypatch, status=1).state == "warn"


def test_a_part_that_fails_is_reported() -> None:
    """By its exception, and the other parts go on."""

    def fail() -> None:
        raise RuntimeError("no such\nkernel")

    assert products._found("gpus", fail) == {"gpus_error": "RuntimeError: no such"}
    assert products._found("gpus", list) == {"gpus": []}


def test_the_report_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines are put together but one that its end cut off; of its messages the last line is kept."""
    program = 'import os; os.write(1, b\'{"torch": "2"}\\n{"gpus": [\'); os.write(2, b"first\\nlast\\n"); os.abort()'
    monkeypatch.setattr(child, "module", lambda _: ["-c", program])
    assert devices._report.__wrapped__() == {"torch": "2", "status": -6, "stderr": "last"}


def test_a_process_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed; what it has printed counts."""
    program = 'import time; print(\'{"torch": "2"}\', flush=True); time.sleep(600)'
    monkeypatch.setattr(child, "module", lambda _: ["-c", program])
    monkeypatch.setattr(devices, "TORCH_SECONDS", 1.0)
    assert devices._report.__wrapped__() == {"torch": "2", "status": None, "stderr": ""}


def test_torch_reports() -> None:
    """Version, times of products in both precisions, and that a rank's modules can be imported."""
    assert products._version() == torch.__version__
    seconds = products._cpu()
    assert set(seconds) == {"fp32", "bf16"}
    assert min(seconds.values()) > 0
    assert products._worker()


@pytest.mark.gpu
def test_torch_reports_gpus() -> None:
    """Each with a UUID, and the times of products in three precisions; in a process, since it initialises CUDA."""
    command = [sys.executable, *child.module("hpml_bench.training.products")]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    report = {key: value for line in output.splitlines() for key, value in json.loads(line).items()}
    assert [gpu["uuid"] for gpu in report["gpus"]] == [gpu["uuid"].partition("-")[2] for gpu in gpus.visible_gpus()]
    assert set(report["cuda"]) == {"fp32", "tf32", "bf16"}
    assert min(report["cuda"].values()) > 0
