"""Checks of a machine with NVIDIA GPUs, in the order of what is worth most in the first minutes.

    python benchmarks/on_gpu.py [--only context,launcher,...] [--json FILE] [--minutes 9]

Each check is a process of its own with a time limit, and all together end within the minutes given:
what these or the card's memory are too little for is skipped, with the reason. What is known is
written after each case, as JSON, with the card and the software. Where a process ends in a case,
which then counts as failed, another does the cases that are left. No network is needed. Without a
GPU the checks that need one are skipped, and the others are done on the CPU, on small models. Exit
status 1 if a check failed.

- context: what a rank takes beside tensors: CUDA's context, cuBLAS's workspaces, NCCL; beside the
  constants of `fit`;
- launcher: GPT-2, `lora` and `full`, by the harness's own launcher, and the share of its time that
  steps are; the same steps in one process: kernels, places of waits, busy share;
- fit: peaks of real steps, evaluations and answers of a Llama of 280 million parameters within 10 %
  of what `hpml-bench fit` predicts;
- levers: the same on a Llama of 3 billion parameters with one thing changed at a time: micro-batch,
  checkpointing, quantisation, type of the weights;
- attention: gradients with a mask at lengths at which cuDNN's kernel gives NaN, against the plain
  kernel's;
- generation: answers, greedy and sampled, side by side, padded on the left, and alone, in float32
  and bf16;
- methods: three steps of each method and type of PEFT on a model of two layers, in float32 on the
  CPU and on a card, the methods in bf16, fp16 and on int8 weights too: losses.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gpu import Cases, gathered, numbers, passed, steps

from hpml_bench.system import environment, gpus
from hpml_bench.system.files import write_atomically

Check = Callable[[], Cases]
CHECKS: dict[str, tuple[float, Check]] = {
    "context": (40, steps.context),
    "launcher": (90, steps.launcher),
    "fit": (90, steps.fit),
    "levers": (120, steps.levers),
    "attention": (40, numbers.attention),
    "generation": (60, numbers.generation),
    "methods": (240, numbers.methods),
}
"""The limit in seconds of each check, and its cases, in the order in which they are done."""
ON_CPU: dict[str, Check] = {
    **{
        name: partial(of, "cpu", steps.SMALL)
        for name, of in (("fit", steps.fit), ("levers", steps.levers))
    },
    "attention": partial(numbers.attention, "cpu"),
    "generation": partial(numbers.generation, "cpu"),
}
"""The checks that a machine without a card does, for which it gets SLOWER times those seconds."""
SLOWER = 5


def in_child(check: str, left: float, options: argparse.Namespace) -> None:
    """Do a check in a process of its own, and in another what is left where that ends in a case,
    within `left` s.
    """
    most = CHECKS[check][0] * (1 if gpus.visible_gpus() else SLOWER)
    limit = min(most, left)
    ends = time.monotonic() + limit
    command = [
        sys.executable,
        __file__,
        "--check",
        check,
        "--json",
        str(options.json),
        "--until",
        str(ends - 5),
    ]
    write(options, check, {"passed": False, "cases": {}})
    status, before = 1, None
    while (
        status and (known := read(options)[check]) != before
    ):  # not again where it ends before its first new case
        before = known
        try:
            done = subprocess.run(
                command, stdout=sys.stderr, timeout=ends - time.monotonic(), check=False
            )
        except subprocess.TimeoutExpired:
            over = {"passed": None, "skipped": f"only {left:.0f} s of --minutes were left"}
            write(
                options,
                check,
                known
                | (over if left < most else {"passed": False, "error": f"over {limit:.0f} s"}),
            )
            return
        status = done.returncode
    if status:
        write(options, check, known | {"passed": False, "error": f"it ends with status {status}"})


def read(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is known: check -> whether it passed, and its cases."""
    return dict(json.loads(options.json.read_text()))


def write(options: argparse.Namespace, check: str, result: dict[str, Any]) -> None:
    """Write what is known of a check among the others, whole: the process may end at any time."""
    write_atomically(
        options.json, json.dumps(read(options) | {check: result}, indent=1, default=str) + "\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", help="checks, separated by commas", metavar="A,B", default=",".join(CHECKS)
    )
    parser.add_argument("--json", type=Path, help="write the results here", metavar="FILE")
    parser.add_argument("--minutes", type=float, help="most minutes of all checks", default=9.0)
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # by time.monotonic()
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    environment.set_process_environment()
    checks = {name: check for name, (_, check) in CHECKS.items()} if gpus.visible_gpus() else ON_CPU
    if options.check:
        known = read(options)[options.check]["cases"]
        save = partial(write, options, options.check)
        save(gathered(checks[options.check](), options.until - time.monotonic(), known, save))
        return 0
    with tempfile.TemporaryDirectory() as name:
        shown, options.json = options.json is None, options.json or Path(name) / "found.json"
        options.json.write_text("{}")
        write(
            options,
            "about",
            {"passed": None, "cards": gpus.visible_gpus(), "environment": environment.describe()},
        )
        for check in options.only.split(","):
            if check in checks or check not in CHECKS:
                in_child(check, ends - time.monotonic(), options)
            else:
                lacking = "no GPU is visible (driver, CUDA_VISIBLE_DEVICES)"
                write(options, check, {"passed": None, "skipped": lacking})
        found = read(options)
    if shown:
        print(json.dumps(found, indent=1))
    return 0 if passed(found.values()) is not False else 1


if __name__ == "__main__":
    sys.exit(main())
