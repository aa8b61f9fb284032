"""Kernels on a card: answers side by side, and gradients of attention."""

from __future__ import annotations

import importlib
import math
import time
from itertools import product
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from gpu.training import alone
from hpml_bench.plugins.decoding import Decoding, Generator
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.task import make_task
from hpml_bench.training.generation import generate
from hpml_bench.training.kernels import autocast, leave_out_cudnn_attention
from hpml_bench.training.model import build_model


def generation(device: str = "cuda") -> dict[str, Any]:
    """Answer prompts of 1 to 15 tokens side by side and each alone; in float32 no answer may differ but at a tie.

    Greedy answers, and sampled ones by each row's own seed, of which one may lie at the border of two tokens.
    """
    where, found = torch.device(device), {}
    with alone() as (_, folder):
        small = importlib.import_module("helpers.language_models")
        prompts = small.prompts(19)
        ways = {"": Decoding(10), " sampled": Decoding(10, temperature=1.0, top_p=0.9)}
        for kind, path in small.save_models(folder).items():
            for precision, (way, decoding) in product(("fp32", "bf16"), ways.items()):
                asked = Generator(decoding, (), lambda _: "", small.PAD, 16, 0)
                spec = small.spec_of(path, "lora", device=device, precision=precision)
                task = make_task(spec.settings.task)
                model: Any = build_model(path, spec, make_method(spec.method), task, device=where).to(where).eval()
                with autocast(spec.settings):
                    began = time.perf_counter()
                    beside = generate(model, prompts, asked, where, [*range(len(prompts))])
                    seconds = time.perf_counter() - began
                    singly = [generate(model, [each], asked, where, [row])[0] for row, each in enumerate(prompts)]
                differ = [a.tokens != b.tokens for a, b in zip(beside, singly, strict=True)]
                sure = [not (a.near_tie or b.near_tie) for a, b in zip(beside, singly, strict=True)]
                wrong = sum(d and s for d, s in zip(differ, sure, strict=True))
                found[f"{kind} {precision}{way}"] = {
                    "differ": sum(differ), "differ_without_a_tie": wrong, "seconds": round(seconds, 3),
                    "passed": precision != "fp32" or wrong <= bool(way),
                }  # fmt: skip
    return {"passed": all(of["passed"] for of in found.values()), "models": found}


def attention(device: str = "cuda") -> dict[str, Any]:
    """Compare gradients of masked attention with the plain kernel's; at low scores (pytorch#196678) be they finite."""
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
