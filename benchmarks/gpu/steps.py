"""Steps on a card, and what they take: kernels, waits and the busy share, memory by several counts.

Beside real runs stands what `hpml-bench fit` predicts, of methods and of levers on a Llama of 3B;
and its constants beside what a rank takes apart from tensors.
"""

import gc
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import fit_ratios
import torch
from speed import shapes
from torch.profiler import ProfilerActivity, profile

from gpu import Cases, alone
from helpers import tiny  # type: ignore[import-not-found]
from hpml_bench.builtin.probes.memory import nvml_used_mb
from hpml_bench.data.prepared import Prepared
from hpml_bench.fit import limits
from hpml_bench.fit.trace import blocks_that_tell, trace
from hpml_bench.plugins.group import Group, settle
from hpml_bench.suite.settings import RunSpec, TaskSpec
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.system.gpus import visible_gpus
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import process_group, uuid
from hpml_bench.training.trainer import Trainer

CLOSE = (
    0.1  # largest difference of the predicted to the real peak of a phase, relative to the latter
)
STEPS = 3  # steps that are timed, after one that isn't
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("lora", "full", "prompt_tuning", "adapter")},
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
    {
        "vocab_size": 32_000,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    batch=16,
    length=512,
)
LARGE = Size(
    {
        "vocab_size": 128_256,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    batch=8,
    length=512,
)
"""Llama 3.2 3B's shape."""


def watched(trainer: Any, steps: int) -> dict[str, Any]:
    """Return what steps do to the card: kernels, waits and busy share of one, samples/s, and three
    counts of memory.

    The clock is over `steps`, after one that isn't timed. On a CPU the kernels are torch's
    operators, all busy.
    """
    device, batches = trainer.group.device, [*islice(trainer.order(), steps + 1)]
    on_card = device.type == "cuda"
    trainer.step(1, batches[0])
    settle(device)
    began = time.perf_counter()
    for index, indices in enumerate(batches[1:], start=2):
        trainer.step(index, indices)
    settle(device)
    seconds = (time.perf_counter() - began) / steps
    found = {"step_seconds": seconds, "samples_per_second": trainer.settings.global_batch / seconds}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if on_card:
            torch.cuda.set_sync_debug_mode("warn")
        trainer.step(len(batches) + 1, batches[-1])
        if on_card:
            torch.cuda.set_sync_debug_mode("default")
    waits = [
        f"{Path(each.filename).name}:{each.lineno}"
        for each in warned
        if "synchroniz" in str(each.message)
    ]
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_card]
    with profile(activities=kinds) as profiled:
        trainer.step(len(batches) + 2, batches[-1])
        settle(device)
    events = profiled.events()
    work = [
        e
        for e in events
        if (e.device_type.name == "CUDA" if on_card else e.name.startswith("aten::"))
    ]
    found |= {"kernels": len(work), "waits": len(waits), "places": waits}
    if on_card:
        spans = [(event.time_range.start, event.time_range.end) for event in work]
        found["busy_percent"] = round(100 * covered(spans) / (seconds * 1e6), 1)
        found["allocated_mb"] = torch.cuda.max_memory_allocated() / 1e6
        found["reserved_mb"] = torch.cuda.max_memory_reserved() / 1e6
        found["nvml_mb"] = nvml_used_mb(uuid(device))
    return found


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length that spans cover together."""
    total = end = 0.0
    for begin, stop in sorted(spans):
        total += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return total


def context() -> Cases:
    """Measure what a rank takes beside tensors, and the constants that `fit` adds: estimates, so
    that none fails.
    """

    def taken(predicted: int, act: Callable[[], object]) -> dict[str, Any]:
        card = visible_gpus()[0]["uuid"].partition("-")[2]
        before = nvml_used_mb(card) or 0
        act()
        torch.cuda.synchronize()
        measured = 1e6 * ((nvml_used_mb(card) or 0) - before)
        return {"passed": True, "predicted": {"bytes": predicted}, "measured": {"bytes": measured}}

    def multiply() -> None:
        one = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
        torch.nn.functional.linear(one, one, one[0])

    def reduce() -> None:
        torch.distributed.init_process_group(
            "nccl", init_method="tcp://127.0.0.1:29577", rank=0, world_size=1
        )
        torch.distributed.all_reduce(torch.ones(2**20, device="cuda"))
        torch.cuda.synchronize()
        torch.distributed.destroy_process_group()

    yield "context", partial(taken, limits.CUDA_CONTEXT, partial(torch.zeros, 1, device="cuda"))
    yield (
        "cuBLAS",
        partial(taken, limits.CUBLAS_WORKSPACE // 2 + limits.CUBLASLT_WORKSPACE, multiply),
    )
    yield "NCCL, one rank", partial(taken, limits.NCCL_BUFFERS, reduce)


def launcher() -> Cases:
    """Train a model of real size by the harness's own launcher, and the same steps in this
    process, watched.
    """
    with alone() as folder:
        shapes.save_rows(folder / "rows", 2048)
        shapes.save_model("gpt2", folder / "gpt2")
        prepared = shapes.prepared(folder, "gpt2")
        common = {
            "global_batch": 32,
            "eval_batch": 64,
            "world_size": 1,
            "device": "cuda",
            "precision": "bf16",
        }
        for method in ("lora", "full"):
            spec = tiny.spec(method, steps=60, max_length=128, **common)
            yield f"{method} launched", partial(_launched, spec, prepared, folder / method)
            yield f"{method} in one process", partial(_stepped, spec, prepared)


def _launched(spec: Any, prepared: Any, folder: Path) -> dict[str, Any]:
    began = time.monotonic()
    record = tiny.run(spec, prepared, folder)
    seconds = time.monotonic() - began
    rate = record.metrics.get("samples_per_second")
    failed = {"error": str(record.error)} if record.error else {}
    return {
        "passed": record.status == "ok",
        **failed,
        "samples_per_second": rate,
        "wall_seconds": seconds,
        "steps_share": rate and spec.settings.steps * spec.settings.global_batch / rate / seconds,
    }


def _stepped(spec: Any, prepared: Any) -> dict[str, Any]:
    with process_group(spec.settings) as group:
        trainer = Trainer(assemble(spec, prepared, group))
        trainer.model.train()
        trainer.rehearse()
        return {"passed": True, **watched(trainer, 9)}


def fit(device: str = "cuda", size: Size = MEDIUM) -> Cases:
    """Train methods on a Llama of 280 million parameters."""
    return _cases(device, size, METHODS)


def levers(device: str = "cuda", size: Size = LARGE) -> Cases:
    """Train LoRA on a Llama of 3 billion parameters, with one thing changed at a time."""
    return _cases(device, size, LEVERS)


def _cases(device: str, size: Size, runs: Mapping[str, tuple[str, dict[str, Any]]]) -> Cases:
    common = {"device": device, "precision": "bf16", "max_length": size.length}
    common |= {"global_batch": size.batch, "eval_batch": size.batch}
    with alone() as folder:
        task = TaskSpec(name="causal_lm")
        prepared = fit_ratios.prepare(folder, task, 4 * size.batch, size.length, size.shape, device)
        for name, (method, changes) in runs.items():
            yield (
                name,
                partial(
                    compared,
                    prepared,
                    fit_ratios.spec_of("causal_lm", method, {}, common | changes),
                ),
            )


def compared(prepared: Prepared, spec: RunSpec) -> dict[str, Any]:
    """Return predicted and real bytes of each phase, and what a step does; or why the run isn't
    tried.
    """
    on_gpu = spec.settings.device == "cuda"
    beside = on_gpu * (limits.CUBLAS_WORKSPACE + limits.CUBLASLT_WORKSPACE)
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
    """Return why a run isn't tried that wouldn't fit the card's free memory; empty where it
    would.
    """
    gc.collect()  # what earlier runs have left
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    return (
        ""
        if needed <= free
        else f"it needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    )


def on_card(spec: RunSpec, prepared: Prepared, group: Group) -> dict[str, Any]:
    """Return the peaks of a run's phases by torch's allocator, and seconds of loading and of a
    step.
    """
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
    return {
        **{phase: getattr(peaks, phase) for phase in fit_ratios.PHASES},
        **watched(trainer, STEPS),
    }
