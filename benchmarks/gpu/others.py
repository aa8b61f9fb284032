"""Steps of the harness against those of a plain script with the HF Trainer, and with TRL where it is installed."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speed import language, shapes
from speed.training import Contender

from gpu.budget import Cases


def trainers() -> Cases:
    """Train LoRA on GPT-2's shape beside the HF Trainer, and on SmolLM2's beside TRL."""
    yield "HF Trainer, GPT-2", against_trainer
    yield "TRL, SmolLM2-135M", against_trl


def against_trainer() -> dict[str, Any]:
    """Return samples a second of a classifier's training, after one that isn't counted; the HF Trainer in bf16 too."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        shapes.save_rows(folder / "rows")
        shapes.save_model("gpt2", folder / "gpt2")
        contenders = [stack.enter_context(Contender(name)) for name in ("ours", "dynamic", "grouped")]
        for contender in contenders:
            contender.run(folder, "gpt2", "lora")
        return ratios({each.name: each.run(folder, "gpt2", "lora")["samples_per_second"] for each in contenders})


def against_trl(device: str = "cuda") -> dict[str, Any]:
    """Return samples a second of a language model's training, both in bf16."""
    if find_spec("trl") is None:
        return {"passed": None, "skipped": "TRL is not installed: pip install trl, or carry its wheel (--wheels)"}
    with tempfile.TemporaryDirectory() as name:
        language.save(Path(name))
        runs = {each: language.run(each, Path(name), device) for each in ("ours", "trl_grouped_bf16")}
    return ratios({each: run["samples"] / run["seconds"] for each, run in runs.items()})


def ratios(rates: dict[str, float]) -> dict[str, Any]:
    """Return rates, and ours over each other; slower than any of the others is a failure."""
    over = {name: rates["ours"] / rate for name, rate in rates.items() if name != "ours"}
    return {"passed": min(over.values()) >= 1, "samples_per_second": rates, "ours_over": over}
