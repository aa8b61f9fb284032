"""Memory of a machine: what a rank may take, what it takes beside tensors, and whether a sweep may
exceed it.

All of it without torch: a sweep predicts nothing where sizes of files leave no doubt.
"""

import math
import os
import re
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from pydantic import ByteSize, TypeAdapter, ValidationError

from hpml_bench.data.sources import LAYERS, WIDTH, first_value, read_config, weight_files
from hpml_bench.suite.devices import default_ranks, with_decided
from hpml_bench.suite.settings import Settings
from hpml_bench.system import cgroups, environment, gpus
from hpml_bench.system.errors import UserError

PROCESS = 500_000_000
"""Bytes of a rank's process without tensors: peak memory less that over set-up and the model's 5
MB, in our records.
"""
COMMAND, SHARED = 600_000_000, 290_000_000
"""Bytes of the command and its fork server on the same machine, and those of a rank's process
that it shares with the server (smaps_rollup during quickstart: 210 MB the command, 394 the
server, of which 226 are the rank's, as 65 of files are).
"""
WITH_CUDA, WITH_CUDA_PRIVATE = 380_000_000, 155_000_000
"""Further bytes of each of these processes, and those that are no file's, where torch is a build
with CUDA (2.15 for CUDA 13.2 against 2.13 for CPUs: Rss 889 and 510 MB after the imports,
Anonymous 525 and 372 MB).
"""
THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
# with it glibc's allocator gives freed tensors back on a CPU
FREEING = f"{THRESHOLD}=65536 in the environment"
HEAP = 3
"""Times the bytes of its tensors that a process on a CPU may take without that: 1.9 to 2.8 were
measured of a GPT-2 in micro-batches of texts of 500 tokens (0.98 with it).
`environment.PROCESS_ENVIRONMENT` keeps freed memory, for speed.
"""
CUDA_CONTEXT = 600_000_000
"""Bytes of a CUDA context with torch's kernels, loaded lazily. An estimate: not measured on a
card by this project.
"""
CUBLAS_WORKSPACE = 2 * 32 * 2**20
"""Bytes of cuBLAS's workspaces: one for the forward and one for the backward thread, 32 MiB each
on Hopper, where they are largest (torch: aten/src/ATen/cuda/CublasHandlePool.cpp,
`parseChosenWorkspaceSize`).
"""
CUBLASLT_WORKSPACE = 32 * 2**20
"""Bytes of cuBLASLt's workspace on Hopper (torch: aten/src/ATen/cuda/CUDABlas.cpp,
`_parseChosenWorkspaceSize`).
"""
NCCL_BUFFERS = 300_000_000
"""Bytes of NCCL's buffers with several ranks. An estimate: not measured on a card by this
project.
"""
FRAGMENTATION = 0.05
"""Share of what a rank may take of its card that the allocator reserves and no tensor uses; of the
whole card it is what `training.trainer.MARGIN` leaves free.
"""
SCARCE = 0.9
"""Share of a card's memory below which what is free is told beside the whole. The driver keeps some
100 MB to itself (NVML's reserved memory), less than the rest even of a card of 4 GB.
"""


class Limit(NamedTuple):
    """Memory of one rank, in bytes."""

    most: int  # what it may take
    outside: int  # what it takes beside tensors
    where: str  # of what it is a part, in words

    @property
    def tensors(self) -> int:
        return self.most - self.outside


def read_bytes(text: str) -> int:
    # pydantic reads `24,5GB` as 24 bytes; who writes `24` means no bytes
    whole = re.fullmatch(r"\s*(\d+(\.\d+)?\s*[A-Za-z]+|\d{7,})\s*", text)
    with suppress(ValidationError):
        if whole and (size := int(TypeAdapter(ByteSize).validate_python(text))):
            return size
    raise UserError(f"--memory {text!r}: write a size such as 24GB or 80GiB")


def fill_in_devices(settings: Settings, memory: int | None) -> Settings:
    """Return settings with device, ranks and precision filled in: for this machine, or a card of
    `memory` bytes.
    """
    cards = len(gpus.visible_gpus())
    # where the suite leaves the device open, `memory` is taken for a card's
    device = settings.device if settings.device != "auto" else "cuda" if cards or memory else "cpu"
    if device == "cuda" and not cards and memory is None:
        raise UserError(
            "the suite's device is cuda and no GPU is visible here; give a card's memory, as "
            "--memory 24GB"
        )
    world = settings.world_size or (1 if device == "cuda" and not cards else default_ranks(device))
    decided: dict[str, Any] = {"device": device, "world_size": world}
    if settings.precision == "auto":
        decided["precision"] = settings.needed_precision or ("bf16" if device == "cuda" else "fp32")
    if settings.micro_batch == "auto":
        decided["micro_batch"] = None
    return with_decided(settings, decided)


def limit_of(settings: Settings, memory: int | None) -> Limit:
    """Return the memory of a rank: its card's, or its share of the machine's, of `memory` bytes
    or of this machine.
    """
    ranks, total = settings.world_size or 1, memory or machine(settings)
    if settings.device == "cpu":
        more, private = (WITH_CUDA, WITH_CUDA_PRIVATE) if _torch_has_cuda() else (0, 0)
        most = max(0, total - COMMAND - private) // ranks + SHARED + private
        return Limit(most, PROCESS + more, f"{ranks} ranks share the machine" if ranks > 1 else "")
    nccl = NCCL_BUFFERS if ranks > 1 else 0
    outside = (
        CUDA_CONTEXT + CUBLAS_WORKSPACE + CUBLASLT_WORKSPACE + nccl + int(FRAGMENTATION * total)
    )
    return Limit(total, outside, "of each card" if ranks > 1 else "")


def memory_of_processes(settings: Settings) -> int:
    """Return the bytes of a card, or on a CPU of a machine, in which ranks have nothing for
    tensors.
    """
    ranks, outside = settings.world_size or 1, limit_of(settings, memory=1).outside
    if settings.device == "cpu":
        private = WITH_CUDA_PRIVATE if _torch_has_cuda() else 0
        return COMMAND + private + ranks * (outside - SHARED - private)
    return round(outside / (1 - FRAGMENTATION))


@cache
def _torch_has_cuda() -> bool:
    """Return whether the installed torch is a build with CUDA, by its file of versions; torch
    isn't imported.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    versions = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b.*= *['\"]", versions, re.MULTILINE) is not None


def keeps_freed(settings: Settings) -> bool:
    """Whether a rank keeps freed tensors' memory, which then doesn't fit every later tensor: on
    a CPU by default.
    """
    usual = environment.PROCESS_ENVIRONMENT[THRESHOLD]
    return settings.device == "cpu" and os.environ.get(THRESHOLD, usual) == usual


class CardMemory(NamedTuple):
    """Memory of a card, in bytes."""

    free: int  # what other processes don't hold
    total: int


def machine(settings: Settings) -> int:
    """Return the bytes that are free on the fullest card; on a CPU those of this machine, or of its
    control group where that is less.
    """
    if settings.device != "cpu":
        return min((card.free for card in _cards()), default=0)
    total, group = int(psutil.virtual_memory().total), cgroups.memory()
    return total if group is None else min(total, group.limit)


def occupied_card(settings: Settings) -> str:
    """Return a clause on the fullest card where other processes hold much of it; else nothing."""
    fullest = min(_cards(), default=None)
    if settings.device == "cpu" or fullest is None or fullest.free >= SCARCE * fullest.total:
        return ""
    return f"{gigabytes(fullest.free)} of a card's {gigabytes(fullest.total)} are free"


def _cards() -> list[CardMemory]:
    """Return the memory of the visible cards; all of it counts as free where NVML doesn't say."""
    cards = []
    for gpu in gpus.visible_gpus():
        if gpu["memory_mb"] is None:
            continue
        total = gpu["memory_mb"] * 10**6
        free = gpus.free_bytes(gpu["uuid"])
        cards.append(CardMemory(total if math.isnan(free) else int(free), total))
    return cards


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


# Foresight

DOUBTFUL_SHARE = 0.5
"""Share of a rank's memory up to which an estimate raises no doubt: methods may take more than
the estimate.
"""
TRAINED_BYTES = 8
"""Bytes per byte of the weights' files where all are trained with AdamW: 16 per weight, of 2
bytes at least.
"""
LAYER_BYTES = 68
"""Bytes that a block keeps per token and unit of width in float32: twice the 34 of half
precision (Korthikanti et al. 2022, arXiv:2205.05198, equation 2).
"""
SCORE_BYTES = 0.4
"""Further such bytes per token that each token attends to: scores, softmax and dropout of heads
of width 32.
"""
LOGIT_BYTES = 12  # bytes per logit: the logit, its softmax and its gradient


def in_doubt(settings: Settings, folder: Path) -> bool:
    """Return whether runs of resolved settings might not fit; raises what `estimate` does."""
    limit = limit_of(settings, None)
    return limit.most > 0 and estimate(settings, folder) > DOUBTFUL_SHARE * limit.tensors


def estimate(settings: Settings, folder: Path) -> float:
    """Return about the bytes of tensors that full fine-tuning of a folder's model takes."""
    # any Exception where config.json is strange, or files can't be read
    config = read_config(folder / "config.json")
    width, layers = (int(first_value(config, keys)) for keys in (WIDTH, LAYERS))
    share = settings.global_batch // (settings.world_size or 1)
    rows = settings.micro_batch if isinstance(settings.micro_batch, int) else share
    tokens = (
        max(rows, settings.eval_batch // 8) * settings.max_length
    )  # evaluations keep no activations
    per_token = layers * width * (LAYER_BYTES + SCORE_BYTES * settings.max_length)
    logits = LOGIT_BYTES * int(config.get("vocab_size", 0))
    weights = TRAINED_BYTES * sum(file.stat().st_size for file in weight_files(folder))
    return weights + tokens * (per_token + logits)
