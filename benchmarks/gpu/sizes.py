"""Memory and steps of real runs beside what `hpml-bench fit` predicts: methods, and levers on a Llama of 3B."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import fit_ratios
import torch

from gpu import Cases, alone
from gpu.steps import watched
from hpml_bench.data.prepared import Prepared
from hpml_bench.fit.limits import CUBLAS_WORKSPACE, CUBLASLT_WORKSPACE
from hpml_bench.fit.trace import blocks_that_tell, trace
from hpml_bench.plugins.group import Group
from hpml_bench.suite.settings import RunSpec, TaskSpec
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import process_group
from hpml_bench.training.trainer import Trainer

CLOSE = 0.1  # largest difference of the predicted to the real peak of a phase, relative to the latter
STEPS = 3  # steps that are timed, after one that isn't
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "full": ("full", {}),
    "prompt_tuning": ("prompt_tuning", {}),
    "adapter": ("adapter", {}),
    "lora checkpointing": ("lora", {"gradient_checkpointing": True}),
    "lora micro-batches": ("lora", {"micro_batch": 2}),
    "full checkpointing": ("full", {"gradient_checkpointing": True}),
}
WEIGHTS = {"weights": "bfloat16"}
LEVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("lora", WEIGHTS),
    "micro_batch 2": ("lora", WEIGHTS | {"micro_batch": 2}),
    "gradient_checkpointing": ("lora", WEIGHTS | {"gradient_checkpointing": True}),
    "quantization nf4": ("lora", WEIGHTS | {"quantization": "nf4"}),
    "weights float32": ("lora", {"weights": "float32"}),
}


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
    return _cases(device, size, METHODS)


def levers(device: str = "cuda", size: Size = LARGE) -> Cases:
    """Train LoRA on a Llama of 3 billion parameters, with one thing changed at a time."""
    return _cases(device, size, LEVERS)


def _cases(device: str, size: Size, runs: Mapping[str, tuple[str, dict[str, Any]]]) -> Cases:
    common = {
        "device": device, "precision": "bf16", "global_batch": size.batch, "eval_batch": size.batch,
        "max_length": size.length,
    }  # fmt: skip
    with alone() as folder:
        task = TaskSpec(name="causal_lm")
        prepared = fit_ratios.prepare(folder, task, 4 * size.batch, size.length, size.shape, device)
        for name, (method, changes) in runs.items():
            yield name, partial(compared, prepared, fit_ratios.spec_of("causal_lm", method, {}, common | changes))


def compared(prepared: Prepared, spec: RunSpec) -> dict[str, Any]:
    """Return predicted and real bytes of each phase, and what a step does; or why the run isn't tried."""
    on_gpu = spec.settings.device == "cuda"
    beside = on_gpu * (CUBLAS_WORKSPACE + CUBLASLT_WORKSPACE)
    try:
        traced = trace(spec, prepared, blocks_that_tell(spec, prepared))
        found = {phase: getattr(traced, phase) + beside for phase in fit_ratios.PHASES}
        if on_gpu and (lack := lacking(max(found.values()))):
            return {"passed": None, "skipped": lack}
        with process_group(spec.settings) as group:
            real = (on_card if on_gpu else on_cpu)(spec, prepared, group)
    except (Unsupported, UserError) as error:
        return {"passed": None, "skipped": str(error)}
    measured = {phase: real.pop(phase) for phase in fit_ratios.PHASES}
    ratios = {phase: round(found[phase] / measured[phase], 4) for phase in fit_ratios.PHASES}
    passed = all(abs(ratio - 1) <= CLOSE for ratio in ratios.values())
    return {"passed": passed, "ratios": ratios, "predicted": found, "measured": measured, **real}


def lacking(needed: int) -> str:
    """Return why a run isn't tried that wouldn't fit the card's free memory; empty where it would."""
    gc.collect()  # what earlier runs have left
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    return "" if needed <= free else f"it needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"


def on_card(spec: RunSpec, prepared: Prepared, group: Group) -> dict[str, Any]:
    """Return the peaks of a run's phases by torch's allocator, and seconds of loading and of a step."""
    peaks: dict[str, Any] = {}
    before, began = torch.cuda.memory_allocated(), time.perf_counter()

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        torch.cuda.reset_peak_memory_stats()
        yield
        peaks[name] = torch.cuda.max_memory_allocated() - before

    with phase("loading"):
        run = assemble(spec, prepared, group)
    trainer = Trainer(run)
    torch.cuda.synchronize()
    loaded = time.perf_counter() - began
    fit_ratios.train(trainer, phase)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {**peaks, "loading_seconds": loaded, "host_peak_mb": host, **watched(trainer, STEPS)}


def on_cpu(spec: RunSpec, prepared: Prepared, group: Group) -> dict[str, Any]:
    """Return the same on a CPU, by the allocator's events."""
    peaks = fit_ratios.measured(spec, prepared, group)
    trainer = Trainer(assemble(spec, prepared, group))
    trainer.model.train()
    return {**{phase: getattr(peaks, phase) for phase in fit_ratios.PHASES}, **watched(trainer, STEPS)}
