"""Memory and steps of real runs beside what `hpml-bench fit` predicts: methods, and levers on a Llama of 3B.

Predictions are made beforehand, on a machine without a card (`predict`), or else before each run.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import fit_ratios

from gpu.budget import Cases
from gpu.steps import watched
from gpu.training import alone
from hpml_bench.data.prepared import Prepared
from hpml_bench.fit.limits import CUBLAS_WORKSPACE, CUBLASLT_WORKSPACE
from hpml_bench.plugins.group import Group
from hpml_bench.suite.settings import RunSpec, TaskSpec
from hpml_bench.system.errors import Unsupported, UserError

Predictions = dict[str, dict[str, int] | str]
"""Name of a case -> predicted bytes of each phase, or why there are none."""
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
SWAPPED: dict[str, tuple[str, Any]] = {
    "keys repeated": ("transformers.integrations.sdpa_attention.use_gqa_in_sdpa", lambda *_: False),
}
"""Further levers, on rows of one length, which take no mask: what is replaced."""


@dataclass(frozen=True)
class Size:
    """A language model and its batch; without a shape that of `fit_ratios`."""

    shape: dict[str, Any] | None = None
    batch: int = fit_ratios.BATCH
    length: int = fit_ratios.LENGTH


SMALL = Size()
"""On a card: one that isn't there, which has no workspaces and computes steps with a CPU's operators."""
MEDIUM = Size(
    {"vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16,
     "num_attention_heads": 16, "num_key_value_heads": 8}, batch=16, length=512,
)  # fmt: skip
LARGE = Size(
    {"vocab_size": 128_256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
     "num_attention_heads": 24, "num_key_value_heads": 8, "tie_word_embeddings": True}, batch=8, length=512,
)  # fmt: skip
"""Llama 3.2 3B's shape."""


def fit(device: str = "cuda", size: Size = MEDIUM, predictions: Predictions | None = None) -> Cases:
    """Train methods on a Llama of 280 million parameters."""
    with alone() as (_, folder):
        prepared = prepare(folder, device, size)
        for name, (method, changes) in METHODS.items():
            found = (predictions or {}).get(name)
            yield name, partial(compared, prepared, device, size, method, changes, found)


def levers(device: str = "cuda", size: Size = LARGE, predictions: Predictions | None = None) -> Cases:
    """Train LoRA on a Llama of 3 billion parameters, with one thing changed at a time."""
    with alone() as (_, folder):
        prepared = prepare(folder, device, size)
        for name, changes in LEVERS.items():
            found = (predictions or {}).get(name)
            yield name, partial(compared, prepared, device, size, "lora", {"weights": "bfloat16"} | changes, found)
        even = prepare(folder, device, size, even=True)
        for name in ("no mask", *SWAPPED):
            yield name, partial(swapped, even, device, size, name)


def swapped(prepared: Prepared, device: str, size: Size, name: str) -> dict[str, Any]:
    """Do the same on rows of one length, with something replaced."""
    with mock.patch(*SWAPPED[name]) if name in SWAPPED else nullcontext():
        found = compared(prepared, device, size, "lora", {"weights": "bfloat16"}, None)
    return found | {"passed": found["passed"] if name == "no mask" else None if "skipped" in found else True}


def predict(device: str, small: bool) -> dict[str, Predictions]:
    """Return the predictions of all cases, by check and name: from configurations, without weights."""
    found: dict[str, Predictions] = {"fit": {}, "levers": {}}
    with alone() as (_, folder):
        for check, size in {"fit": SMALL if small else MEDIUM, "levers": SMALL if small else LARGE}.items():
            prepared = prepare(folder / check, "meta", size)
            cases = METHODS if check == "fit" else {
                name: ("lora", {"weights": "bfloat16"} | changes) for name, changes in LEVERS.items()
            }  # fmt: skip
            for name, (method, changes) in cases.items():
                found[check][name] = predicted(prepared, device, size, method, changes)
    return found


def prepare(folder: Path, device: str, size: Size, *, even: bool = False) -> Prepared:
    """Save the model, with random weights made on the device, its tokenizer and rows; on meta config.json alone."""
    rows = 5 * size.batch if even else 4 * size.batch
    return fit_ratios.prepare(
        folder, TaskSpec(name="causal_lm"), rows, size.length, size.shape, device, shortest=1.0 if even else 0.25
    )


def spec_of(device: str, size: Size, method: str, changes: dict[str, Any]) -> RunSpec:
    common = {
        "device": device, "precision": "bf16", "global_batch": size.batch, "eval_batch": size.batch,
        "max_length": size.length,
    }  # fmt: skip
    return fit_ratios.spec_of("causal_lm", method, {}, common | changes)


def predicted(
    prepared: Prepared, device: str, size: Size, method: str, changes: dict[str, Any]
) -> dict[str, int] | str:
    """Return the predicted bytes of each phase, with cuBLAS's workspaces; or why there are none."""
    from hpml_bench.fit.trace import blocks_that_tell, trace

    spec = spec_of(device, size, method, changes)
    try:
        found = trace(spec, prepared, blocks_that_tell(spec, prepared))
    except (Unsupported, UserError) as error:
        return str(error)
    beside = CUBLAS_WORKSPACE + CUBLASLT_WORKSPACE if device == "cuda" and size != SMALL else 0
    return {phase: getattr(found, phase) + beside for phase in fit_ratios.PHASES}


def compared(
    prepared: Prepared,
    device: str,
    size: Size,
    method: str,
    changes: dict[str, Any],
    carried: dict[str, int] | str | None,
) -> dict[str, Any]:
    """Return predicted and real bytes of each phase, and what a step does; or why the run isn't tried."""
    from hpml_bench.training.distributed import process_group

    found = carried or predicted(prepared, device, size, method, changes)
    if isinstance(found, str):
        return {"passed": None, "skipped": found}
    if lack := lacking(max(found.values()), device):
        return {"passed": None, "skipped": lack}
    spec = spec_of(device, size, method, changes)
    try:
        with process_group(spec.settings) as group:
            real = (on_card if device == "cuda" else on_cpu)(spec, prepared, group)
    except (Unsupported, UserError) as error:
        return {"passed": None, "skipped": str(error)}
    measured = {phase: real.pop(phase) for phase in fit_ratios.PHASES}
    ratios = {phase: round(found[phase] / measured[phase], 4) for phase in fit_ratios.PHASES}
    judged = ratios if device == "cpu" or size != SMALL else ["loading"]
    passed = all(abs(ratios[phase] - 1) <= CLOSE for phase in judged)
    return {"passed": passed, "ratios": ratios, "predicted": found, "measured": measured, **real}


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

    with phase("loading"):
        run = assemble(spec, prepared, group)
    trainer = Trainer(run)
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


def timed(trainer: Any) -> dict[str, Any]:
    """Return what a trainer's steps do (`steps.watched`)."""
    return watched(trainer, [*islice(trainer.order(), STEPS + 1)])
