"""Memory and time of real steps beside what `hpml-bench fit` predicts: methods, and levers on a Llama of 3B."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import fit_ratios

from gpu.budget import Cases
from gpu.training import alone
from hpml_bench.data.prepared import Prepared
from hpml_bench.fit.limits import CUBLAS_WORKSPACE, CUBLASLT_WORKSPACE
from hpml_bench.plugins.group import Group, settle
from hpml_bench.suite.settings import RunSpec, TaskSpec
from hpml_bench.system.errors import Unsupported, UserError

CLOSE = 0.1
"""Largest difference of the predicted to the real peak of a phase, relative to the latter."""
STEPS = 3
"""Steps that are timed, after one that isn't."""
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "full": ("full", {}),
    "prompt_tuning": ("prompt_tuning", {}),
    "adapter": ("adapter", {}),
    "lora checkpointing": ("lora", {"gradient_checkpointing": True}),
    "lora micro-batches": ("lora", {"micro_batch": 2}),
    "full checkpointing": ("full", {"gradient_checkpointing": True}),
}
LEVERS: dict[str, dict[str, Any]] = {
    "none": {},
    "micro_batch 2": {"micro_batch": 2},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "quantization nf4": {"quantization": "nf4"},
    "weights float32": {"weights": "float32"},
}
"""Change of LoRA's settings, beside weights in bfloat16."""


@dataclass(frozen=True)
class Size:
    """A language model and its batch; without a shape that of `fit_ratios`."""

    shape: dict[str, Any] | None = None
    batch: int = fit_ratios.BATCH
    length: int = fit_ratios.LENGTH


SMALL = Size()
MEDIUM = Size(
    {"vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16,
     "num_attention_heads": 16, "num_key_value_heads": 8}, batch=16, length=512,
)  # fmt: skip
LARGE = Size(
    {"vocab_size": 128_256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
     "num_attention_heads": 24, "num_key_value_heads": 8, "tie_word_embeddings": True}, batch=8, length=512,
)  # fmt: skip
"""Llama 3.2 3B's shape."""


def fit(device: str = "cuda", size: Size = MEDIUM) -> Cases:
    """Train methods on a Llama of 280 million parameters."""
    with alone() as (_, folder):
        prepared = prepare(folder, device, size)
        for name, (method, changes) in METHODS.items():
            yield name, partial(compared, prepared, device, size, method, changes)


def levers(device: str = "cuda", size: Size = LARGE) -> Cases:
    """Train LoRA on a Llama of 3 billion parameters, with one setting changed at a time."""
    with alone() as (_, folder):
        prepared = prepare(folder, device, size)
        for name, changes in LEVERS.items():
            yield name, partial(compared, prepared, device, size, "lora", {"weights": "bfloat16"} | changes)


def prepare(folder: Path, device: str, size: Size) -> Prepared:
    """Save the model, with random weights made on the device, its tokenizer and rows."""
    return fit_ratios.prepare(folder, TaskSpec(name="causal_lm"), 4 * size.batch, size.length, size.shape, device)


def compared(prepared: Prepared, device: str, size: Size, method: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Return predicted and real bytes of each phase, and the time of a step; or why the run isn't tried."""
    from hpml_bench.fit.trace import trace
    from hpml_bench.training.distributed import process_group

    common = {
        "device": device, "precision": "bf16", "global_batch": size.batch, "eval_batch": size.batch,
        "max_length": size.length,
    }  # fmt: skip
    spec = fit_ratios.spec_of("causal_lm", method, {}, common | changes)
    beside = CUBLAS_WORKSPACE + CUBLASLT_WORKSPACE if device == "cuda" else 0
    try:
        predicted = trace(spec, prepared)
        if lack := lacking(predicted.peak + beside, device):
            return {"passed": None, "skipped": lack}
        with process_group(spec.settings) as group:
            real = (on_card if device == "cuda" else on_cpu)(spec, prepared, group)
    except (Unsupported, UserError) as error:
        return {"passed": None, "skipped": str(error)}
    peaks = {phase: getattr(predicted, phase) + beside for phase in fit_ratios.PHASES}
    ratios = {phase: round(peaks[phase] / real[phase], 4) for phase in fit_ratios.PHASES}
    passed = all(abs(ratio - 1) <= CLOSE for ratio in ratios.values())
    return {"passed": passed, "predicted_over_real": ratios, "predicted": peaks, **real}


def lacking(needed: int, device: str) -> str:
    """Return why a run isn't tried that wouldn't fit the card's free memory; empty where it would."""
    if device == "cpu":
        return ""
    import torch

    release()
    free = torch.cuda.mem_get_info()[0]
    return "" if needed <= free else f"it needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"


def release() -> None:
    """Give the card what earlier runs have left."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def on_card(spec: RunSpec, prepared: Prepared, group: Group) -> dict[str, Any]:
    """Return the peaks of a run's phases by torch's allocator, and seconds of loading and of a step."""
    import torch

    from hpml_bench.training.assembly import assemble
    from hpml_bench.training.trainer import Trainer

    peaks: dict[str, Any] = {}
    before, began = torch.cuda.memory_allocated(), time.perf_counter()

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        torch.cuda.reset_peak_memory_stats()
        yield
        peaks[name] = torch.cuda.max_memory_allocated() - before

    trainer = Trainer(assemble(spec, prepared, group))
    torch.cuda.synchronize()
    loaded = time.perf_counter() - began
    fit_ratios.train(trainer, phase)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {**peaks, "loading_seconds": loaded, "host_peak_mb": host, **timed(trainer)}


def on_cpu(spec: RunSpec, prepared: Prepared, group: Group) -> dict[str, Any]:
    """Return the same on a CPU, by the allocator's events."""
    from hpml_bench.training.assembly import assemble
    from hpml_bench.training.trainer import Trainer

    peaks = fit_ratios.measured(spec, prepared, group)
    trainer = Trainer(assemble(spec, prepared, group))
    trainer.model.train()
    return {**{phase: getattr(peaks, phase) for phase in fit_ratios.PHASES}, **timed(trainer)}


def timed(trainer: Any) -> dict[str, float]:
    """Return seconds and samples a second of a trainer's steps."""
    first, *batches = islice(trainer.order(), STEPS + 1)
    trainer.step(1, first)
    settle(trainer.group.device)
    began = time.perf_counter()
    for index, indices in enumerate(batches, start=2):
        trainer.step(index, indices)
    settle(trainer.group.device)
    seconds = (time.perf_counter() - began) / STEPS
    return {"step_seconds": seconds, "samples_per_second": trainer.settings.global_batch / seconds}
