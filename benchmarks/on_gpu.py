"""Checks of a machine with NVIDIA GPUs: its devices, the tests that need one, and every method on a card.

    python benchmarks/on_gpu.py [--only devices,tests,methods,...] [--json FILE] [--minutes 9] [--wheels FOLDER]

Each check is a process of its own with a time limit, and all together end within the minutes given: what these or the
card's memory are too little for is skipped, with the reason. What is known is written as JSON after each: to FILE, or
to standard output. No network is needed: `--wheels` installs the wheels of a folder for this command alone, such as
those of packages that the machine lacks. Without a GPU the checks that need one are skipped, and the others are done on
the CPU, on small models. Exit status 1 if a check failed.

- devices: what torch and the driver show, readings of energy and memory, that the fork server leaves CUDA alone, and a
  slot of `--parallel` for each instance of a card in MIG mode;
- tests: `pytest -m "gpu or multigpu"`;
- methods: three steps of each method and type of PEFT on a model of two layers, in float32 on the CPU and on a card,
  the methods in bf16, fp16 and on int8 weights too: losses and peak memory;
- generation: answers side by side, padded on the left, and alone, on a card in float32 and bf16;
- attention: gradients with a mask at lengths at which cuDNN's kernel gives NaN, against the plain kernel's;
- waits: where the host waits for the card in a step, by optimizer and precision;
- memory: what stays reserved of weights after their cast to bfloat16, and whether segments grow;
- repeats: losses and trained weights of two trainings from one seed, equal to the bit;
- fit: peaks of real steps, evaluations and answers of a Llama of 280 million parameters within 10 % of what
  `hpml-bench fit` predicts;
- levers: the same, and the time of a step, on a Llama of 3 billion parameters with one setting changed at a time:
  micro-batch, checkpointing, quantisation, type of the weights;
- trainers: samples a second against scripts with the HF Trainer, and with TRL where it is installed;
- products: rates of matrix products by precision, at a round and at an odd size, of copies, and of launches.
"""

from __future__ import annotations

import argparse
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

if __name__ == "__main__" and "--wheels" in sys.argv[:-1]:
    import carried

    _installed = tempfile.TemporaryDirectory()
    carried.install(Path(sys.argv[sys.argv.index("--wheels") + 1]), Path(_installed.name))

from gpu import kernels, others, sizes, training
from gpu.budget import Cases, gathered, passed

from hpml_bench.builtin.engines.local import slots
from hpml_bench.builtin.probes.energy import gpu_joules
from hpml_bench.builtin.probes.memory import nvml_used_mb
from hpml_bench.launch import fork_server
from hpml_bench.system import environment, gpus

TESTS = Path(__file__).resolve().parents[1] / "tests"
SECONDS = {
    "devices": 40, "products": 40, "attention": 40, "waits": 60, "memory": 60, "generation": 60, "repeats": 60,
    "trainers": 90, "fit": 90, "levers": 120, "tests": 120, "methods": 180,
}  # fmt: skip
"""The limit of each check, in the order in which they are done: those of seconds first."""
MINUTES = 9.0
"""The limit of all checks together."""


def devices() -> dict[str, Any]:
    """Return both views of the GPUs; they must agree on number and UUIDs, and no fork may inherit CUDA."""
    fork_server.start_fork_server()
    process = multiprocessing.get_context("forkserver").Process(target=_untouched)
    process.start()
    process.join()
    import torch

    from hpml_bench.training.distributed import check_gpus, uuid

    visible = gpus.visible_gpus()
    check_gpus(len(visible))
    of_torch = [uuid(torch.device("cuda", index)) for index in range(torch.cuda.device_count())]
    shared = gpus.shareable_gpus()
    parts = [slot.cards for slot in slots(len(shared), None, None)] if environment.cores() >= len(shared) else None
    same = of_torch == [gpu["uuid"].partition("-")[2] for gpu in visible]
    return {
        "passed": process.exitcode == 0 and same and parts in (None, [(gpu["uuid"],) for gpu in shared]),
        "slots": parts,
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


CHECKS: dict[str, Callable[[], dict[str, Any] | Cases]] = {
    "devices": devices, "products": kernels.products, "attention": kernels.attention, "waits": training.waits,
    "memory": training.memory, "generation": kernels.generation, "repeats": training.repeats,
    "trainers": others.trainers, "fit": sizes.fit, "levers": sizes.levers, "tests": tests, "methods": training.methods,
}  # fmt: skip
ON_CPU: dict[str, Callable[[], dict[str, Any] | Cases]] = {
    "products": lambda: kernels.products("cpu", 256),
    "attention": lambda: kernels.attention("cpu"),
    "generation": lambda: kernels.generation("cpu"),
    "repeats": lambda: training.repeats("cpu"),
    "fit": lambda: sizes.fit("cpu", sizes.SMALL),
    "levers": lambda: sizes.levers("cpu", sizes.SMALL),
}
"""The checks that a machine without a card does."""


def done(check: Callable[[], dict[str, Any] | Cases], seconds: float) -> dict[str, Any]:
    """Do a check in this process; its cases while the seconds last."""
    found = check()
    return found if isinstance(found, dict) else gathered(found, seconds)


def in_child(check: str, left: float = math.inf) -> dict[str, Any]:
    """Return what a check says, from a process of its own, or how that ended; `left` are the seconds it may take."""
    began, limit = time.monotonic(), min(SECONDS[check], left)
    with tempfile.TemporaryDirectory() as name:
        result = Path(name) / "result.json"
        command = [sys.executable, __file__, "--check", check, "--json", str(result), "--until", str(began + limit - 5)]
        try:
            ended = subprocess.run(command, stdout=sys.stderr, timeout=max(0.0, limit), check=False)
            found = json.loads(result.read_text()) if result.exists() else {"status": ended.returncode}
        except subprocess.TimeoutExpired:
            over = f"only {left:.0f} s of --minutes were left"
            found = {"passed": None, "skipped": over} if left < SECONDS[check] else {"timeout": limit}
    return {"passed": False, **found, "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    """Do the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="checks, separated by commas", metavar="A,B", default=",".join(CHECKS))
    parser.add_argument("--json", type=Path, help="write the results here", metavar="FILE")
    parser.add_argument("--minutes", type=float, help="most minutes of all checks", default=MINUTES)
    parser.add_argument("--wheels", type=Path, help="install these wheels for this command", metavar="FOLDER")
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS, default=math.inf)  # by time.monotonic()
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    checks = CHECKS if gpus.visible_gpus() else ON_CPU
    environment.set_process_environment()
    found: dict[str, Any] = {}
    for check in [options.check] if options.check else options.only.split(","):
        if options.check:
            found = done(checks[check], options.until - time.monotonic())
        elif check in CHECKS and check not in checks:
            found[check] = {"passed": None, "skipped": "no GPU is visible (driver, CUDA_VISIBLE_DEVICES)"}
        else:
            found[check] = in_child(check, ends - time.monotonic())
        text = json.dumps(found, indent=1) + "\n"
        options.json.write_text(text) if options.json else print(text, flush=True)
    return 0 if options.check or passed(found.values()) is not False else 1


if __name__ == "__main__":
    sys.exit(main())
