"""Environment of a run: devices (found without torch), versions, fingerprint, variables, and its
job and place.
"""

import os
import platform
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from hpml_bench.system import cgroups, gpus
from hpml_bench.system.packages import installed
from hpml_bench.system.redaction import SECRET_VARIABLE, redacted
from hpml_bench.system.text import digest

ENGINE, JOB, RESTART, UNIT = (
    "HPML_BENCH_ENGINE",
    "HPML_BENCH_JOB",
    "HPML_BENCH_RESTART",
    "HPML_BENCH_UNIT",
)
EXCLUSIVE, QUEUED, UNTIL = "HPML_BENCH_EXCLUSIVE", "HPML_BENCH_QUEUED", "HPML_BENCH_UNTIL"
CALL = "HPML_BENCH_CALL"  # number of the call of run-all for which a job works
CORES = "HPML_BENCH_CORES"  # CPU cores that an engine gave to this job without binding it to them
NODE = "HPML_BENCH_NODE"
SCHEDULERS = (("slurm", "SLURM_JOB_ID"), ("pbs", "PBS_JOBID"), ("lsf", "LSB_JOBID"))
"""Engines and their own variables for a job's id; for other engines it is in `HPML_BENCH_JOB`."""


@dataclass(frozen=True)
class ThisJob:
    """Job of this process."""

    engine: str
    job: str  # with letters, digits, - and _ only; equal after a requeue
    restart: int
    host: str
    pid: int
    exclusive: bool  # whether it has its nodes to itself, according to its engine
    queued: str | None  # when it was submitted; UTC, ISO 8601
    until: float | None  # end of its time limit, in seconds since 1970


def this_job() -> ThisJob:
    """Return the job of this process: by `HPML_BENCH_JOB`, else of Slurm, PBS or LSF, else by
    host and process.
    """
    host, pid = socket.gethostname(), os.getpid()
    engine, job = os.environ.get(ENGINE), os.environ.get(JOB)
    for name, variable in SCHEDULERS:
        if job is None and variable in os.environ:
            engine, job = engine or name, os.environ[variable]
    return ThisJob(
        engine=engine or "manual",
        job=plain(job or f"{host}-{pid}"),
        host=host,
        pid=pid,
        restart=_number(RESTART, "SLURM_RESTART_COUNT") or 0,
        exclusive=os.environ.get(EXCLUSIVE) == "1",
        queued=os.environ.get(QUEUED),
        until=_number(UNTIL, "SLURM_JOB_END_TIME"),
    )


def where() -> dict[str, Any] | None:
    """Return a record's entry on the job that makes it; None without a job."""
    if JOB not in os.environ:
        return None
    own = this_job()
    return {
        "engine": own.engine,
        "job": own.job,
        "restart": own.restart,
        "unit": _number(UNIT),
        "call": _number(CALL),
        "host": own.host,
        "hosts": [own.host],
        "exclusive": own.exclusive,
    }


def node_number() -> int:
    return _number(NODE, "SLURM_NODEID") or 0


def plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:80].strip("-") or "job"


def _number(*variables: str) -> int | None:
    texts = (os.environ.get(variable, "") for variable in variables)
    return next((int(text) for text in texts if re.fullmatch(r"\d{1,15}", text)), None)


PACKAGES = ("hpml-bench", "torch", "transformers", "peft", "datasets", "tokenizers", "numpy")
OPTIONAL = (
    "bitsandbytes",
)  # packages that the others import if installed: they take memory in every process of a run

PROCESS_ENVIRONMENT = {
    # Large temporaries are kept instead of being returned to the kernel at every step: fewer page
    # faults, more throughput on CPU (docs/performance.md). glibc reads these when a process starts.
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA then counts the cards as NVML does
    # else is_available() initialises CUDA, and forks can't use it
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",  # the libraries' bars, beside which ours would be torn
}

CUDA_ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
"""Allocator's option on GPUs: batches of ever new shapes fragment segments of fixed sizes. torch
prefers this name to PYTORCH_ALLOC_CONF: it is set where neither is.
"""

OF_ALLOCATOR = tuple(key for key in PROCESS_ENVIRONMENT if key.startswith(("MALLOC", "GLIBC")))
RECORDED = (*OF_ALLOCATOR, "OMP_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables in records, since costs depend on them; those below, like NCCL's, only where they
are set.
"""
RECORDED_WHERE_SET = (
    "CUDA_LAUNCH_BLOCKING",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)

Check = Literal["equal", "shown", "ignored"]
"""Use of a part of the environment: costs are compared where it is equal; it is shown; it is a
run's own.
"""
EQUAL, SHOWN, IGNORED = ({"check": check} for check in ("equal", "shown", "ignored"))


@dataclass(frozen=True)
class Environment:
    """The environment of a run, by name, type, unit and check of each part, as `describe` makes
    it for a record.
    """

    hardware: dict[str, Any] = field(
        default_factory=dict, metadata=SHOWN
    )  # compared by its fingerprint
    fingerprint: str = field(default="", metadata=EQUAL)
    node_fingerprint: str = field(default="", metadata=SHOWN)
    packages: dict[str, Any] = field(default_factory=dict, metadata=EQUAL)
    python: str = field(default="", metadata=EQUAL)
    system: str = field(default="", metadata=EQUAL)
    kernel: str = field(default="", metadata=EQUAL)
    driver: str = field(default="", metadata=EQUAL)
    libraries: dict[str, Any] = field(
        default_factory=dict, metadata=EQUAL
    )  # CUDA's libraries that torch uses
    attention: dict[str, Any] = field(default_factory=dict, metadata=SHOWN)
    """The backbone's attention as transformers names it, and the kernels that torch might take."""
    power_limits_w: list[Any] = field(default_factory=list, metadata={**EQUAL, "unit": "W"})
    process: dict[str, Any] = field(
        default_factory=dict, metadata=EQUAL
    )  # variables of allocator and threads
    threads: dict[str, Any] = field(default_factory=dict, metadata=EQUAL)
    where: dict[str, Any] = field(default_factory=dict, metadata=IGNORED)  # the job, and its hosts
    hosts: list[Any] = field(default_factory=list, metadata=IGNORED)
    residual: str = field(default="", metadata=IGNORED)
    """The type of the model's residual stream, which is the method's: a caution compares them."""
    cards: list[Any] = field(default_factory=list, metadata=IGNORED)
    """The GPUs' clocks, what slows them, and their processes, at the end of the run."""

    @classmethod
    def read(cls, recorded: Mapping[str, Any]) -> Self:
        """Return the environment in a record of any origin; a part of another type than its own
        counts as missing.
        """
        empty = cls()
        found = {part.name: recorded.get(part.name) for part in fields(cls)}
        return cls(
            **{
                name: value
                for name, value in found.items()
                if isinstance(value, type(getattr(empty, name)))
            }
        )

    @classmethod
    def names(cls, check: Check) -> tuple[str, ...]:
        return tuple(part.name for part in fields(cls) if part.metadata["check"] == check)


def set_process_environment() -> None:
    """Set the allocator and library variables for processes started from here; those the user
    set are kept.
    """
    for key, value in PROCESS_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    set_cuda_environment()


def set_cuda_environment() -> None:
    """Set the variables that CUDA and torch's allocator read at the first use of a GPU; those
    the user set are kept.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", PROCESS_ENVIRONMENT["CUDA_DEVICE_ORDER"])
    if gpus.visible_gpus() and "PYTORCH_ALLOC_CONF" not in os.environ:
        os.environ.setdefault(*CUDA_ALLOCATOR)


@cache
def _cpu() -> dict[str, str]:
    """Return model name and flags of the first CPU, from /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"model name": platform.processor()}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def processor() -> str:
    return _cpu().get("model name", platform.machine())


def affinity() -> set[int]:
    """Return the CPU cores on which this process may run; all where the kernel doesn't tell."""
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )


def cores() -> int:
    """Return the number of CPU cores this process may use: by affinity, control group's quota,
    and job's share.
    """
    allowed = len(affinity())
    if (share := os.environ.get(CORES, "")).isdigit():
        allowed = min(allowed, max(1, int(share)))
    quota = cgroups.cpus()
    return allowed if quota is None else min(allowed, max(1, int(quota)))


def has_bf16(device: str) -> bool:
    """Return whether a device, `cpu` or `cuda`, has instructions for bfloat16."""
    if device == "cuda":
        return all(float(gpu["capability"] or 0) >= 8 for gpu in gpus.visible_gpus())
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpu().get("flags", "").split()))


class NodeLayout(NamedTuple):
    """Nodes of a run over several; the first has rank 0."""

    hosts: tuple[str, ...]
    ranks_per_node: tuple[int, ...]
    interconnect: str  # network between them, with its rate if known
    unlike: tuple[str, ...] = ()  # digests of the nodes' hardware if they differ

    def parts(self) -> dict[str, Any]:
        """Return the parts on which a run's costs depend beside the first node's hardware."""
        unlike = {"unlike": list(self.unlike)} if self.unlike else {}
        per_node = list(self.ranks_per_node)
        return {
            "nodes": len(self.hosts),
            "ranks_per_node": per_node,
            "interconnect": self.interconnect,
            **unlike,
        }


def hardware() -> dict[str, Any]:
    import psutil

    return {
        "cpu": processor(),
        "architecture": platform.machine(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "gpus": [
            {key: gpu[key] for key in ("name", "memory_mb", "capability")}
            for gpu in gpus.visible_gpus()
        ],
    }


def describe(over: NodeLayout | None = None) -> dict[str, Any]:
    """Return the environment for a record: hardware and its fingerprint, versions, variables,
    threads.

    Of variables only the named ones and NCCL's are taken, so that no key or token gets into a
    record.

    Over several nodes (`over`) it covers all of them; if they are alike, `node_fingerprint` is that
    of one node.
    """
    torch: Any = sys.modules.get("torch")
    node, place = hardware(), where()
    nccl = {key for key in os.environ if key.startswith("NCCL_") and not SECRET_VARIABLE.match(key)}
    named = sorted(nccl | {*RECORDED_WHERE_SET} & {*os.environ})
    parts = node | over.parts() if over else node
    if over and place:
        place["hosts"] = list(over.hosts)
    return {
        "hardware": parts,
        "fingerprint": digest(parts, 12),
        **({"node_fingerprint": digest(node, 12)} if over and not over.unlike else {}),
        "python": platform.python_version(),
        "system": platform.platform(),
        "kernel": platform.release(),
        "packages": {name: installed(name) for name in PACKAGES}
        | {name: found for name in OPTIONAL if (found := installed(name)) is not None},
        "driver": gpus.driver(),
        "process": {key: os.environ.get(key) for key in RECORDED}
        | {key: redacted(os.environ[key]) for key in named},
        # of torch, within an operator and between operators; None where it isn't loaded
        "threads": {
            "intra_op": torch and int(torch.get_num_threads()),
            "inter_op": torch and int(torch.get_num_interop_threads()),
        },
        **_of_gpus(),
        **({} if place is None else {"where": place}),
    }


def of_run(over: NodeLayout | None = None) -> dict[str, Any]:
    """Return `describe` with the names of the run's hosts, between which costs are not compared."""
    return describe(over) | {"hosts": of_hosts(over)}


def of_hosts(over: NodeLayout | None) -> list[str]:
    return list(over.hosts) if over else [socket.gethostname()]


def _of_gpus() -> dict[str, Any]:
    """Return the versions of CUDA's libraries that torch uses, and the cards' power limits (W);
    none without a GPU.
    """
    if not gpus.visible_gpus():
        return {}
    torch: Any = sys.modules.get("torch")
    libraries: dict[str, str] = {}
    if torch is not None and torch.version.cuda is not None:  # none of these calls initialises CUDA
        libraries = {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
        libraries["cudnn_attention"] = "on" if torch.backends.cuda.cudnn_sdp_enabled() else "off"
        if torch.distributed.is_nccl_available():
            libraries["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    limits = [gpu.get("power_limit_w") for gpu in gpus.visible_gpus()]
    return {"libraries": libraries, "power_limits_w": limits, "cards": gpus.states()}
