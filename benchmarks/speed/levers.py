"""Gains of each speed-up (lever): our LoRA on GPT-2's shape with all of them, against the same without one.

Also the gain of one that was left out, compiled blocks, with the time of the first step.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from speed import shapes
from speed.target import Target
from speed.training import Contender

LEVERS = {
    "buckets": "batches of like lengths",
    "frozen": "frozen weights kept in bf16",
    "activation": "the fused activation",
    "dropout": "dropout's quick random numbers",
    "attention": "attention by hand where dropout is on",
    "allocator": "the allocator's settings",
}
COMPILE = "compile"
COMPILED = (("gpt2", "lora"), ("minilm", "lora"), ("minilm", "full"))
Runs = dict[str | None, list[dict[str, Any]]]


def measure(rounds: int) -> list[Target]:
    """Return factors: samples/s with a lever over samples/s without, everything else being on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes.save_rows(folder / "rows")
        for model in shapes.MODELS:
            shapes.save_model(model, folder / model)
        runs = _runs(folder, rounds, "gpt2", "lora", [None, *LEVERS])
        found = [_factor(f"gpt2 lora: {title}", runs[None], runs[lever]) for lever, title in LEVERS.items()]
        for model, method in COMPILED:
            runs = _runs(folder, rounds, model, method, [None, COMPILE])
            found += _compiled(f"{model} {method}: left out, blocks compiled by torch.compile", runs)
    return found


def _runs(folder: Path, rounds: int, model: str, method: str, levers: Sequence[str | None]) -> Runs:
    """Let contenders with one lever switched each take turns in random order."""
    runs: Runs = {lever: [] for lever in levers}
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender("ours", lever)) for lever in levers]
        for turn in range(rounds):
            for contender in random.Random(turn).sample(contenders, len(contenders)):  # noqa: S311 - an order
                runs[contender.lever].append(contender.run(folder, model, method))
    return runs


def _compiled(title: str, runs: Runs) -> list[Target]:
    """Return the factor, and the first step's time: later trainings of a process find what it has compiled."""
    first = [run["first_step_seconds"] for run in runs[COMPILE]]
    return [
        _factor(title, runs[COMPILE], runs[None]),
        Target(f"{title}, the first step", first[0], "s", None, "at most", {"first_steps": first}),
    ]


def _factor(name: str, on: list[dict[str, Any]], off: list[dict[str, Any]]) -> Target:
    pairs = zip(on, off, strict=True)
    factors = [fast["samples_per_second"] / slow["samples_per_second"] for fast, slow in pairs]
    spread = min(factors), max(factors)
    return Target(name, statistics.median(factors), "x", None, "at least", {"factors": factors}, spread)
