"""What only a GPU can show; skipped without one."""

import sys
from pathlib import Path

import pytest
import torch

from helpers import tiny
from hpml_bench.builtin.probes.memory import CUDA_BLOCK_MB, nvml_used_mb
from hpml_bench.launch import fork_server
from hpml_bench.records.points import read_points
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.system.gpus import visible_gpus
from hpml_bench.training.distributed import uuid

pytestmark = pytest.mark.gpu


def test_a_run_on_every_gpu(tmp_path: Path) -> None:
    """All visible GPUs are found; memory is there as allocated, reserved and used, each at least
    the one before.
    """
    prepared = tiny.prepared(tmp_path)
    asked = tiny.settings(
        device="auto", world_size=None, threads=None, precision="auto", global_batch=24
    )
    found = resolve_devices(asked)
    assert (found.device, found.world_size) == ("cuda", len(visible_gpus()))
    spec = tiny.spec().model_copy(update={"settings": found})
    record = tiny.run(spec, prepared, tmp_path / "run")
    assert record.status == "ok", record.error
    metrics = {name: value or 0 for name, value in record.metrics.items()}
    assert metrics["peak_memory_mb"] == metrics["cuda_allocated_train_mb"] > 0
    assert (
        metrics["cuda_allocated_train_mb"]
        <= metrics["cuda_reserved_train_mb"]
        <= metrics["nvml_used_train_mb"]
    )
    assert metrics["energy_joules"] >= 0
    assert "peak_memory_over_setup_mb" not in metrics, "it is of a process on the CPU"
    assert {m.name: m.grid for m in record.definitions}["peak_memory_mb"] == CUDA_BLOCK_MB


@pytest.mark.parametrize(
    "ways",
    [
        (("cpu", 1), ("cuda", 1)),
        pytest.param(
            (("cuda", 1), ("cuda", 2)), marks=pytest.mark.multigpu
        ),  # gradients are reduced by NCCL
    ],
)
def test_a_gpu_follows_the_cpu_and_two_follow_one(
    ways: tuple[tuple[str, int], ...], tmp_path: Path
) -> None:
    """In float32 the losses are the same but for the order of sums."""
    prepared = tiny.prepared(tmp_path)
    courses = []
    for device, ranks in ways:
        folder = tmp_path / f"{device}{ranks}"
        record = tiny.run(tiny.spec(device=device, world_size=ranks), prepared, folder)
        assert record.status == "ok", record.error
        courses.append([p.value for p in read_points(folder) if p.metric == "train_loss"])
    assert courses[0] == pytest.approx(courses[1], rel=1e-3)


def test_out_of_memory_has_a_status_of_its_own(tmp_path: Path) -> None:
    """A card without room for the batch is `oom_cuda`, whatever runs out of it, and the next run
    starts clean.
    """
    prepared = tiny.prepared(tmp_path, rows=4096)
    spec = tiny.spec("full", device="cuda", world_size=1, global_batch=4096, steps=1)
    free = torch.cuda.mem_get_info()[0]
    hog = torch.empty(
        free - 300_000_000, dtype=torch.uint8, device="cuda"
    )  # less than a context takes, on any card
    assert tiny.run(spec, prepared, tmp_path / "large").status == "oom_cuda"
    del hog
    torch.cuda.empty_cache()
    small = tiny.spec("full", device="cuda", world_size=1)
    assert tiny.run(small, prepared, tmp_path / "small").status == "ok"


def _status_of_cuda() -> None:
    """End with status 1 if the process that this one was forked from has initialised CUDA."""
    sys.exit(int(torch.cuda._is_in_bad_fork()))


def test_the_fork_server_leaves_cuda_alone() -> None:
    """A process that is forked from it can use CUDA."""
    assert fork_server.run(_status_of_cuda, ()) is None


def test_readings_are_of_the_devices_that_torch_counts() -> None:
    """The driver knows each by torch's UUID, and says more memory in use after an allocation
    there.
    """
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        torch.zeros(1, device=device)
        before = nvml_used_mb(uuid(device))
        held = torch.zeros(500_000_000, dtype=torch.uint8, device=device)
        assert nvml_used_mb(uuid(device)) > before + 400
        del held
        torch.cuda.empty_cache()
