"""Devices: torch and the libraries of a rank, GPUs as torch and the driver see them, the faster precision.

torch is imported by a process of its own (`training/products.py`), since it may crash or take long.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import cache
from threading import Lock
from typing import Any

from hpml_bench.doctor.check import Found

NVML = "the driver (NVML)"
TORCH_SECONDS = 80.0
"""Time limit of the report, below that of all checks."""
UNFIT = "see the line dependencies, or install in a new environment"
_once = Lock()


def torch() -> Found:
    """Say whether the libraries of a rank can be imported."""
    report = torch_report()
    broken = report.get("torch_error") or report.get("worker_error")
    if broken:
        return Found("fail", f"can't be imported: {broken}", UNFIT)
    if report.get("worker"):
        return Found("ok", f"torch {report['torch']}, transformers, PEFT and datasets can be imported")
    if report["status"] is None:
        return Found("warn", "not imported in time", "repeat the command: a first import reads some GB from the disk")
    if report["status"] > 0:
        return Found("fail", f"can't be imported: {report['stderr']}", UNFIT)
    by = signal.Signals(-report["status"])
    advice = "see the line memory" if by == signal.SIGKILL else "install a torch for this processor and driver"
    return Found("fail", f"importing it ended its process by {by.name}", advice)


def gpus() -> Found:
    """Compare the GPUs that torch sees with those that the driver shows."""
    from hpml_bench.system.gpus import visible_gpus

    shown, report = visible_gpus(), torch_report()
    names = ", ".join(f"{gpu['name']} ({_memory(gpu['memory_mb'])})" for gpu in shown) or "none"
    if "gpus" not in report:
        return Found("warn", f"{NVML} shows {names}; torch: {report.get('gpus_error', 'no answer')}")
    seen = report["gpus"]
    if {_bare(gpu["uuid"]) for gpu in shown} != {_bare(gpu["uuid"]) for gpu in seen}:
        names += f", torch {report['torch']} sees {', '.join(gpu['name'] for gpu in seen) or 'none'}"
        advice = "install a torch for this GPU and driver (https://pytorch.org), or use --device cpu"
        return Found("warn", f"{NVML} shows {names}", advice)
    if "cuda_error" in report:
        return Found(
            "warn", f"{names}; products fail there: {report['cuda_error']}", "free the GPU, or use --device cpu"
        )
    return Found("ok", f"{names}; torch and {NVML} agree" if shown else "none; runs are on the CPU")


def precision() -> Found:
    """Compare the times of matrix products in the precisions of the CPU and of a GPU."""
    report = torch_report()
    parts = [_compared(where, report[key]) for key, where in (("cpu", "CPU"), ("cuda", "GPU")) if report.get(key)]
    return Found("ok", "; ".join(parts)) if parts else Found("warn", "not measured", "see the line torch")


def torch_report() -> dict[str, Any]:
    """Return the report, made once for all checks.

    Beside its parts it has the `status` of its process, None where that was killed as too slow, and the last line of
    its `stderr`.
    """
    with _once:
        return _report()


@cache
def _report() -> dict[str, Any]:
    from hpml_bench.system import child

    command = [sys.executable, *child.module("hpml_bench.training.products")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
        try:
            output, messages = process.communicate(timeout=TORCH_SECONDS)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            (output, messages), status = process.communicate(), None
    last = messages.decode(errors="replace").strip().splitlines()[-1:]
    found: dict[str, Any] = {"status": status, "stderr": "".join(last)}
    for line in output.splitlines(keepends=True):
        found |= json.loads(line) if line.endswith(b"\n") else {}  # else its process ended meanwhile
    return found


def _compared(where: str, seconds: dict[str, float]) -> str:
    """Return how many times as fast as the slowest precision the others are, the fastest first."""
    slowest, *others = sorted(seconds, key=lambda name: -seconds[name])
    times = [f"{name} {seconds[slowest] / seconds[name]:.2g} times" for name in reversed(others)]
    return f"{where}: products in {' and '.join(times)} as fast as in {slowest}"


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").removeprefix("MIG-")


def _memory(megabytes: int | None) -> str:
    return "memory not known" if megabytes is None else f"{megabytes / 1000:,.1f} GB"
