"""What each lever brings: our LoRA on GPT-2's shape as it is, against the same with one thing put back.

And what one that was left out would bring: blocks compiled, with the time until the first step has been taken.
"""

from __future__ import annotations

import random
import statistics
import tempfile
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


def measure(rounds: int, model: str = "gpt2", method: str = "lora") -> list[Target]:
    """Return each lever's factor: samples/s with it over samples/s without, everything else being on."""
    runs: dict[str | None, list[dict[str, Any]]] = {lever: [] for lever in (None, *LEVERS, COMPILE)}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        shapes.save_rows(folder / "rows")
        shapes.save_model(model, folder / model)
        contenders = [stack.enter_context(Contender("ours", lever)) for lever in runs]
        for turn in range(rounds):
            for contender in random.Random(turn).sample(contenders, len(contenders)):  # noqa: S311 - an order
                runs[contender.lever].append(contender.run(folder, model, method))
    rates = {lever: [run["samples_per_second"] for run in of] for lever, of in runs.items()}
    found = [_factor(f"{model} {method}: {title}", rates[None], rates[lever]) for lever, title in LEVERS.items()]
    title = f"{model} {method}: left out, blocks compiled by torch.compile"
    first = runs[COMPILE][0]["warm_up_seconds"]  # later ones find what this process has compiled
    return [
        *found,
        _factor(title, rates[COMPILE], rates[None]),
        Target(f"{title}, the first step", first, "s", None, "at most"),
    ]


def _factor(name: str, on: list[float], off: list[float]) -> Target:
    factors = [a / b for a, b in zip(on, off, strict=True)]
    spread = min(factors), max(factors)
    return Target(name, statistics.median(factors), "x", None, "at least", {"factors": factors}, spread)
