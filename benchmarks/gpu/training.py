"""Training on a card: methods against the CPU, waits of the host, memory after a cast, and runs that are repeated."""

from __future__ import annotations

import importlib
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftType
from transformers import GPT2Config, GPT2Model

from gpu import Cases
from hpml_bench.builtin.methods.peft import ALIASES
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.distributed import process_group
from hpml_bench.training.trainer import Trainer

TESTS = Path(__file__).resolve().parents[2] / "tests"
CLOSE = {"fp32": 1e-3, "bf16": 0.03, "fp16": 0.03, "int8": 0.1}
"""Relative difference of losses to those in float32 on the CPU: in float32 that of sums in another order."""
STEPS = 3


@contextmanager
def alone() -> Iterator[tuple[Any, Path]]:
    """Yield the tests' helper for small models and a new folder, in the environment of a rank that is alone."""
    sys.path.append(str(TESTS))
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    with tempfile.TemporaryDirectory() as name:
        yield importlib.import_module("helpers.tiny"), Path(name)


def make_trainer(tiny: Any, prepared: Any, group: Any, method: str, options: dict[str, Any], **changes: Any) -> Any:
    """Return the trainer of three steps of a method."""
    kind = registry.plugin("methods", method)
    chosen = MethodSpec(name=method, method=method, options=kind.Options(**options).model_dump(), lr=1e-3)
    spec = tiny.spec(steps=STEPS, log_every=1, world_size=1, **changes).model_copy(update={"method": chosen})
    return Trainer.build(spec, prepared, group)


def take_steps(trainer: Any) -> list[float]:
    """Train to the end, after a rehearsal; return the losses."""
    trainer.model.train()
    trainer.rehearse()
    for index, indices in enumerate(trainer.order(), start=1):
        trainer.step(index, indices)
    return [step.loss for step in trainer.log.reduce()]


def trained(
    tiny: Any, prepared: Any, method: str, options: dict[str, Any], device: str, **changes: Any
) -> dict[str, Any]:
    """Return how three steps of a method in this process ended, their losses, and the peak of tensors on a card."""
    losses: list[float] = []
    found: dict[str, Any] = {"status": "ok", "losses": losses}
    settings, own = tiny.settings(device=device, world_size=1), not torch.distributed.is_initialized()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        with process_group(settings) as group:
            trainer = make_trainer(tiny, prepared, group, method, options, device=device, **changes)
            losses += take_steps(trainer)
    except Exception as error:
        if own and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        found |= {"status": "unsupported" if isinstance(error, Unsupported) else "failed", "error": str(error)}
    if device == "cuda":
        found["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def alike(one: dict[str, Any], other: dict[str, Any], tolerance: float = CLOSE["fp32"]) -> bool:
    """Tell whether both ended well with the same losses up to the order of sums, or the method runs on neither."""
    close = [math.isclose(a, b, rel_tol=tolerance) for a, b in zip(one["losses"], other["losses"], strict=False)]
    well = one["status"] == "unsupported" or (one["status"] == "ok" and len(close) == STEPS)
    return well and one["status"] == other["status"] and all(close)


def methods() -> Cases:
    """Train each method that trains, and each type of PEFT, for three steps on both devices."""
    own: list[tuple[str, dict[str, Any]]] = [
        (name, {}) for name in registry.names("methods") if registry.plugin("methods", name).trains
    ]
    types = [("peft", {"type": kind}) for kind in (*(kind.value for kind in PeftType), *ALIASES)]
    with alone() as (tiny, folder):
        prepared = tiny.prepared(folder)
        for method, options in [*own, *types]:
            kinds = {kind: {"precision": kind} for kind in (("fp32", "bf16", "fp16") if not options else ("fp32",))}
            if method == "lora":
                kinds["int8"] = {"quantization": "int8"}
            for kind, changes in kinds.items():
                name = f"{options.get('type', method)} {kind}"
                yield name, partial(_on_both, tiny, prepared, method, options, kind, changes)


def _on_both(
    tiny: Any, prepared: Any, method: str, options: dict[str, Any], kind: str, changes: dict[str, Any]
) -> dict[str, Any]:
    cpu, card = (trained(tiny, prepared, method, options, device, **of)
                 for device, of in (("cpu", {}), ("cuda", changes)))  # fmt: skip
    return {"passed": alike(cpu, card, CLOSE[kind]), "cpu": cpu, "cuda": card}


def repeats(device: str = "cuda") -> dict[str, Any]:
    """Train twice from one seed, with dropout; losses and trained weights must be equal to the bit."""
    found: dict[str, Any] = {}
    with alone() as (tiny, folder), process_group(tiny.settings(device=device, world_size=1)) as group:
        prepared = tiny.prepared(folder)
        for method in ("lora", "full", "prompt_tuning"):
            for precision in ("fp32", "bf16"):
                changes = {"device": device, "precision": precision, "dropout": 0.1}
                runs = []
                for _ in range(2):
                    trainer = make_trainer(tiny, prepared, group, method, {}, **changes)
                    runs.append((take_steps(trainer), [weight.detach() for weight in trainer.parameters]))
                (losses, weights), (others, again) = runs
                same = losses == others and all(map(torch.equal, weights, again))
                found[f"{method} {precision}"] = {"passed": same, "losses": [losses, others]}
    return {"passed": all(of["passed"] for of in found.values()), "runs": found}


def memory() -> dict[str, Any]:
    """Cast the frozen weights of a model of 340 MB, and look at what the allocator holds beyond tensors then."""
    with alone() as (tiny, folder), process_group(tiny.settings(device="cuda", world_size=1)) as group:
        prepared = tiny.prepared(folder)
        GPT2Model(GPT2Config(vocab_size=tiny.VOCABULARY, n_layer=12)).save_pretrained(prepared.backbone)
        _made = make_trainer(
            tiny, prepared, group, "lora", {}, device="cuda", precision="bf16"
        )  # is held until it is measured
        held, reserved = torch.cuda.memory_allocated() / 1e6, torch.cuda.memory_reserved() / 1e6
        grow = [bool(segment.get("is_expandable")) for segment in torch.cuda.memory_snapshot()]  # type: ignore[no-untyped-call]
    free = torch.cuda.mem_get_info()[0] / 1e6
    megabytes = {
        "allocated_mb": held,
        "reserved_mb": reserved,
        "free_mb": free,
        "expandable_segments": f"{sum(grow)} of {len(grow)}",
    }
    return {"passed": reserved - held < 100 and all(grow), **megabytes}
