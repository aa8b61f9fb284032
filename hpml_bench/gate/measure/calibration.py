"""Current speed of the machine, by reference work that is none of ours: matrix products, copies, all-reduces."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist

from hpml_bench.gate.measure.machine import seconds_of

TIMES = 15
SIZE = 384
"""Rows of the square matrices multiplied."""
MEGABYTES = 16
"""Size of the copy; the all-reduce takes a quarter of it."""


def calibrate() -> dict[str, float]:
    """Return the seconds of each kind of work, the median of several times; a process group must exist."""
    device = torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")
    matrix = torch.ones(SIZE, SIZE, device=device)
    memory = torch.ones(MEGABYTES << 18, device=device)
    target = torch.empty_like(memory)
    gradients = memory[: len(memory) // 4].clone()
    return {
        "matrix_product": _median(lambda: torch.mm(matrix, matrix), device),
        "memory_copy": _median(lambda: target.copy_(memory), device),
        "all_reduce": _median(lambda: dist.all_reduce(gradients), device),
    }


def _median(work: Callable[[], object], device: torch.device) -> float:
    def once() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    once()
    return statistics.median(seconds_of(once) for _ in range(TIMES))
