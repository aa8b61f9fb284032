"""Training throughput against scripts with the HF Trainer."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self, cast

from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import DatasetSpec, Settings
from hpml_bench.system.environment import PROCESS_ENVIRONMENT, cores
from speed import Target, ratio, shapes

ASKED = {"defaults": None, "dynamic": None, "grouped": 1.1}
"""Ratio of our samples/s to theirs; against the Trainer's defaults it would be that of the processor's bf16."""
TITLES = {
    "defaults": "the HF Trainer's defaults (padded, fp32)",
    "dynamic": "the HF Trainer with dynamic padding and bf16",
    "grouped": "the HF Trainer with rows grouped by length, bf16 and our allocator settings",
}
BATCHES = {"gpt2": 3, "minilm": 6}
ALIKE = {"gpt2": 1, "minilm": 2}
"""Batches that are timed; fewer of the Trainer's defaults, whose batches are all alike."""


def one_gpu() -> dict[str, str]:
    """Return the variable that leaves a process the first visible GPU: of more the Trainer makes a DataParallel."""
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]}


class Contender:
    """One of them in a process of its own, born with its environment, which waits for its turns."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        environment = {k: v for k, v in os.environ.items() if k not in PROCESS_ENVIRONMENT and k != "OMP_NUM_THREADS"}
        if self.name in {"ours", "grouped"}:
            environment |= PROCESS_ENVIRONMENT
        environment |= {"OMP_NUM_THREADS": str(cores()), "PYTHONPATH": str(Path(__file__).parent.parent)} | one_gpu()
        command = [sys.executable, "-m", "speed.contender"]
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def run(self, folder: Path, model: str, method: str) -> dict[str, Any]:
        """Let it train in the faster precision; return what `speed.contender` says, and samples/s."""
        found = resolve_devices(
            Settings(backbone="path:", dataset=DatasetSpec(name="text_files"), steps=1, world_size=1)
        )
        precision = found.precision if found.device == "cuda" else shapes.faster_precision(folder / model)
        batches = (ALIKE if self.name == "defaults" else BATCHES)[model]
        job = {
            "batches": batches, "contender": self.name, "model": model, "method": method, "folder": str(folder),
            "threads": cores(), "device": found.device, "precision": precision,
        }  # fmt: skip
        to, back = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        to.write(json.dumps(job) + "\n")
        to.flush()
        answer = back.readline()
        if not answer:
            self._log.seek(0)
            raise RuntimeError(f"{self.name} on {model} with {method}: {self._log.read().strip().splitlines()[-1]}")
        result: dict[str, Any] = json.loads(answer)
        rate = result["samples"] / result["seconds"]
        print(f"  {model} {method} {self.name}: {rate:.2f} samples/s", file=sys.stderr, flush=True)
        return {**result, "samples_per_second": rate, "precision": precision}


def measure(rounds: int, models: tuple[str, ...], methods: tuple[str, ...]) -> list[Target]:
    """Return a ratio for each model, method and opponent.

    Within a round each contender trains each model by each method once, all taking turns in random order.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        shapes.save_rows(folder / "rows")
        for model in models:
            shapes.save_model(model, folder / model)
        contenders = [stack.enter_context(Contender(name)) for name in ("ours", *ASKED)]
        for contender in contenders:  # a process's first training has memory that later ones find
            contender.run(folder, models[0], methods[0])
        results: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
        for turn in range(rounds):
            for model, method in itertools.product(models, methods):
                order = random.Random(f"{turn} {model} {method}").sample(contenders, len(contenders))  # noqa: S311
                of = results.setdefault((model, method), {name: [] for name in ("ours", *ASKED)})
                for contender in order:
                    of[contender.name].append(contender.run(folder, model, method))
    return [target for (model, method), of in results.items() for target in _ratios(model, method, of)]


def _ratios(model: str, method: str, results: dict[str, list[dict[str, Any]]]) -> list[Target]:
    found = []
    for opponent, asked in ASKED.items():
        pairs = zip(results["ours"], results[opponent], strict=True)
        ratios = [ours["samples_per_second"] / theirs["samples_per_second"] for ours, theirs in pairs]
        raw = {"ours": results["ours"], opponent: results[opponent]}
        title = TITLES[opponent].replace("bf16", results["ours"][0]["precision"])  # the faster one, on both sides
        name = f"{model} {method}: samples/s against {title}"
        found.append(ratio(name, ratios, asked, raw))
    return found
