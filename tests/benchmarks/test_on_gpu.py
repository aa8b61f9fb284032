"""Scripts of benchmarks/ for GPUs, as far as they can be tried without one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import carried
import on_gpu
import pytest
from speed import training

from helpers import language_models

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_without_a_gpu_what_needs_one_is_skipped(tmp_path: Path) -> None:
    """With the reason; checks of numbers are done on the CPU, each by its own process, and the command ends well."""
    found = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "on_gpu.py"), "--only", "devices,products", "--json", str(found)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(found.read_text())
    assert told["devices"] == {"passed": None, "skipped": "no GPU is visible (driver, CUDA_VISIBLE_DEVICES)"}
    assert told["products"]["passed"], told
    assert len(told["products"]["rates"]) == 8


def test_all_checks_end_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A check gets what is left of the minutes, and fails where that isn't enough."""
    given: list[float] = []
    monkeypatch.setattr(on_gpu, "in_child", lambda check, left: given.append(left) or {"passed": True})
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--only", "products,attention", "--json", str(tmp_path / "j")])
    assert on_gpu.main() == 0
    assert 0 < given[1] <= given[0] <= 540
    monkeypatch.undo()
    found = on_gpu.in_child("products", 0.05)
    assert (found["passed"], found["timeout"]) == (False, 0.05)


def test_carried_wheels_are_for_the_command_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are installed without an index, and are found by the process and its children."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "before")
    with pytest.raises(SystemExit, match="no wheel in this folder"):
        carried.install(tmp_path, tmp_path / "installed")
    with zipfile.ZipFile(tmp_path / "hpml_carried-1.0-py3-none-any.whl", "w") as wheel:
        about = "hpml_carried-1.0.dist-info"
        wheel.writestr("hpml_carried.py", "answer = 42\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: hpml-carried\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    carried.install(tmp_path, tmp_path / "installed")
    assert importlib.import_module("hpml_carried").answer == 42
    paths = os.environ["PYTHONPATH"].split(os.pathsep)
    assert paths == [str(tmp_path / "installed"), str(BENCHMARKS.parent), "before"]


def test_losses_must_be_alike() -> None:
    """Three of either, up to the order of sums, of runs that ended well."""
    cpu = {"status": "ok", "losses": [1.0, 0.9, 0.8]}
    assert on_gpu._alike(cpu, {"status": "ok", "losses": [1.0, 0.9002, 0.8]})
    assert not on_gpu._alike(cpu, {"status": "ok", "losses": [1.0, 0.91, 0.8]})
    assert not on_gpu._alike(cpu, {"status": "failed", "losses": []})
    unsupported = {"status": "unsupported", "losses": []}
    assert on_gpu._alike(unsupported, unsupported)
    assert not on_gpu._alike(cpu, unsupported)


def test_the_checks_of_numbers_pass_where_they_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU answers side by side are those alone, and attention's gradients the plain kernel's."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # which the checks set, and so are put back
    save = language_models.save_models
    monkeypatch.setattr(language_models, "save_models", lambda folder: {"Llama": save(folder)["Llama"]})
    answered = on_gpu.generation("cpu")
    assert answered["passed"], answered
    assert list(answered["models"]) == ["Llama fp32", "Llama bf16"]
    gradients = on_gpu.attention("cpu")
    assert gradients["passed"], gradients


def test_a_method_is_trained_in_the_checks_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three losses, or why there are none; one that fails is in nobody's way."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    with on_gpu._alone() as (tiny, folder):
        prepared = tiny.prepared(folder)
        refused = on_gpu._trained(tiny, prepared, "peft", {"type": "LILY"}, "cpu")
        assert (refused["status"], refused["losses"]) == ("unsupported", [])
        for method, changes in (("lora", {}), ("lora", {"precision": "fp16"}), ("head", {"precision": "bf16"})):
            found = on_gpu._trained(tiny, prepared, method, {}, "cpu", **changes)
            assert on_gpu._alike(found, found), found


def test_a_check_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as failed, with its limit."""
    monkeypatch.setitem(on_gpu.SECONDS, "devices", 0.05)
    found = on_gpu.in_child("devices")
    assert (found["passed"], found["timeout"]) == (False, 0.05)


@pytest.mark.parametrize(("visible", "one"), [(None, "0"), ("3,1", "3"), ("GPU-a,GPU-b", "GPU-a"), ("", "")])
def test_a_contender_has_one_gpu(visible: str | None, one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that is visible: of more, the HF Trainer would make a DataParallel."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert training.one_gpu() == {"CUDA_VISIBLE_DEVICES": one}
