"""Matrix products: their share of our step and the rate they reach, that is what a loop could still gain.

Run as a module, it prints how much faster the products of GPT-2's layers are on all cores than on one, and as two of
half the rows than as one.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hpml_bench.system.environment import cores
from speed import shapes
from speed.target import Target
from speed.training import Contender

ROWS = 864
"""Tokens of a batch of 16 texts of 54, which is what our batches are padded to on average."""
LAYERS = ((768, 2304), (768, 768), (768, 3072), (3072, 768), (2304, 768))
"""Inputs and outputs of GPT-2's linear layers, forward and backward."""


def measure(rounds: int, models: tuple[str, ...], methods: tuple[str, ...]) -> list[Target]:
    """Return the share for each model and method, and the ratio of the best products in the two types."""
    shares: dict[tuple[str, str], list[float]] = {}
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as name, Contender("ours") as ours:
        folder = Path(name)
        shapes.save_rows(folder / "rows")
        for model in models:
            shapes.save_model(model, folder / model)
        for _, model, method in itertools.product(range(rounds), models, methods):
            found = ours.run(folder, model, method, products=True)
            shares.setdefault((model, method), []).append(found["products"])
            ratios.append(found["gemm_gflops"] / found["float32_gflops"])
    title = "best sustained matrix product in bf16 over that in float32"
    return [
        *(_target(f"{' '.join(case)}: share of our steps in matrix products", of, "") for case, of in shares.items()),
        _target(title, ratios, "x"),
        *(_target(f"product in bf16, {case}", of, "x") for case, of in _on_all_cores().items()),
    ]


def _on_all_cores() -> dict[str, list[float]]:
    """Return what this module prints, from a process that has all cores."""
    environment = os.environ | {"OMP_NUM_THREADS": str(cores()), "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "speed.products"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def _target(name: str, values: list[float], unit: str) -> Target:
    spread = min(values), max(values)
    return Target(name, statistics.median(values), unit, None, "at least", {"values": values}, spread)


def main() -> None:
    """Print a line of JSON: for each kind of layer both ratios, five times."""
    found: dict[str, list[float]] = {}
    for inputs, outputs in LAYERS:
        case = f"[{ROWS}, {inputs}] by [{inputs}, {outputs}]"
        for _ in range(5):
            one, every, halves = _seconds(inputs, outputs)
            found.setdefault(f"{case}: all cores over one", []).append(one / every)
            found.setdefault(f"{case}: two halves over the whole, all cores", []).append(every / halves)
    print(json.dumps(found))


def _seconds(inputs: int, outputs: int) -> tuple[float, float, float]:
    """Return what a product takes on one core, on all, and on all with the rows in two halves."""
    import torch

    left, right = (torch.randn(shape).bfloat16() for shape in ((ROWS, inputs), (inputs, outputs)))
    result = torch.empty(ROWS, outputs, dtype=torch.bfloat16)
    pieces = list(zip(left.chunk(2), result.chunk(2), strict=True))

    def whole() -> None:
        torch.mm(left, right, out=result)

    def halves() -> None:
        for rows, into in pieces:
            torch.mm(rows, right, out=into)

    torch.set_num_threads(1)
    one = _median_seconds(whole)
    torch.set_num_threads(cores())
    return one, _median_seconds(whole), _median_seconds(halves)


def _median_seconds(product: Callable[[], None], times: int = 30) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
