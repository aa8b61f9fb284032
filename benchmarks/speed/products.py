"""How much of our step is matrix products, and how far bf16 ones outrun float32: what a loop could still gain."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from pathlib import Path

from speed import shapes
from speed.target import Target
from speed.training import Contender


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
    ]


def _target(name: str, values: list[float], unit: str) -> Target:
    spread = min(values), max(values)
    return Target(name, statistics.median(values), unit, None, "at least", {"values": values}, spread)
