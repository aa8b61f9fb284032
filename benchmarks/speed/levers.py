"""What each lever brings: our LoRA on GPT-2's shape as it is, against the same with one thing put back."""

from __future__ import annotations

import random
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

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


def measure(rounds: int, model: str = "gpt2", method: str = "lora") -> list[Target]:
    """Return each lever's factor: samples/s with it over samples/s without, everything else being on."""
    rates: dict[str | None, list[float]] = {lever: [] for lever in (None, *LEVERS)}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        shapes.save_rows(folder / "rows")
        shapes.save_model(model, folder / model)
        contenders = [stack.enter_context(Contender("ours", lever)) for lever in rates]
        for turn in range(rounds):
            for contender in random.Random(turn).sample(contenders, len(contenders)):  # noqa: S311 - an order
                rates[contender.without].append(contender.run(folder, model, method)["samples_per_second"])
    found = []
    for lever, title in LEVERS.items():
        factors = [on / off for on, off in zip(rates[None], rates[lever], strict=True)]
        spread = min(factors), max(factors)
        name = f"{model} {method}: {title}"
        found.append(Target(name, statistics.median(factors), "x", None, "at least", {"factors": factors}, spread))
    return found
