"""Training throughput against scripts with the HF Trainer, and the share of the machine's matrix products reached."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hpml_bench.environment import PROCESS_ENVIRONMENT, cores, resolve_devices
from hpml_bench.records import Settings, TaskSpec
from speed import shapes
from speed.target import Target

ASKED = {"defaults": 6.0, "dynamic": 1.6, "grouped": None}
"""Ratio of our samples/s to theirs."""
TITLES = {
    "defaults": "the HF Trainer's defaults (padded, fp32)",
    "dynamic": "the HF Trainer with dynamic padding and bf16",
    "grouped": "the HF Trainer with rows grouped by length, bf16 and our allocator settings",
}
UTILISATION = 0.5


def measure(rounds: int, rows: int, models: tuple[str, ...], methods: tuple[str, ...]) -> list[Target]:
    """Return a ratio for each model, method and opponent, and the utilisation of LoRA on GPT-2's shape.

    Within a round each contender runs once, in random order, in a process of its own.
    """
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes.save_rows(folder / "rows", rows)
        for model in models:
            shapes.save_model(model, folder / model)
            for method in methods:
                results = _rounds(folder, model, method, rounds, rows)
                found.extend(_ratios(model, method, results))
                if (model, method) == ("gpt2", "lora"):
                    found.append(_utilisation(results["ours"]))
    return found


def _rounds(folder: Path, model: str, method: str, rounds: int, rows: int) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", *ASKED)}
    for turn in range(rounds):
        order = list(results)
        random.Random(turn).shuffle(order)  # noqa: S311 - an order
        for contender in order:
            results[contender].append(contend(folder, contender, model, method, rows))
    return results


def contend(
    folder: Path, contender: str, model: str, method: str, rows: int, without: str | None = None
) -> dict[str, Any]:
    """Time one contender in a process of its own; `without` switches one of ours' levers off."""
    found = resolve_devices(Settings(backbone="path:", task=TaskSpec(name="text_files"), steps=1, world_size=1))
    enough = min(rows, 2 * shapes.BATCH) if contender == "defaults" else rows  # all its batches are alike
    job = {
        "rows": enough,
        "contender": contender, "model": model, "method": method, "folder": str(folder),
        "threads": cores(), "device": found.device, "precision": found.precision, "without": without,
    }  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k not in PROCESS_ENVIRONMENT and k != "OMP_NUM_THREADS"}
    if contender in {"ours", "grouped"} and without != "allocator":
        environment |= PROCESS_ENVIRONMENT
    environment |= {"OMP_NUM_THREADS": str(cores()), "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "speed.contender", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} on {model} with {method}: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    rate = result["samples"] / result["seconds"]
    print(
        f"  {model} {method} {contender}{f' without {without}' if without else ''}: {rate:.2f} samples/s",
        file=sys.stderr,
        flush=True,
    )
    return {**result, "samples_per_second": rate}


def _ratios(model: str, method: str, results: dict[str, list[dict[str, Any]]]) -> list[Target]:
    found = []
    for opponent, asked in ASKED.items():
        pairs = zip(results["ours"], results[opponent], strict=True)
        ratios = [ours["samples_per_second"] / theirs["samples_per_second"] for ours, theirs in pairs]
        raw = {"ours": results["ours"], opponent: results[opponent], "ratios": ratios}
        found.append(
            Target(
                f"{model} {method}: samples/s against {TITLES[opponent]}", statistics.median(ratios), "x", asked,
                "at least", raw, (min(ratios), max(ratios)),
            )
        )  # fmt: skip
    return found


def _utilisation(runs: list[dict[str, Any]]) -> Target:
    shares = [run["gflops"] / run["gemm_gflops"] for run in runs]
    return Target(
        "gpt2 lora: FLOP/s of the steps, padded tokens, over the best sustained matrix product",
        statistics.median(shares), "", UTILISATION, "at least", {"shares": shares}, (min(shares), max(shares)),
    )  # fmt: skip
