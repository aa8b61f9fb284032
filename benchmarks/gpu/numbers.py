"""Numbers on a card: methods beside the CPU, answers side by side, and gradients of attention."""

import math
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from peft import PeftType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from gpu import Cases, alone
from helpers import language_models, tiny  # type: ignore[import-not-found]
from hpml_bench.builtin.methods.peft import ALIASES
from hpml_bench.plugins.decoding import Decoding, Generator
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.task import make_task
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import process_group
from hpml_bench.training.generation import generate
from hpml_bench.training.kernels import autocast, leave_out_cudnn_attention
from hpml_bench.training.model import build_model
from hpml_bench.training.trainer import Trainer

CLOSE = {"fp32": 1e-3, "bf16": 0.03, "fp16": 0.03, "int8": 0.1}
"""Relative difference of losses to those in float32 on the CPU: in float32 that of sums in
another order.
"""
STEPS = 3


def methods(device: str = "cuda") -> Cases:
    """Train each method that trains, and each type of PEFT, for three steps on both devices."""
    own = [name for name in registry.names("methods") if registry.plugin("methods", name).trains]
    tried: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in own]
    tried += [("peft", {"type": kind}) for kind in (*(kind.value for kind in PeftType), *ALIASES)]
    with alone() as folder:
        prepared = tiny.prepared(folder)
        for method, options in tried:
            kinds = {
                kind: {"precision": kind}
                for kind in (("fp32",) if options else ("fp32", "bf16", "fp16"))
            }
            if method == "lora":
                kinds["int8"] = {"quantization": "int8"}
            for kind, changes in kinds.items():
                case = partial(
                    _on_both, prepared, method, options, kind, changes | {"device": device}
                )
                yield f"{options.get('type', method)} {kind}", case


def _on_both(
    prepared: Any, method: str, options: dict[str, Any], kind: str, changes: dict[str, Any]
) -> dict[str, Any]:
    cpu, other = (losses(prepared, method, options, **of) for of in ({"device": "cpu"}, changes))
    found = {"cpu": cpu, changes["device"]: other}
    if isinstance(cpu, str) or isinstance(other, str):
        return {"passed": isinstance(cpu, str) and isinstance(other, str), **found}
    return {"passed": all(map(partial(math.isclose, rel_tol=CLOSE[kind]), cpu, other)), **found}


def losses(
    prepared: Any, method: str, options: dict[str, Any], **changes: Any
) -> list[float] | str:
    """Return the losses of three steps in this process, after a rehearsal, or why the harness
    refuses the method.
    """
    kind = registry.plugin("methods", method)
    chosen = MethodSpec(
        name=method, method=method, options=kind.Options(**options).model_dump(), lr=1e-3
    )
    spec = tiny.spec(steps=STEPS, log_every=1, world_size=1, **changes).model_copy(
        update={"method": chosen}
    )
    try:
        with process_group(spec.settings) as group:
            trainer = Trainer(assemble(spec, prepared, group))
            trainer.model.train()
            trainer.rehearse()
            for index, indices in enumerate(trainer.order(), start=1):
                trainer.step(index, indices)
            return [step.loss for step in trainer.log.reduce()]
    except Unsupported as error:
        return str(error)
    finally:
        if torch.distributed.is_initialized():  # an error leaves it open
            torch.distributed.destroy_process_group()


def generation(device: str = "cuda") -> Cases:
    """Answer prompts of 1 to 15 tokens side by side and each alone; in float32 no answer may differ
    but at a tie.

    Greedy answers, and sampled ones by each row's own seed, of which one may lie at the border of
    two tokens.
    """
    ways = {"": Decoding(10), " sampled": Decoding(10, temperature=1.0, top_p=0.9)}
    with alone() as folder:
        for kind, path in language_models.save_models(folder).items():
            for precision, (way, decoding) in product(("fp32", "bf16"), ways.items()):
                yield (
                    f"{kind} {precision}{way}",
                    partial(_answered, path, precision, decoding, torch.device(device)),
                )


def _answered(
    path: Path, precision: str, decoding: Decoding, where: torch.device
) -> dict[str, Any]:
    prompts = language_models.prompts(19)
    asked = Generator(decoding, (), lambda _: "", language_models.PAD, 16, 0)
    spec = language_models.spec_of(path, "lora", device=where.type, precision=precision)
    task = make_task(spec.settings.task)
    model: Any = (
        build_model(path, spec, make_method(spec.method), task, device=where).to(where).eval()
    )
    with autocast(spec.settings):
        beside = generate(model, prompts, asked, where, [*range(len(prompts))])
        singly = [
            generate(model, [each], asked, where, [row])[0] for row, each in enumerate(prompts)
        ]
    pairs = [(a, b) for a, b in zip(beside, singly, strict=True) if a.tokens != b.tokens]
    wrong = sum(not (a.near_tie or b.near_tie) for a, b in pairs)
    right = precision != "fp32" or wrong <= bool(decoding.temperature)
    return {"passed": right, "differ": len(pairs), "differ_without_a_tie": wrong}


def attention(device: str = "cuda") -> Cases:
    """Compare gradients of masked attention with the plain kernel's; at low scores
    (pytorch#196678) be they finite.
    """
    leave_out_cudnn_attention()
    for length, low in product((64, 65, 128, 192), (False, True)):
        yield f"{length}{' low' if low else ''}", partial(_gradients, device, length, low)


def _gradients(device: str, length: int, low: bool) -> dict[str, Any]:
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
    torch.manual_seed(0)
    query, key, value, weights = (
        torch.randn(2, 2, length, 64, device=device, dtype=torch.bfloat16) for _ in range(4)
    )
    if low:
        query[..., 0], key[..., 0] = 1.0, -120 * math.sqrt(64)
    for part in (query, key, value):
        part.requires_grad_()

    def gradients() -> Any:
        output = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return torch.autograd.grad(output, (query, key, value), weights)

    own = gradients()
    with sdpa_kernel(SDPBackend.MATH):
        plain = gradients()
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(own, plain, strict=True)]
    return {
        "passed": all(map(math.isfinite, errors)) and (low or max(errors) < 0.05),
        "errors": errors,
    }
