"""Checks of a machine with NVIDIA GPUs: its devices, the tests that need one, and every method on a card.

    python benchmarks/on_gpu.py [--only devices,tests,methods,...] [--json FILE] [--minutes 9] [--wheels FOLDER]

Each check is a process of its own with a time limit, and all together end within the minutes given. What is known is
written as JSON after each: to FILE, or to standard output. No network is needed: `--wheels` installs the wheels of a
folder for this command alone, such as those of packages that the machine lacks. Without a GPU the checks that need one
are skipped, and those of numbers are done on the CPU. Exit status 1 if a check failed.

- devices: what torch and the driver show, readings of energy and memory, that the fork server leaves CUDA alone, and a
  slot of `--parallel` for each instance of a card in MIG mode;
- tests: `pytest -m "gpu or multigpu"`;
- methods: three steps of each method and type of PEFT on a model of two layers, in float32 on the CPU and on a card,
  the methods in bf16, fp16 and on int8 weights too: losses and peak memory;
- generation: answers side by side, padded on the left, and alone, on a card in float32 and bf16;
- attention: gradients with a mask at lengths at which cuDNN's kernel gives NaN, against the plain kernel's;
- waits: where the host waits for the card in a step, by optimizer and precision;
- memory: what stays reserved of weights after their cast to bfloat16, and whether segments grow;
- products: rates of matrix products by precision, at a round and at an odd size, of copies, and of launches.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__" and "--wheels" in sys.argv[:-1]:
    import carried

    _installed = tempfile.TemporaryDirectory()
    carried.install(Path(sys.argv[sys.argv.index("--wheels") + 1]), Path(_installed.name))

from hpml_bench import registry
from hpml_bench.builtin.engines.local import slots
from hpml_bench.builtin.probes.energy import gpu_joules
from hpml_bench.builtin.probes.memory import nvml_used_mb
from hpml_bench.launch import fork_server
from hpml_bench.system import environment, gpus

TESTS = Path(__file__).resolve().parents[1] / "tests"
SECONDS = {
    "devices": 40, "products": 40, "attention": 40, "waits": 60, "memory": 60, "generation": 60, "tests": 120,
    "methods": 180,
}  # fmt: skip
"""The limit of each check, in the order in which they are done: those of seconds first."""
MINUTES = 9.0
"""The limit of all checks together."""
CLOSE = {"fp32": 1e-3, "bf16": 0.03, "fp16": 0.03, "int8": 0.1}
"""Relative difference of losses to those in float32 on the CPU: in float32 that of sums in another order."""


def devices() -> dict[str, Any]:
    """Return both views of the GPUs; they must agree on number and UUIDs, and no fork may inherit CUDA."""
    fork_server.start_fork_server()
    process = multiprocessing.get_context("forkserver").Process(target=_untouched)
    process.start()
    process.join()
    import torch

    from hpml_bench.training.cuda import check_gpus, uuid

    visible = gpus.visible_gpus()
    check_gpus(len(visible))
    of_torch = [uuid(torch.device("cuda", index)) for index in range(torch.cuda.device_count())]
    shared = gpus.shareable_gpus()
    parts = [slot.cards for slot in slots(len(shared), None, None)] if environment.cores() >= len(shared) else None
    same = of_torch == [gpu["uuid"].partition("-")[2] for gpu in visible]
    return {
        "passed": process.exitcode == 0 and same and parts in (None, [(gpu["uuid"],) for gpu in shared]),
        "slots": parts,
        "fork_server_untouched": process.exitcode == 0,
        "torch": of_torch,
        "driver": visible,
        "joules": [str(gpu_joules(each)) for each in of_torch],
        "used_mb": [str(nvml_used_mb(each)) for each in of_torch],
        "environment": environment.describe(),
    }


def _untouched() -> None:
    """End with status 0 if the process that this one was forked from has not initialised CUDA."""
    import torch

    sys.exit(int(torch.cuda._is_in_bad_fork()))


def tests() -> dict[str, Any]:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu or multigpu", str(TESTS)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    return {"passed": done.returncode == 0, "output": done.stdout.splitlines()[-40:]}


def methods() -> dict[str, Any]:
    """Train each method that trains, and each type of PEFT, for three steps on both devices."""
    from peft import PeftType

    from hpml_bench.builtin.methods.peft import ALIASES

    own: list[tuple[str, dict[str, Any]]] = [
        (name, {}) for name in registry.names("methods") if registry.plugin("methods", name).trains
    ]
    types = [("peft", {"type": kind}) for kind in (*(kind.value for kind in PeftType), *ALIASES)]
    found: dict[str, Any] = {}
    with _alone() as (tiny, folder):
        prepared = tiny.prepared(folder)
        for method, options in [*own, *types]:
            alone = _trained(tiny, prepared, method, options, "cpu")
            kinds = {kind: {"precision": kind} for kind in (("fp32", "bf16", "fp16") if not options else ("fp32",))}
            if method == "lora":
                kinds["int8"] = {"quantization": "int8"}
            for kind, changes in kinds.items():
                of = _trained(tiny, prepared, method, options, "cuda", **changes)
                passed = _alike(alone, of, CLOSE[kind])
                found[f"{options.get('type', method)} {kind}"] = {"cpu": alone, "cuda": of, "passed": passed}
    return {"passed": all(of["passed"] for of in found.values()), "methods": found}


@contextmanager
def _alone() -> Iterator[tuple[Any, Path]]:
    """Yield the tests' helper for small models and a new folder, in the environment of a rank that is alone."""
    sys.path.append(str(TESTS))
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    with tempfile.TemporaryDirectory() as name:
        yield importlib.import_module("helpers.tiny"), Path(name)


def _trainer(tiny: Any, prepared: Any, group: Any, method: str, options: dict[str, Any], **changes: Any) -> Any:
    """Return the trainer of three steps of a method."""
    from hpml_bench.suite.settings import MethodSpec
    from hpml_bench.training.trainer import Trainer

    kind = registry.plugin("methods", method)
    chosen = MethodSpec(name=method, method=method, options=kind.Options(**options).model_dump(), lr=1e-3)
    spec = tiny.spec(steps=3, log_every=1, world_size=1, **changes).model_copy(update={"method": chosen})
    return Trainer.build(spec, prepared, group)


def _trained(
    tiny: Any, prepared: Any, method: str, options: dict[str, Any], device: str, **changes: Any
) -> dict[str, Any]:
    """Return how three steps of a method in this process ended, their losses, and the peak of tensors on a card."""
    import torch

    from hpml_bench.errors import Unsupported
    from hpml_bench.training.distributed import process_group

    losses: list[float] = []
    told: dict[str, Any] = {"status": "ok", "losses": losses}
    settings = tiny.settings(device=device, world_size=1)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        with process_group(settings) as group:
            trainer = _trainer(tiny, prepared, group, method, options, device=device, **changes)
            trainer.model.train()
            trainer.rehearse()
            for index, indices in enumerate(trainer.order(), start=1):
                trainer.step(index, indices)
            losses += [step.loss for step in trainer.log.reduce()]
    except Exception as error:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        told |= {"status": "unsupported" if isinstance(error, Unsupported) else "failed", "error": str(error)}
    if device == "cuda":
        told["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return told


def _alike(one: dict[str, Any], other: dict[str, Any], tolerance: float = CLOSE["fp32"]) -> bool:
    """Tell whether both ended well with the same losses up to the order of sums, or the method runs on neither."""
    close = [math.isclose(a, b, rel_tol=tolerance) for a, b in zip(one["losses"], other["losses"], strict=False)]
    well = one["status"] == "unsupported" or (one["status"] == "ok" and len(close) == 3)
    return well and one["status"] == other["status"] and all(close)


def generation(device: str = "cuda") -> dict[str, Any]:
    """Answer prompts of 1 to 15 tokens side by side and each alone; in float32 no answer may differ but at a tie."""
    import torch

    from hpml_bench.plugins.method import make_method
    from hpml_bench.plugins.task import Decoding, Generator, make_task
    from hpml_bench.training.generation import generate
    from hpml_bench.training.model import build_model
    from hpml_bench.training.precision import autocast

    where, found = torch.device(device), {}
    with _alone() as (_, folder):
        small = importlib.import_module("helpers.language_models")
        prompts, asked = small.prompts(19), Generator(Decoding(10), (), lambda _: "", small.PAD, 16, 0)
        for kind, path in small.save_models(folder).items():
            for precision in ("fp32", "bf16"):
                spec = small.spec_of(path, "lora", device=device, precision=precision)
                task = make_task(spec.settings.task)
                model: Any = build_model(path, spec, make_method(spec.method), task, device=where).to(where).eval()
                with autocast(spec.settings):
                    beside = generate(model, prompts, asked, where, [*range(len(prompts))])
                    alone = [generate(model, [each], asked, where, [row])[0] for row, each in enumerate(prompts)]
                differ = [a.tokens != b.tokens for a, b in zip(beside, alone, strict=True)]
                sure = [not (a.near_tie or b.near_tie) for a, b in zip(beside, alone, strict=True)]
                told = {
                    "differ": sum(differ),
                    "differ_without_a_tie": sum(d and s for d, s in zip(differ, sure, strict=True)),
                }
                found[f"{kind} {precision}"] = told | {
                    "passed": precision != "fp32" or not told["differ_without_a_tie"]
                }
    return {"passed": all(of["passed"] for of in found.values()), "models": found}


def attention(device: str = "cuda") -> dict[str, Any]:
    """Compare gradients of masked attention with the plain kernel's; at low scores (pytorch#196678) be they finite."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    from hpml_bench.training.precision import leave_out_cudnn_attention

    leave_out_cudnn_attention()

    def gradients(parts: list[Any], mask: Any) -> Any:
        query, key, value, weights = parts
        output = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return torch.autograd.grad(output, (query, key, value), weights)

    found: dict[str, Any] = {}
    for length in (64, 65, 128, 192):
        mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
        for low in (False, True):
            torch.manual_seed(0)
            parts = [torch.randn(2, 2, length, 64, device=device, dtype=torch.bfloat16) for _ in range(4)]
            if low:
                parts[0][..., 0], parts[1][..., 0] = 1.0, -120 * math.sqrt(64)
            for part in parts[:3]:
                part.requires_grad_()
            own = gradients(parts, mask)
            with sdpa_kernel(SDPBackend.MATH):
                plain = gradients(parts, mask)
            errors = [float((a - b).norm() / b.norm()) for a, b in zip(own, plain, strict=True)]
            passed = all(map(math.isfinite, errors)) and (low or max(errors) < 0.05)
            found[f"{length}{' low' if low else ''}"] = {"errors": errors, "passed": passed}
    return {"passed": all(of["passed"] for of in found.values()), "lengths": found}


def waits() -> dict[str, Any]:
    """Count where the host waits for a card in a step: by calls, and by what torch warns of."""
    import torch

    from hpml_bench.training.distributed import process_group

    found: dict[str, Any] = {}
    with _alone() as (tiny, folder), process_group(tiny.settings(device="cuda", world_size=1)) as group:
        prepared = tiny.prepared(folder)
        for optimizer, precision in (("adamw", "bf16"), ("adamw", "fp16"), ("adamw_8bit", "bf16")):
            changes = {"device": "cuda", "optimizer": optimizer, "precision": precision}
            trainer = _trainer(tiny, prepared, group, "lora", {}, **changes)
            trainer.model.train()
            trainer.rehearse()
            batches = [*trainer.order()]
            trainer.step(1, batches[0])
            with mock.patch.object(torch.cuda, "synchronize") as calls, warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                trainer.step(2, batches[1])
                torch.cuda.set_sync_debug_mode("default")
            places = [
                f"{Path(each.filename).name}:{each.lineno}" for each in warned if "synchroniz" in str(each.message)
            ]
            found[f"{optimizer} {precision}"] = {"calls": calls.call_count, "places": places}
    fewest = len(found["adamw bf16"]["places"])
    passed = all(not of["calls"] and len(of["places"]) <= fewest for of in found.values())
    return {"passed": passed, "steps": found}


def memory() -> dict[str, Any]:
    """Cast the frozen weights of a model of 340 MB, and look at what the allocator holds beyond tensors then."""
    import torch
    from transformers import GPT2Config, GPT2Model

    from hpml_bench.training.distributed import process_group

    with _alone() as (tiny, folder), process_group(tiny.settings(device="cuda", world_size=1)) as group:
        prepared = tiny.prepared(folder)
        GPT2Model(GPT2Config(vocab_size=tiny.VOCABULARY, n_layer=12)).save_pretrained(prepared.backbone)
        _made = _trainer(
            tiny, prepared, group, "lora", {}, device="cuda", precision="bf16"
        )  # is held until it is measured
        held, reserved = torch.cuda.memory_allocated() / 1e6, torch.cuda.memory_reserved() / 1e6
        grow = [bool(segment.get("is_expandable")) for segment in torch.cuda.memory_snapshot()]  # type: ignore[no-untyped-call]
    free = torch.cuda.mem_get_info()[0] / 1e6
    told = {
        "allocated_mb": held,
        "reserved_mb": reserved,
        "free_mb": free,
        "expandable_segments": f"{sum(grow)} of {len(grow)}",
    }
    return {"passed": reserved - held < 100 and all(grow), **told}


def products(device: str = "cuda", size: int = 8192) -> dict[str, Any]:
    """Measure products [size, size] and [1723, size] in each precision, copies of 1 GiB, and launches of nothing."""
    import torch

    on_card = device == "cuda"
    found: dict[str, Any] = {}
    for precision, kind in {"bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}.items():
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        right = torch.randn(size, size, device=device, dtype=kind)
        for rows in (size, 1723):
            left = torch.randn(rows, size, device=device, dtype=kind)
            seconds = _seconds(lambda left=left, right=right: left @ right, on_card)  # type: ignore[misc]
            found[f"{precision} {rows} rows, TFLOP/s"] = round(2 * rows * size * size / seconds / 1e12, 2)
    source = torch.empty(2**30 if on_card else 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = _seconds(lambda: target.copy_(source), on_card)
    found["copies, read and written, GB/s"] = round(2 * source.numel() / copied / 1e9, 1)
    nothing = torch.zeros(1, device=device)
    found["launches, microseconds"] = round(_seconds(lambda: nothing.add_(1), on_card, 1000) * 1e6, 2)
    return {"passed": all(rate > 0 for rate in found.values()), "rates": found}


def _seconds(call: Callable[[], Any], on_card: bool, times: int = 5) -> float:
    """Return the seconds of a call, by the device's work of several after one that isn't counted."""
    import torch

    def ended() -> float:
        if on_card:
            torch.cuda.synchronize()
        return time.perf_counter()

    call()
    began = ended()
    for _ in range(times):
        call()
    return (ended() - began) / times


CHECKS: dict[str, Callable[[], dict[str, Any]]] = {
    "devices": devices, "products": products, "attention": attention, "waits": waits, "memory": memory,
    "generation": generation, "tests": tests, "methods": methods,
}  # fmt: skip
ON_CPU: dict[str, Callable[[], dict[str, Any]]] = {
    "products": lambda: products("cpu", 256),
    "attention": lambda: attention("cpu"),
    "generation": lambda: generation("cpu"),
}
"""The checks that a machine without a card does."""


def in_child(check: str, left: float = math.inf) -> dict[str, Any]:
    """Return what a check says, from a process of its own, or how that ended; `left` are the seconds it may take."""
    began, limit = time.monotonic(), min(SECONDS[check], left)
    with tempfile.TemporaryDirectory() as name:
        result = Path(name) / "result.json"
        command = [sys.executable, __file__, "--check", check, "--json", str(result)]
        try:
            done = subprocess.run(command, stdout=sys.stderr, timeout=max(0.0, limit), check=False)
            found = json.loads(result.read_text()) if result.exists() else {"status": done.returncode}
        except subprocess.TimeoutExpired:
            found = {"timeout": limit}
    return {"passed": False, **found, "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    """Do the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="checks, separated by commas", metavar="A,B", default=",".join(CHECKS))
    parser.add_argument("--json", type=Path, help="write the results here", metavar="FILE")
    parser.add_argument("--minutes", type=float, help="most minutes of all checks", default=MINUTES)
    parser.add_argument("--wheels", type=Path, help="install these wheels for this command", metavar="FOLDER")
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    checks = CHECKS if gpus.visible_gpus() else ON_CPU
    environment.set_process_environment()
    found: dict[str, Any] = {}
    for check in [options.check] if options.check else options.only.split(","):
        if options.check:
            found = checks[check]()
        elif check in CHECKS and check not in checks:
            found[check] = {"passed": None, "skipped": "no GPU is visible (driver, CUDA_VISIBLE_DEVICES)"}
        else:
            found[check] = in_child(check, ends - time.monotonic())
        text = json.dumps(found, indent=1) + "\n"
        options.json.write_text(text) if options.json else print(text, flush=True)
    return 0 if options.check or all(of["passed"] is not False for of in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
