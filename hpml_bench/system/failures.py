"""Causes of a rank's errors: out of memory on the host or on the GPU, a lost peer, anything else."""

from __future__ import annotations

import re
from typing import Literal

_CUDA = re.compile(
    r"\bcuda\b[^\n]{0,30}out of memory|\bCU[A-Z]+_STATUS_ALLOC_FAILED|\bCUBLAS_STATUS_NOT_INITIALIZED"
    r"|failed to cuda [a-z]*alloc",
    re.IGNORECASE,
)
"""Messages of CUDA, cuBLAS, cuDNN and NCCL, whose errors are not of torch's OutOfMemoryError.

cuBLAS says that it isn't initialised where there is no memory for its handle.
"""
_HOST = re.compile(
    r"can't allocate memory|cannot allocate memory|std::bad_alloc|\b(m|re)alloc of size \d+ failed", re.IGNORECASE
)
_LOST_PEER = re.compile(r"closed by (remote )?peer|reset by peer|broken pipe|remote process exited", re.IGNORECASE)
"""Messages of gloo and NCCL on the ranks that are left when one has ended."""


def status_of(kind: str, message: str) -> Literal["oom_cuda", "oom_host", "failed"]:
    """Return the status of a run that ended with this exception of a rank, by its class's name and its message."""
    if kind == "OutOfMemoryError" or _CUDA.search(message):
        return "oom_cuda"
    if kind.endswith("MemoryError") or _HOST.search(message):  # also Arrow's and numpy's own
        return "oom_host"
    return "failed"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception is for lack of memory, on the host or on the GPU."""
    return status_of(type(error).__name__, str(error)) != "failed"


def lost_peer(message: str) -> bool:
    """Whether a rank failed only because another one had ended."""
    return _LOST_PEER.search(message) is not None
