"""Memory of a machine: what a rank may take, and what it takes beside tensors, which no trace shows."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from hpml_bench.errors import UserError
from hpml_bench.suite.settings import NEEDED, Settings
from hpml_bench.system import environment, gpus

PROCESS = 500_000_000
"""Bytes of a rank's process without tensors: `peak_memory_mb` less `peak_memory_over_setup_mb`, and less the model's 5
MB, of the records in reports/reference/quickstart."""
CUDA_CONTEXT = 600_000_000
"""Bytes of a CUDA context with torch's kernels, loaded lazily. An estimate: not measured on a card by this project."""
CUBLAS_WORKSPACE = 2 * 32 * 2**20
"""Bytes of cuBLAS's workspaces: one for the forward and one for the backward thread, 32 MiB each on Hopper, where they
are largest (torch: aten/src/ATen/cuda/CublasHandlePool.cpp, `parseChosenWorkspaceSize`)."""
CUBLASLT_WORKSPACE = 32 * 2**20
"""Bytes of cuBLASLt's workspace on Hopper (torch: aten/src/ATen/cuda/CUDABlas.cpp, `_parseChosenWorkspaceSize`)."""
NCCL_BUFFERS = 300_000_000
"""Bytes of NCCL's buffers with several ranks. An estimate: not measured on a card by this project."""
FRAGMENTATION = 0.05
"""Share of a card that the allocator reserves and no tensor uses, as `training.trainer.MARGIN` leaves it free."""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
CGROUP = Path("/sys/fs/cgroup/memory.max")


class Limit(NamedTuple):
    """Memory of one rank, in bytes."""

    most: int
    """What it may take."""
    outside: int
    """What it takes beside tensors."""
    where: str
    """Of what it is a part, in words."""


def read_bytes(text: str) -> int:
    """Return the bytes of a size such as `24GB` or `40GiB`; a UserError if it isn't one."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = match and UNITS.get(match[2].upper())
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise UserError(f"--memory {text!r}: write a size such as 24GB or 80GiB")
    return size


def place(settings: Settings, memory: int | None) -> Settings:
    """Return settings with device, ranks and precision decided: for this machine, or a card of `memory` bytes.

    Where the suite leaves the device open, `memory` is taken for a card's.
    """
    cards = len(gpus.visible_gpus())
    device = settings.device if settings.device != "auto" else "cuda" if cards or memory else "cpu"
    if device == "cuda" and not cards and memory is None:
        raise UserError("the suite's device is cuda and no GPU is visible here; give a card's memory, as --memory 24GB")
    world = settings.world_size or (max(1, cards) if device == "cuda" else min(2, environment.cores()))
    decided: dict[str, Any] = {"device": device, "world_size": world}
    if settings.precision == "auto":
        decided["precision"] = NEEDED.get(settings.weights, "bf16" if device == "cuda" else "fp32")
    if settings.micro_batch == "auto":
        decided["micro_batch"] = None
    try:
        return Settings.model_validate({**settings.model_dump(), **decided})
    except ValueError as error:
        message = str(error).partition("Value error, ")[2].partition(" [type=")[0]
        raise UserError(f"settings: {message or error}") from None


def limit_of(settings: Settings, memory: int | None) -> Limit:
    """Return the memory of a rank: its card's, or its share of the machine's, of `memory` bytes or of this machine."""
    ranks = settings.world_size or 1
    if settings.device == "cpu":
        total = memory or _machine()
        return Limit(total // ranks, PROCESS, f"{ranks} ranks share it" if ranks > 1 else "")
    sizes = [gpu["memory_mb"] * 10**6 for gpu in gpus.visible_gpus() if gpu["memory_mb"]]
    total = memory or min(sizes, default=0)
    nccl = NCCL_BUFFERS if ranks > 1 else 0
    outside = CUDA_CONTEXT + CUBLAS_WORKSPACE + CUBLASLT_WORKSPACE + nccl + int(FRAGMENTATION * total)
    return Limit(total, outside, "of each card" if ranks > 1 else "")


def _machine() -> int:
    """Return the memory of this machine, or of this process's control group where that is less."""
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # no control group, or "max"
        total = min(total, int(CGROUP.read_text()))
    return total
