"""Memory that kernels for a CPU take inside an operator beside its result: copies of operands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from hpml_bench.system.environment import has_bf16

BUFFERS = 2**16
"""Bytes of oneDNN's buffers in a product of bfloat16 by instructions for it: 45 to 116 kB at the peaks of the runs of
`benchmarks/fit_ratios.py`; ATen's own products, which processors without AVX-512 take, have none."""
PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}


def copies(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """Return tensors of the sizes of the copies that an operator makes of its operands.

    An elementwise operator of several types converts operands to the common one, and what it writes in place too
    (torch: aten/src/ATen/TensorIterator.cpp, `compute_types`). A product resolves conjugates
    (aten/src/ATen/ConjugateFallback.cpp), and copies bfloat16 matrices whose rows or columns aren't contiguous
    (aten/src/ATen/native/mkldnn/Matmul.cpp, `is_mkldnn_optimized_format`). oneDNN's buffers are further bytes.
    """
    tensors = [value for value in args if isinstance(value, Tensor) and value.dim()]
    if torch.Tag.pointwise in func.tags:
        floats = [tensor for tensor in tensors if tensor.is_floating_point()]
        common = reduce(torch.promote_types, [tensor.dtype for tensor in floats]) if floats else None
        written = floats[:1] if func._schema.is_mutable else []
        return [torch.empty(tensor.shape, dtype=common) for tensor in floats + written if tensor.dtype != common]
    if func.name() in PRODUCTS:
        found = [torch.empty(value.shape, dtype=value.dtype) for value in tensors if value.is_conj() or _odd(value)]
        if tensors[-1].dtype == torch.bfloat16:
            sums = 4 * tensors[-2].shape[-2] * tensors[-1].shape[-1] if sums_in_float32() else 0
            found.append(torch.empty(max(BUFFERS, sums), dtype=torch.uint8))
        return found
    return []


def sums_in_float32() -> bool:
    """Whether products of bfloat16 here add up in a float32 matrix of the result's shape.

    oneDNN's do with AVX-512 and without instructions for bfloat16 (src/cpu/matmul/gemm_bf16_matmul.cpp,
    `book_acc_scratchpad`): on a processor that lacks these, or by oneDNN's variable.
    """
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in {"AVX512_CORE", "AVX512_CORE_VNNI"}
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and (limited or not has_bf16("cpu"))


def _odd(matrix: Tensor) -> bool:
    """Whether a matrix of bfloat16, or a batch of them, has neither contiguous rows nor contiguous columns."""
    return matrix.dtype == torch.bfloat16 and not (matrix.is_contiguous() or matrix.mT.is_contiguous())
