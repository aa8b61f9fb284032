"""Want of memory: the kernel's counters of what it killed, errors that say it, and the limits of
control groups.
"""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pynvml
import pytest
import torch

from hpml_bench.launch import launcher
from hpml_bench.launch.agent import CausePriority, priority_of
from hpml_bench.system import cgroups, errors
from hpml_bench.training import trainer
from hpml_bench.training.worker import run_error

VERSION_1 = (
    "30 23 0:28 {root} {mount} rw - cgroup cgroup rw,memory\n31 23 0:29 / /elsewhere rw - cgroup "
    "cgroup rw,cpu\n"
)
V2 = "30 23 0:28 {root} {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
EVENTS = "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which control groups are mounted; `put` writes their files."""
    for name in ("GROUPS", "MOUNTS", "MACHINE"):
        monkeypatch.setattr(cgroups, name, tmp_path / name)
    return tmp_path


def put(kernel: Path, mounts: str, groups: str, files: dict[str, str], root: str = "/") -> None:
    (kernel / "MOUNTS").write_text(mounts.format(root=root, mount=kernel / "mount"))
    (kernel / "GROUPS").write_text(groups)
    for name, text in files.items():
        path = kernel / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("mounts", "groups", "root", "counters", "count"),
    [
        (
            V2,
            "0::/mine",
            "/",
            {"mine/memory.events": EVENTS, "memory.events": EVENTS.replace("3", "9")},
            3,
        ),
        (V2, "0::/", "/", {"memory.events": EVENTS}, 3),
        (
            VERSION_1,
            "4:cpu,memory:/mine\n0::/",
            "/",
            {"memory.oom_control": CONTROL, "mine/memory.oom_control": ""},
            7,
        ),
        (
            VERSION_1,
            "4:memory:/mine",
            "/",
            {f"mine{sub}/memory.oom_control": CONTROL for sub in ("", "/a", "/b")},
            6,
        ),
        (VERSION_1, "4:memory:/box/mine", "/box", {"mine/memory.oom_control": CONTROL}, 2),
        (VERSION_1, "4:memory:/mine", "/box", {"mine/memory.oom_control": CONTROL}, 7),
        (VERSION_1 + VERSION_1, "4:memory:/mine", "/", {"mine/memory.oom_control": CONTROL}, 2),
        (VERSION_1 + V2, "4:memory:/mine\n0::/mine", "/", {"mine/memory.oom_control": CONTROL}, 2),
        ("", "", "", {}, 7),
    ],
)
def test_the_kernels_counters_are_read(
    mounts: str, groups: str, root: str, counters: dict[str, str], count: int, kernel: Path
) -> None:
    """Of the process's own control group of version 2 or 1, wherever it is mounted; else of the
    machine.
    """
    put(kernel, mounts, groups, counters, root)
    (kernel / "MACHINE").write_text("oom_kill 7\n")
    assert cgroups.oom_kills() == count


@pytest.mark.parametrize(
    ("kind", "message", "status"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", "oom_cuda"),
        (
            "AcceleratorError",
            "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'",
            "oom_cuda",
        ),
        (
            "RuntimeError",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "oom_cuda",
        ),
        (
            "RuntimeError",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            "oom_cuda",
        ),
        (
            "RuntimeError",
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
            "failed",
        ),
        (
            "DistBackendError",
            "unhandled cuda error\nLast error:\nFailed to CUDA calloc async 24 bytes",
            "oom_cuda",
        ),
        (
            "DistBackendError",
            "unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'",
            "oom_cuda",
        ),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", "failed"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "failed"),
        ("MemoryError", "", "oom_host"),
        ("ArrowMemoryError", "realloc of size 1099511627776 failed", "oom_host"),
        ("DatasetGenerationError", "malloc of size 1099511627776 failed", "oom_host"),
        (
            "_ArrayMemoryError",
            "Unable to allocate 1.00 TiB for an array with shape (1099511627776,)",
            "oom_host",
        ),
        (
            "RuntimeError",
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory",
            "oom_host",
        ),
        ("OSError", "[Errno 12] Cannot allocate memory", "oom_host"),
    ],
)
def test_errors_for_want_of_memory_are_told_apart(kind: str, message: str, status: str) -> None:
    """By the exception's class, or by what torch and the system say."""
    assert errors.status_of(kind, message) == status


def broken_cuda() -> NoReturn:
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("free", "failed_allocations", "status"),
    [
        (lambda: (100_000_000, 80 * 10**9), 0, "oom_cuda"),
        (lambda: (60 * 10**9, 80 * 10**9), 1, "oom_cuda"),
        (lambda: (60 * 10**9, 80 * 10**9), 0, "failed"),
        (broken_cuda, 0, "failed"),
    ],
)
def test_cublas_without_a_handle_is_a_lack_of_memory_with_evidence(
    free: Callable[[], tuple[int, int]],
    failed_allocations: int,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full card, or an allocation that failed before; else it follows another error, to which the
    message points, and no smaller batch is advised.
    """
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: {"num_ooms": failed_allocations})
    message = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    with (
        pytest.raises(RuntimeError) as caught,
        trainer.explain_out_of_memory("training batch", "micro_batch"),
    ):
        raise RuntimeError(message)
    told = run_error(caught.value, 0)
    lacking = status == "oom_cuda"
    assert errors.status_of(told.kind, told.message) == status
    assert ("lower micro_batch" in told.message) is lacking
    assert ("cuBLAS without a handle: look for an earlier error" in told.message) is not lacking
    assert "memory wasn't short" not in told.message  # no reading of that moment shows it


OF_EACH = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call.\nCompile with "
    "`TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)
"""What torch adds to each of CUDA's errors."""


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("CUDA error: device-side assert triggered" + OF_EACH, "device-side assert"),
        (
            "CUDA error: uncorrectable ECC error encountered" + OF_EACH,
            "uncorrectable ECC error",
        ),
        *(
            (f"NVRM: Xid (PCI:0000:10:1c): {number}, pid=1896, name=python", name)
            for number, name in (
                (48, "uncorrectable ECC error"),
                (64, "uncorrectable ECC error"),
                (94, "uncorrectable ECC error"),
                (95, "uncorrectable ECC error"),
                (79, "GPU lost"),
                (63, ""),  # a row was remapped
                (31, ""),
            )
        ),
        ("NVRM: GPU 0000:03:00.0: GPU has fallen off the bus.", "GPU lost"),
        ("Triton Error [CUDA]: an illegal memory access was encountered", "illegal memory access"),
        (
            "NCCL error in: ProcessGroupNCCL.cpp:1, unhandled cuda error\nncclUnhandledCudaError: "
            "Call to CUDA function failed.\nLast error:\nCuda failure 710 'device-side assert "
            "triggered'",
            "device-side assert",
        ),
        ("CUDA error: misaligned address" + OF_EACH, "misaligned address"),
        ("the row 'GPU is lost' has no label", ""),
        ("label 'fallen off the bus' is unknown", ""),
        ("the file Xid: 79 can't be read", ""),
        ("unknown words: uncorrectable ECC error, misaligned address, illegal memory access", ""),
        ("NVMLError_GpuIsLost: GPU is lost", "GPU lost"),
        ("CUDA error: an illegal memory access was encountered" + OF_EACH, "illegal memory access"),
        (
            "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, "
            "OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600026 milliseconds before timing out.",
            "NCCL timeout",
        ),
        ("CUDA error: unspecified launch failure" + OF_EACH, ""),
        ("CUDA out of memory. Tried to allocate 48 MiB", ""),
    ],
)
def test_a_fault_of_a_gpu_has_a_name_and_advice(message: str, name: str) -> None:
    """By the messages of torch, NCCL, NVML and the kernel's log; what torch adds to each error of
    CUDA names none, nor do the same words elsewhere, such as in a row of data.
    """
    named = [
        fault.name for fault in errors.GPU_FAULTS if f"; {fault.name}: " in errors.hint(message)
    ]
    assert named == ([name] if name else [])
    told = run_error(RuntimeError(message), 0)
    assert told.message.endswith(errors.hint(message))
    assert errors.lost_peer(told.message) is (name == "NCCL timeout")


def test_an_error_of_nvml_is_known_by_its_class() -> None:
    """Its text is the same few words that any other message may have."""
    lost = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    assert "; GPU lost: " in run_error(lost, 0).message
    assert "; GPU lost: " not in run_error(ValueError(str(lost)), 0).message


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234", True),
        (
            "ncclRemoteError: A call failed possibly due to a network error or a remote process "
            "exiting.",
            True,
        ),
        ("NCCL communicator was aborted on rank 1.", True),
        (
            "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, "
            "OpType=ALLREDUCE)",
            True,
        ),
        ("NCCL error in: ProcessGroupNCCL.cpp:94, unhandled system error", False),
    ],
)
def test_a_rank_that_lost_a_peer_says_so(message: str, lost: bool) -> None:
    """As gloo and NCCL put it; an error of its own is none of these."""
    assert errors.lost_peer(message) is lost


@pytest.mark.parametrize(
    ("message", "hinted"),
    [
        (
            "Error while creating shared memory segment /dev/shm/nccl-Ws3s (size 9637888), error: "
            "No space left",
            True,
        ),
        (
            "unable to allocate shared memory(shm) for file </torch_7_1>: No space left on device "
            "(28)",
            True,
        ),
        ("rank 1 was ended by SIGBUS", True),
        ("OSError: [Errno 28] No space left on device: 'points.jsonl'", False),
    ],
)
def test_a_full_shared_memory_is_told(message: str, hinted: bool) -> None:
    """With what a container needs, in the record of a rank that raises and of one that is ended."""
    told = run_error(RuntimeError(message), 0).message
    assert told == message + errors.hint(message)
    assert ("--shm-size" in told) is hinted


@pytest.mark.parametrize(("oom_kill", "status"), [(False, "killed"), (True, "oom_host")])
def test_a_fork_server_may_be_what_the_kernel_ends(
    oom_kill: bool, status: str, tmp_path: Path
) -> None:
    """For lack of memory, as its counter of such kills says; the ranks end with it, whatever
    they say then.
    """
    with subprocess.Popen(["true"]) as server:
        server.wait()
    found = launcher.cause(tmp_path, (1, -signal.SIGKILL), oom_kill=oom_kill, server=server.pid)
    assert found[0] == status
    assert ("for lack of memory" in found[1].message) is oom_kill
    assert priority_of(found) is CausePriority.KILLED


@pytest.mark.parametrize(
    ("name", "oom_kill", "status", "words"),
    [
        ("SIGBUS", False, "killed", "--shm-size"),
        ("SIGKILL", True, "oom_host", "for lack of memory; its"),
    ],
)
def test_a_rank_that_a_signal_ended(
    name: str, oom_kill: bool, status: str, words: str, tmp_path: Path
) -> None:
    """A bus error has the hint; a SIGKILL while the kernel's count of its own kills rises is a
    lack of memory.
    """
    found, error = launcher.cause(
        tmp_path, (1, -signal.Signals[name]), peak_mb={1: 7.0}, oom_kill=oom_kill
    )
    assert (found, error.kind) == (status, name)
    assert words in error.message


# Control groups: their limits, by version, and those of the groups that they are in

V1 = "".join(
    f"{number} 23 0:28 / {{mount}}/{name} rw - cgroup cgroup rw,{name}\n"
    for number, name in enumerate(["memory", "pids", "cpu"])
)
V1_GROUPS = "5:memory:/a/b\n4:pids:/a/b\n3:cpu,cpuacct:/a/b\n"

NO_LIMITS = (None, None, None)


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "found"),
    [
        (
            V2,
            "0::/a/b\n",
            {
                "a/b/cpu.max": "max 100000\n",
                "a/cpu.max": "250000 100000\n",
                "a/b/memory.max": "3000\n",
                "a/b/memory.current": "2000\n",
                "a/b/memory.stat": "anon 5\ninactive_file 500\n",
                "a/memory.max": "1600\n",
                "a/memory.current": "1600\n",
                "a/memory.stat": "inactive_file 100\n",
                "a/b/pids.max": "max\n",
                "a/b/pids.current": "3\n",
                "a/pids.max": "9\n",
                "a/pids.current": "4\n",
            },
            (2.5, (1600, 1500), (9, 4)),
        ),
        (
            V1,
            V1_GROUPS,
            {
                "memory/a/memory.limit_in_bytes": "700\n",
                "memory/a/memory.usage_in_bytes": "600\n",
                "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
                "cpu/a/cpu.cfs_quota_us": "150000\n",
                "cpu/a/cpu.cfs_period_us": "100000\n",
                "pids/a/pids.max": "30\n",
                "pids/a/pids.current": "10\n",
            },
            (1.5, (700, 400), (30, 10)),
        ),
        (
            V1,
            V1_GROUPS,
            {
                "memory/a/b/memory.limit_in_bytes": f"{2**63 - 4096}\n",
                "memory/a/b/memory.usage_in_bytes": "9\n",
                "memory/a/b/memory.stat": "",
                "cpu/a/b/cpu.cfs_quota_us": "-1\n",
                "cpu/a/b/cpu.cfs_period_us": "100000\n",
            },
            NO_LIMITS,
        ),
        (V2, "0::/\n", {"cpu.max": "lots\n", "memory.max": "", "pids.max": "max\n"}, NO_LIMITS),
        ("", "", {}, NO_LIMITS),
    ],
)
def test_limits_of_control_groups(
    mounts: str, groups: str, files: dict[str, str], found: tuple[object, ...], kernel: Path
) -> None:
    """The smallest quota, and the budget with the least left, of a group and those that it is in,
    in each version.

    "max", a quota of -1, a limit near 2 ** 63, and what is missing or can't be understood are none.
    """
    put(kernel, mounts, groups, files)
    assert (cgroups.cpus(), cgroups.memory(), cgroups.processes()) == found
    assert cgroups.Budget(4, 9).free == 0
