"""Errors with a meaning of their own, and what an error of a rank says of its cause."""

import re
from typing import Literal, NamedTuple


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
    r"|failed to cuda [a-z]*alloc"
)
"""Out-of-memory messages of CUDA, cuBLAS, cuDNN and NCCL, which don't raise torch's
OutOfMemoryError.
"""
_WITHOUT_HANDLE = re.compile(r"\bCUBLAS_STATUS_NOT_INITIALIZED")
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


_CUDA_ERROR = (
    r"(?i:\bcuda( \w+)? (error|failure)\b|\[CUDA\]|\bCUDA_ERROR_\w+|\bcudaError\w+)[^\n]{0,40}?"
)
"""What stands before the text of an error of CUDA: torch's "CUDA error: ", NCCL's "Cuda failure
719 '", Triton's "Triton Error [CUDA]: ", or the error's own name.
"""
_KERNEL = r"\bNVRM: [^\n]{0,80}?"
"""What stands before the text in a line of the kernel's log: NVIDIA's driver."""
_XID = r"\bNVRM: Xid\b[^:\n]*(?::[^:\n]*){0,3}: "
"""What stands before the number of an Xid in the kernel's log."""


class GpuFault(NamedTuple):
    """A failure of a GPU that messages name."""

    name: str
    message: re.Pattern[str]  # torch's, NCCL's, NVML's, or a line of the kernel's log
    advice: str


GPU_FAULTS = (
    GpuFault(
        "device-side assert",
        # not "device-side assertions", which torch mentions in each of CUDA's errors
        re.compile(f"{_CUDA_ERROR}device-side assert triggered"),
        "an index lies outside of its tensor, such as a token or a label beyond the model's; "
        "CUDA_LAUNCH_BLOCKING=1, or a run on a CPU, shows which",
    ),
    GpuFault(
        "uncorrectable ECC error",
        # not Xid 63: the row was remapped, and nothing failed
        re.compile(rf"{_CUDA_ERROR}uncorrectable ECC error|{_XID}(48|64|94|95)\b"),
        "the GPU's memory failed; look for Xid 48, 64, 94 or 95 in dmesg, and have the GPU "
        "reset before it is used again",
    ),
    GpuFault(
        "GPU lost",
        re.compile(
            rf"{_KERNEL}fallen off the bus|{_XID}79\b"
            r"|\bNVMLError_GpuIsLost\b|\bNVML\w*: GPU is lost"
        ),
        "the machine no longer reaches its GPU (Xid 79 in dmesg); restart the machine, and have "
        "its power, cooling and slot checked if it happens again",
    ),
    GpuFault(
        "illegal memory access",
        re.compile(f"{_CUDA_ERROR}illegal memory access"),
        "a kernel left its memory; CUDA_LAUNCH_BLOCKING=1 shows which, and whose library it is",
    ),
    GpuFault(
        "misaligned address",
        re.compile(f"{_CUDA_ERROR}misaligned address"),
        "a kernel read or wrote at an address that isn't a multiple of the value's size; "
        "CUDA_LAUNCH_BLOCKING=1 shows which, and whose library it is",
    ),
    GpuFault(
        "NCCL timeout",
        re.compile(r"\bWatchdog caught collective operation timeout: WorkNCCL\b"),
        "a rank didn't take part in time; the other ranks' logs show where each was, and "
        "NCCL_DEBUG=INFO shows the network",
    ),
    GpuFault(
        "cuBLAS without a handle",
        re.compile(f"{_CUDA_ERROR}{_WITHOUT_HANDLE.pattern}"),
        "look for an earlier error in the log, and let hpml-bench doctor compare driver and CUDA",
    ),
)
"""Faults by their messages, the first that fits counts (NVIDIA, "XID Errors",
docs.nvidia.com/deploy/xid-errors; CUDA's cudaGetErrorString; torch's ProcessGroupNCCL.cpp).
"""


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
    """Return advice on an error, to append to its message; empty if there is none.

    `message`: the error's, behind the name of its class where it is an exception.
    """
    if _SHARED_MEMORY.search(message):
        return (
            "; /dev/shm may be full: give the container more of it (docker run --shm-size=8g, or "
            "--ipc=host)"
        )
    fault = next((fault for fault in GPU_FAULTS if fault.message.search(message)), None)
    return "" if fault is None else f"; {fault.name}: {fault.advice}"


def without_cublas_handle(message: str) -> bool:
    """Return whether cuBLAS couldn't make its handle: for lack of memory, after a device-side
    assert, or under a driver that doesn't fit.
    """
    return _WITHOUT_HANDLE.search(message) is not None


def lost_peer(message: str) -> bool:
    """Return whether a rank failed only because another one had ended."""
    return _LOST_PEER.search(message) is not None
