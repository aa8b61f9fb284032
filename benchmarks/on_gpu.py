"""Checks of a machine with NVIDIA GPUs: its devices, the tests that need one, and every method on a card.

    python benchmarks/on_gpu.py [--only devices,tests,methods] [--json FILE]

Each check is a process of its own with a time limit. What is known is written as JSON after each: to FILE, or to
standard output. Exit status 1 if a check failed, 2 if there is no GPU.

- devices: what torch and the driver show, readings of energy and memory, and that the fork server leaves CUDA alone;
- tests: `pytest -m "gpu or multigpu"`;
- methods: three steps of each on a model of two layers, in float32 on the CPU and on a card: losses and peak memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpml_bench import registry
from hpml_bench.launch import fork_server, launcher
from hpml_bench.probes.energy import gpu_joules
from hpml_bench.probes.memory import nvml_used_mb
from hpml_bench.records.points import read_points
from hpml_bench.system import environment, gpus

TESTS = Path(__file__).resolve().parents[1] / "tests"
SECONDS = {"devices": 60, "tests": 240, "methods": 240}
"""The limit of each check."""
CLOSE = 1e-3
"""Relative difference of losses in float32 between devices: that of sums in another order."""


def devices() -> dict[str, Any]:
    """Return both views of the GPUs; they must agree on number and UUIDs, and no fork may inherit CUDA."""
    fork_server.start_fork_server()
    process = multiprocessing.get_context("forkserver").Process(target=_untouched)
    process.start()
    process.join()
    import torch

    from hpml_bench.training.cuda import check_gpus, uuid

    visible = gpus.visible_gpus()
    check_gpus(len(visible))
    of_torch = [uuid(torch.device("cuda", index)) for index in range(torch.cuda.device_count())]
    return {
        "passed": process.exitcode == 0 and of_torch == [gpu["uuid"].partition("-")[2] for gpu in visible],
        "fork_server_untouched": process.exitcode == 0,
        "torch": of_torch,
        "driver": visible,
        "joules": [str(gpu_joules(each)) for each in of_torch],
        "used_mb": [str(nvml_used_mb(each)) for each in of_torch],
        "environment": environment.describe(),
    }


def _untouched() -> None:
    """End with status 0 if the process that this one was forked from has not initialised CUDA."""
    import torch

    sys.exit(int(torch.cuda._is_in_bad_fork()))


def tests() -> dict[str, Any]:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu or multigpu", str(TESTS)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    return {"passed": done.returncode == 0, "output": done.stdout.splitlines()[-40:]}


def methods() -> dict[str, Any]:
    """Train each method that trains for three steps on both devices."""
    sys.path.append(str(TESTS))
    tiny = importlib.import_module("helpers.tiny")

    fork_server.start_fork_server()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = tiny.prepared(folder)
        for method in (name for name in registry.names("methods") if registry.plugin("methods", name).trains):
            of: dict[str, Any] = {}
            for device in ("cpu", "cuda"):
                spec = tiny.spec(method, device=device, world_size=1, steps=3, log_every=1)
                record = launcher.run(spec, prepared, folder / f"{method}-{device}")
                of[device] = {
                    "status": record.status,
                    "error": record.error and record.error.message,
                    "losses": [p.value for p in read_points(folder / f"{method}-{device}") if p.metric == "train_loss"],
                    "peak_memory_mb": record.metrics.get("peak_memory_mb"),
                }
            found[method] = of | {"passed": _alike(of["cpu"], of["cuda"])}
    return {"passed": all(of["passed"] for of in found.values()), "methods": found}


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether both ended well with the same losses up to the order of sums, or the method runs on neither."""
    close = [math.isclose(a, b, rel_tol=CLOSE) for a, b in zip(one["losses"], other["losses"], strict=False)]
    well = one["status"] == "unsupported" or (one["status"] == "ok" and len(close) == 3)
    return well and one["status"] == other["status"] and all(close)


CHECKS: dict[str, Callable[[], dict[str, Any]]] = {"devices": devices, "tests": tests, "methods": methods}


def in_child(check: str) -> dict[str, Any]:
    """Return what a check says, from a process of its own, or how that ended."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        result = Path(name) / "result.json"
        command = [sys.executable, __file__, "--check", check, "--json", str(result)]
        try:
            done = subprocess.run(command, stdout=sys.stderr, timeout=SECONDS[check], check=False)
            found = json.loads(result.read_text()) if result.exists() else {"status": done.returncode}
        except subprocess.TimeoutExpired:
            found = {"timeout": SECONDS[check]}
    return {"passed": False, **found, "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    """Do the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="checks, separated by commas", metavar="A,B", default=",".join(CHECKS))
    parser.add_argument("--json", type=Path, help="write the results here", metavar="FILE")
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not gpus.visible_gpus():
        print("on_gpu.py: no GPU is visible (driver, CUDA_VISIBLE_DEVICES); run it where there is one", file=sys.stderr)
        return 2
    environment.set_process_environment()
    found: dict[str, Any] = {}
    for check in [options.check] if options.check else options.only.split(","):
        found = CHECKS[check]() if options.check else found | {check: in_child(check)}
        text = json.dumps(found, indent=1) + "\n"
        options.json.write_text(text) if options.json else print(text, flush=True)
    return 0 if options.check or all(of["passed"] for of in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
