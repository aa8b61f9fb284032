"""Training throughput against scripts with the HF Trainer."""

import itertools
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import DatasetSpec, Settings
from speed import Process, Target, faster, ratio, shapes

ASKED = {"defaults": None, "dynamic": None, "grouped": 1.1}
"""Ratio of our samples/s to theirs; against the Trainer's defaults it would be that of the
processor's bf16.
"""
TITLES = {
    "defaults": "the HF Trainer's defaults (padded, fp32)",
    "dynamic": "the HF Trainer with dynamic padding and bf16",
    "grouped": "the HF Trainer with rows grouped by length, bf16 and our allocator settings",
}
BATCHES = {"gpt2": 3, "minilm": 6}
ALIKE = {
    "gpt2": 1,
    "minilm": 2,
}  # batches that are timed; fewer of the Trainer's defaults, whose batches are all alike


def train(contender: Process, folder: Path, model: str, method: str) -> dict[str, Any]:
    """Let a contender train in the faster precision; return what it says."""
    found = resolve_devices(
        Settings(backbone="path:", dataset=DatasetSpec(name="text_files"), steps=1, world_size=1)
    )
    precision = (
        found.precision if found.device == "cuda" else shapes.faster_precision(folder / model)
    )
    batches = (ALIKE if contender.name == "defaults" else BATCHES)[model]
    job = {
        "batches": batches,
        "model": model,
        "method": method,
        "device": found.device,
        "precision": precision,
    }
    return contender.do(folder=str(folder), **job) | {"precision": precision}


def measure(rounds: int, models: tuple[str, ...], methods: tuple[str, ...]) -> list[Target]:
    """Return a ratio for each model, method and opponent; in a round each trains each once, in
    random order.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        shapes.save_rows(folder / "rows")
        for model in models:
            shapes.save_model(model, folder / model)
        names = ("ours", *ASKED)
        contenders = [
            stack.enter_context(Process(name, ours=name in {"ours", "grouped"})) for name in names
        ]
        for contender in contenders:  # a process's first training has memory that later ones find
            train(contender, folder, models[0], methods[0])
        results: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
        for turn in range(rounds):
            for model, method in itertools.product(models, methods):
                order = random.Random(f"{turn} {model} {method}").sample(  # noqa: S311
                    contenders, len(contenders)
                )
                of = results.setdefault((model, method), {name: [] for name in names})
                for contender in order:
                    of[contender.name].append(train(contender, folder, model, method))
    found = []
    for ((model, method), of), (opponent, asked) in itertools.product(
        results.items(), ASKED.items()
    ):
        ratios = faster(of["ours"], of[opponent])
        title = TITLES[opponent].replace(
            "bf16", of["ours"][0]["precision"]
        )  # the faster one, on both sides
        raw = {"ours": of["ours"], opponent: of[opponent]}
        found.append(ratio(f"{model} {method}: samples/s against {title}", ratios, asked, raw))
    return found
