"""Checks of a machine with NVIDIA GPUs, in the order of what is worth most in the first minutes.

    python benchmarks/on_gpu.py [--only devices,context,...] [--json FILE] [--table FILE] [--minutes 9]
                                [--wheels FOLDER]

Each check is a process of its own with a time limit, and all together end within the minutes given: what these or the
card's memory are too little for is skipped, with the reason. What is known is written after each case, as JSON and as
a table in Markdown. Where a process ends in a case, which then counts as failed, another does the cases that are left.
No network is needed: `--wheels` installs the wheels of a folder for this command alone. Without a GPU the checks that
need one are skipped, and the others are done on the CPU, on small models. Exit status 1 if a check failed.

- devices: what torch and the driver show, readings of energy and memory, and a slot of `--parallel` for each instance
  of a card in MIG mode;
- context: what a rank takes beside tensors: CUDA's context, cuBLAS's workspaces, NCCL; beside the constants of `fit`;
- tests: those marked gpu or multigpu, of the files that have some;
- launcher: GPT-2, `lora` and `full`, by the harness's own launcher, and the share of its time that steps are; the same
  steps in one process: kernels, places of waits, busy share;
- fit: peaks of real steps, evaluations and answers of a Llama of 280 million parameters within 10 % of what
  `hpml-bench fit` predicts;
- levers: the same on a Llama of 3 billion parameters with one thing changed at a time: micro-batch, checkpointing,
  quantisation, type of the weights;
- attention: gradients with a mask at lengths at which cuDNN's kernel gives NaN, against the plain kernel's;
- repeats: losses and trained weights of two trainings from one seed, equal to the bit;
- generation: answers, greedy and sampled, side by side, padded on the left, and alone, in float32 and bf16;
- memory: what stays reserved of weights after their cast to bfloat16, and whether segments grow;
- methods: three steps of each method and type of PEFT on a model of two layers, in float32 on the CPU and on a card,
  the methods in bf16, fp16 and on int8 weights too: losses and peak memory.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__" and "--wheels" in sys.argv[:-1]:
    import carried

    _installed = tempfile.TemporaryDirectory()
    carried.install(Path(sys.argv[sys.argv.index("--wheels") + 1]), Path(_installed.name))

from gpu import Cases, gathered, kernels, passed, sizes, steps, training

from hpml_bench.builtin.engines.local import slots
from hpml_bench.builtin.probes.memory import nvml_used_mb
from hpml_bench.system import environment, gpus
from hpml_bench.system.energy import gpu_joules

MARKED = re.compile(r"pytest\.mark\.(multi)?gpu\b")
TESTS = Path(__file__).resolve().parents[1] / "tests"
SECONDS = {
    "devices": 40, "context": 40, "tests": 60, "launcher": 90, "fit": 90, "levers": 120, "attention": 40,
    "repeats": 40, "generation": 60, "memory": 40, "methods": 240,
}  # fmt: skip
"""The limit of each check, in the order in which they are done."""
SLOWER = 5
"""Times those seconds on a machine without a card."""
MINUTES = 9.0
"""The limit of all checks together."""


def devices() -> dict[str, Any]:
    """Return both views of the GPUs, which must agree on number and UUIDs."""
    import torch

    from hpml_bench.training.distributed import check_gpus, uuid

    visible = gpus.visible_gpus()
    check_gpus(len(visible))
    of_torch = [uuid(torch.device("cuda", index)) for index in range(torch.cuda.device_count())]
    shared = gpus.shareable_gpus()
    parts = [slot.cards for slot in slots(len(shared), None, None)] if environment.cores() >= len(shared) else None
    same = of_torch == [gpu["uuid"].partition("-")[2] for gpu in visible]
    return {
        "passed": same and parts in (None, [(gpu["uuid"],) for gpu in shared]),
        "slots": parts,
        "torch": of_torch,
        "driver": visible,
        "joules": [str(gpu_joules(each)) for each in of_torch],
        "used_mb": [str(nvml_used_mb(each)) for each in of_torch],
        "environment": environment.describe(),
    }


def tests() -> dict[str, Any]:
    """Run the tests that need a GPU: of the files that mark some, as collecting all takes as long as these."""
    files = [str(path) for path in sorted(TESTS.rglob("test_*.py")) if MARKED.search(path.read_text(encoding="utf-8"))]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu or multigpu", *files]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    return {"passed": done.returncode == 0, "files": files, "output": done.stdout.splitlines()[-40:]}


Check = Callable[..., dict[str, Any] | Cases]
CHECKS: dict[str, Check] = {
    "devices": devices, "context": steps.context, "tests": tests, "launcher": steps.launcher, "fit": sizes.fit,
    "levers": sizes.levers, "attention": kernels.attention, "repeats": training.repeats,
    "generation": kernels.generation, "memory": training.memory, "methods": training.methods,
}  # fmt: skip
ON_CPU: dict[str, Check] = {
    "launcher": lambda: steps.launcher("cpu", "tiny", 6),
    "fit": lambda: sizes.fit("cpu", sizes.SMALL),
    "levers": lambda: sizes.levers("cpu", sizes.SMALL),
    "attention": lambda: kernels.attention("cpu"),
    "repeats": lambda: training.repeats("cpu"),
    "generation": lambda: kernels.generation("cpu"),
}
"""The checks that a machine without a card does."""


def in_child(check: str, left: float, write: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
    """Return what a check says, from a process of its own, and from another where that ends in a case.

    `left` are the seconds that it may take; `write` gets what is known so far.
    """
    most = SECONDS[check] * (1 if gpus.visible_gpus() else SLOWER)
    began, limit = time.monotonic(), min(most, left)
    found: dict[str, Any] = {"passed": False}
    with tempfile.TemporaryDirectory() as name:
        result = Path(name) / "result.json"
        command = [sys.executable, __file__, "--check", check, "--json", str(result), "--until", str(began + limit - 5)]
        while True:
            before = found.get("cases")
            write_json(result, found)
            with subprocess.Popen(command, stdout=sys.stderr) as process:
                while process.poll() is None and time.monotonic() < began + limit:
                    time.sleep(0.5)
                    found = json.loads(result.read_text()) | {"seconds": round(time.monotonic() - began, 1)}
                    write(found)
                ended = process.poll()
                process.kill()
            found |= json.loads(result.read_text())
            if ended == 0:
                return found
            if ended is None:
                over = {"passed": None, "skipped": f"only {left:.0f} s of --minutes were left"}
                return found | (over if left < most else {"passed": False, "timeout": limit})
            if found.get("cases") == before:  # it ends before its first new case
                return found | {"passed": False, "status": ended}


COLUMNS = (
    "check", "predicted", "measured", "ratio", "kernels", "waits", "busy %", "samples/s", "allocated", "reserved",
    "NVML", "passed",
)  # fmt: skip


def table(found: dict[str, Any]) -> list[str]:
    """Return a Markdown table of all cases: memory in GB, predicted and measured of the phase with the largest peak."""
    about = found.get("devices", {})
    cards = ", ".join(f"{card['name']}" for card in about.get("driver", ())) or "no card"
    software = about.get("environment", {})
    lines = [f"{cards}; driver {software.get('driver')}; torch {version('torch')}", "",
             f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]  # fmt: skip
    for check, result in found.items():
        for name, case in (result.get("cases") or {"": result}).items():
            lines.append(f"| {' | '.join(_row(f'{check} {name}'.strip(), case))} |")
    return lines


def _row(name: str, case: dict[str, Any]) -> list[str]:
    measured, predicted = (case.get(key) or {} for key in ("measured", "predicted"))
    phase = max(measured, key=lambda key: measured[key], default="")
    sizes = [of[phase] / 1e9 if phase in of else None for of in (predicted, measured)]
    ratio = sizes[0] / sizes[1] if sizes[0] and sizes[1] else None
    memory = [case[key] / 1e3 if case.get(key) else None for key in ("allocated_mb", "reserved_mb", "nvml_mb")]
    numbers = [*sizes, ratio, *map(case.get, ("kernels", "waits", "busy_percent", "samples_per_second")), *memory]
    verdict = case.get("skipped") or case.get("error") or {True: "yes", False: "no", None: ""}[case["passed"]]
    return [name, *("" if value is None else f"{value:.4g}" for value in numbers), str(verdict).replace("|", "/")[:90]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="checks, separated by commas", metavar="A,B", default=",".join(CHECKS))
    parser.add_argument("--json", type=Path, help="write the results here", metavar="FILE")
    parser.add_argument("--table", type=Path, help="write a table of the results here", metavar="FILE")
    parser.add_argument("--minutes", type=float, help="most minutes of all checks", default=MINUTES)
    parser.add_argument("--wheels", type=Path, help="install these wheels for this command", metavar="FOLDER")
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS, default=math.inf)  # by time.monotonic()
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    environment.set_process_environment()
    checks = CHECKS if gpus.visible_gpus() else ON_CPU
    if options.check:
        do_check(checks[options.check], options.json, options.until)
        return 0
    found: dict[str, Any] = {}

    def write(check: str, result: dict[str, Any]) -> None:
        found[check] = result
        if options.json:
            write_json(options.json, found)
        if options.table:
            options.table.write_text("\n".join(table(found)) + "\n")

    for check in options.only.split(","):
        if check in CHECKS and check not in checks:
            write(check, {"passed": None, "skipped": "no GPU is visible (driver, CUDA_VISIBLE_DEVICES)"})
        else:
            write(check, in_child(check, ends - time.monotonic(), partial(write, check)))
    if not options.json:
        print(json.dumps(found, indent=1))
    return 0 if passed(found.values()) is not False else 1


def do_check(check: Check, path: Path, until: float) -> None:
    """Do a check in this process, and write its cases one by one."""
    found = check()
    if not isinstance(found, dict):
        known = json.loads(path.read_text()).get("cases")
        found = gathered(found, until - time.monotonic(), known, partial(write_json, path))
    write_json(path, found)


def write_json(path: Path, found: Any) -> None:
    """Write a file whole: another process reads it meanwhile."""
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(found, indent=1, default=str) + "\n")
    whole.replace(path)


if __name__ == "__main__":
    sys.exit(main())
