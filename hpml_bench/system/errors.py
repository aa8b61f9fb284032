"""Errors with a meaning of their own, and what an error of a rank says of its cause."""

import re
from typing import Literal


class UserError(Exception):
    """A mistake the user can fix: one sentence with what, where and what to do. Ends with status
    2, no traceback.
    """

    def __init__(self, sentence: object) -> None:
        """Keep it as one line: quoted text may have line breaks."""
        super().__init__(" ".join(str(sentence).splitlines()))


class Unsupported(Exception):  # noqa: N818 - a result, shown as a row of the report
    """A method can't run with this model: the reason, in one sentence. The run is recorded as
    `unsupported`.
    """


class Diverged(Exception):  # noqa: N818
    """The training loss became NaN or infinite; raised on all ranks at the same step."""


class ProgramFailed(Exception):  # noqa: N818
    """A program that a run's method starts failed: how, and the end of its output."""


class ProgramMemoryError(ProgramFailed):
    """It failed for lack of memory."""


_CUDA = re.compile(
    r"(?i)\bcuda\b[^\n]{0,30}out of memory|\bCU[A-Z]+_STATUS_(?:\w+_)?ALLOC(?:ATION)?_FAILED"
    r"|\bCUBLAS_STATUS_NOT_INITIALIZED|failed to cuda [a-z]*alloc"
)
"""Out-of-memory messages of CUDA, cuBLAS, cuDNN and NCCL, which don't raise torch's
OutOfMemoryError.

cuBLAS reports that it isn't initialised if there is no memory for its handle.
"""
_HOST = re.compile(
    r"(?i)can't allocate memory|cannot allocate memory|std::bad_alloc|\b(m|re)alloc of size \d+ "
    r"failed"
)
_LOST_PEER = re.compile(
    r"(?i)closed by (remote )?peer|reset by peer|broken pipe|remote process "
    r"(exited|exiting)|communicator was aborted"
    r"|watchdog caught collective"
)
"""Messages of gloo and NCCL on the remaining ranks when one has ended or doesn't answer."""
_DEVICE = re.compile(
    r"(?i)\b(cuda|nccl)\b( \w+)? (error|failure)|\bcublas|\bcudnn|\bCU[A-Z]+_STATUS_|same device"
)
"""Messages of CUDA's errors and its libraries', and torch's where tensors are on two devices."""
_SHARED_MEMORY = re.compile(r"/dev/shm|shared memory\b.*No space left|\bSIGBUS\b", re.DOTALL)  # noqa: S108
"""Messages of NCCL and torch, and the signal, where shared memory has run out."""


def status_of(kind: str, message: str) -> Literal["oom_cuda", "oom_host", "failed"]:
    """Return the status of a run that ended with this exception of a rank, by its class's name
    and its message.
    """
    if kind == "OutOfMemoryError" or _CUDA.search(message):
        return "oom_cuda"
    if kind.endswith("MemoryError") or _HOST.search(message):  # also Arrow's and numpy's own
        return "oom_host"
    return "failed"


def out_of_memory(error: BaseException) -> bool:
    return status_of(type(error).__name__, str(error)) != "failed"


def of_machine(error: BaseException) -> bool:
    """Return whether an exception is for lack of memory or of the GPU or its libraries: no
    reason to refuse a model.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return (
        "AcceleratorError" in kinds
        or _DEVICE.search(str(error)) is not None
        or out_of_memory(error)
    )


def hint(message: str) -> str:
    """Return advice on an error, to append to its message; empty if there is none."""
    if _SHARED_MEMORY.search(message):
        return (
            "; /dev/shm may be full: give the container more of it (docker run --shm-size=8g, or "
            "--ipc=host)"
        )
    return ""


def lost_peer(message: str) -> bool:
    """Return whether a rank failed only because another one had ended."""
    return _LOST_PEER.search(message) is not None
