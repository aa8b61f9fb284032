"""Steps on a card: kernels, waits and the busy share, memory by three counts, and what a run takes beside tensors."""

from __future__ import annotations

import time
import warnings
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from speed import shapes
from torch.profiler import ProfilerActivity, profile

from gpu import Cases, alone
from helpers import tiny  # type: ignore[import-not-found]
from hpml_bench.builtin.probes.memory import nvml_used_mb
from hpml_bench.fit import limits
from hpml_bench.plugins.group import settle
from hpml_bench.system.gpus import visible_gpus
from hpml_bench.training.distributed import process_group, uuid
from hpml_bench.training.trainer import Trainer


def watched(trainer: Any, steps: int) -> dict[str, Any]:
    """Return what steps do to the card: kernels, waits and busy share of one, samples/s, and three counts of memory.

    The clock is over `steps`, after one that isn't timed. On a CPU the kernels are torch's operators, all busy.
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
    waits = [f"{Path(each.filename).name}:{each.lineno}" for each in warned if "synchroniz" in str(each.message)]
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_card]
    with profile(activities=kinds) as profiled:
        trainer.step(len(batches) + 2, batches[-1])
        settle(device)
    events = profiled.events()
    work = [e for e in events if (e.device_type.name == "CUDA" if on_card else e.name.startswith("aten::"))]
    found |= {"kernels": len(work), "waits": len(waits), "places": waits}
    if on_card:
        spans = [(event.time_range.start, event.time_range.end) for event in work]
        found |= {
            "busy_percent": round(100 * covered(spans) / (seconds * 1e6), 1),
            "allocated_mb": torch.cuda.max_memory_allocated() / 1e6,
            "reserved_mb": torch.cuda.max_memory_reserved() / 1e6,
            "nvml_mb": nvml_used_mb(uuid(device)),
        }
    return found


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length that spans cover together."""
    total = end = 0.0
    for begin, stop in sorted(spans):
        total += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return total


def context() -> Cases:
    """Measure what a rank takes beside tensors, each beside the constant that `fit` adds."""
    yield "context", partial(_taken, limits.CUDA_CONTEXT, partial(torch.zeros, 1, device="cuda"))
    yield "cuBLAS", partial(_taken, limits.CUBLAS_WORKSPACE // 2 + limits.CUBLASLT_WORKSPACE, _multiply)
    yield "NCCL, one rank", partial(_taken, limits.NCCL_BUFFERS, _reduce)


def _taken(predicted: int, act: Any) -> dict[str, Any]:
    """Return the bytes by which NVML's reading grows in an act; the constants are estimates, so that none fails."""
    card = visible_gpus()[0]["uuid"].partition("-")[2]
    before = nvml_used_mb(card) or 0
    act()
    torch.cuda.synchronize()
    measured = 1e6 * ((nvml_used_mb(card) or 0) - before)
    return {"passed": True, "predicted": {"bytes": predicted}, "measured": {"bytes": measured}}


def _multiply() -> None:
    one = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
    torch.nn.functional.linear(one, one, one[0])


def _reduce() -> None:
    torch.distributed.init_process_group("nccl", init_method="tcp://127.0.0.1:29577", rank=0, world_size=1)
    torch.distributed.all_reduce(torch.ones(2**20, device="cuda"))
    torch.cuda.synchronize()
    torch.distributed.destroy_process_group()


def launcher() -> Cases:
    """Train a model of real size by the harness's own launcher, and the same steps in this process, watched."""
    with alone() as folder:
        shapes.save_rows(folder / "rows", 2048)
        shapes.save_model("gpt2", folder / "gpt2")
        prepared = shapes.prepared(folder, "gpt2")
        common = {"global_batch": 32, "eval_batch": 64, "world_size": 1, "device": "cuda", "precision": "bf16"}
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
    return {"passed": record.status == "ok", **failed, "samples_per_second": rate, "wall_seconds": seconds,
            "steps_share": rate and spec.settings.steps * spec.settings.global_batch / rate / seconds}  # fmt: skip


def _stepped(spec: Any, prepared: Any) -> dict[str, Any]:
    with process_group(spec.settings) as group:
        trainer = Trainer.build(spec, prepared, group)
        trainer.model.train()
        trainer.rehearse()
        return {"passed": True, **watched(trainer, 9)}
