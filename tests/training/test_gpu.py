"""What only a GPU can show; skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from hpml_bench.config.devices import resolve_devices
from hpml_bench.launch import fork_server, launcher
from hpml_bench.records.points import read_points
from hpml_bench.system.environment import visible_gpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not visible_gpus(), reason="no GPU is visible")]


def test_a_run_on_every_gpu(tmp_path: Path) -> None:
    """All visible GPUs are found; memory is there as allocated, reserved and used, each at least the one before."""
    fork_server.start_fork_server()
    prepared = tiny.prepared(tmp_path)
    asked = tiny.settings(device="auto", world_size=None, threads=None, precision="auto", global_batch=24)
    found = resolve_devices(asked)
    assert (found.device, found.world_size) == ("cuda", len(visible_gpus()))
    spec = tiny.spec().model_copy(update={"settings": found})
    record = launcher.run(spec, prepared, tmp_path / "run")
    assert record.status == "ok", record.error
    metrics = {name: value or 0 for name, value in record.metrics.items()}
    assert metrics["peak_memory_mb"] == metrics["cuda_allocated_train_mb"] > 0
    assert metrics["cuda_allocated_train_mb"] <= metrics["cuda_reserved_train_mb"] <= metrics["nvml_used_train_mb"]
    assert metrics["energy_joules"] >= 0
    assert "peak_memory_over_setup_mb" not in metrics, "it is of a process on the CPU"
    assert {m.name: m.grid for m in record.definitions}["peak_memory_mb"] is None


def test_the_gpu_follows_the_cpu(tmp_path: Path) -> None:
    """In float32 the losses are those of the CPU, but for the order of sums."""
    fork_server.start_fork_server()
    prepared = tiny.prepared(tmp_path)
    courses = []
    for device in ("cpu", "cuda"):
        spec = tiny.spec(device=device, world_size=1)
        assert launcher.run(spec, prepared, tmp_path / device).status == "ok"
        courses.append([p.value for p in read_points(tmp_path / device) if p.metric == "train_loss"])
    assert courses[0] == pytest.approx(courses[1], rel=1e-3)


def test_out_of_memory_has_a_status_of_its_own(tmp_path: Path) -> None:
    """A batch beyond the card's memory is `oom_cuda`, and the next run starts clean."""
    fork_server.start_fork_server()
    prepared = tiny.prepared(tmp_path, rows=4096)
    spec = tiny.spec("full", device="cuda", world_size=1, global_batch=4096, steps=1)
    import torch

    hog = torch.empty(int(torch.cuda.mem_get_info()[0] * 0.995), dtype=torch.uint8, device="cuda")
    assert launcher.run(spec, prepared, tmp_path / "large").status == "oom_cuda"
    del hog
    torch.cuda.empty_cache()
    small = tiny.spec("full", device="cuda", world_size=1)
    assert launcher.run(small, prepared, tmp_path / "small").status == "ok"
