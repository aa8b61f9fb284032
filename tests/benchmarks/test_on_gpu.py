"""Scripts of benchmarks/ for GPUs, as far as they can be tried without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import on_gpu
import pytest
from speed import training

from helpers import language_models

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_without_a_gpu_there_is_nothing_to_check() -> None:
    """One sentence, status 2, and no result."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "on_gpu.py")],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "no GPU is visible" in line


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
