"""What `precision: auto` takes on this CPU, and whether it is the faster one: training in both, in turns.

    python benchmarks/precision.py [ROUNDS]

LoRA on the shapes of GPT-2 and MiniLM. Exit status 1 if `auto` took the slower one by more than a tenth.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from speed import shapes
from speed.training import Contender

SLOWER = 0.9
"""Least ratio of the speed in what `auto` takes to that in the other."""


def main() -> int:
    """Print a line of JSON a model."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    wrong = 0
    with tempfile.TemporaryDirectory() as name, Contender("ours") as ours:
        folder = Path(name)
        shapes.save_rows(folder / "rows")
        for model in shapes.MODELS:
            shapes.save_model(model, folder / model)
            measured = shapes.timed_products(folder / model)
            rates: dict[str, list[float]] = {"fp32": [], "bf16": []}
            for turn in range(rounds + 1):
                for precision, found in rates.items():
                    rate = ours.run(folder, model, "lora", precision=precision)["samples_per_second"]
                    if turn:  # the first warms up
                        found.append(rate)
            ratio = statistics.median(b / a for a, b in zip(rates["fp32"], rates["bf16"], strict=True))
            taken = measured.precision
            print(json.dumps({"model": model, "auto": str(measured), "bf16 over fp32, samples/s": ratio, **rates}))
            wrong += (ratio if taken == "bf16" else 1 / ratio) < SLOWER
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
