"""Memory that kernels for a CPU take inside an operator beside its result: copies of operands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

BUFFERS = 2**16
"""Bytes of oneDNN's buffers in a product of bfloat16: 45 to 116 kB in the runs of `benchmarks/fit_ratios.py`."""
PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}


def copies(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """Return tensors of the sizes of the copies that an operator makes of its operands.

    An elementwise operator of several types converts operands to the common one, and what it writes in place too
    (torch: aten/src/ATen/TensorIterator.cpp, `compute_types`). A product resolves conjugates
    (aten/src/ATen/ConjugateFallback.cpp), and copies bfloat16 matrices whose rows or columns aren't contiguous
    (aten/src/ATen/native/mkldnn/Matmul.cpp, `is_mkldnn_optimized_format`).
    """
    tensors = [value for value in args if isinstance(value, Tensor) and value.dim()]
    if torch.Tag.pointwise in func.tags:
        floats = [tensor for tensor in tensors if tensor.is_floating_point()]
        common = reduce(torch.promote_types, [tensor.dtype for tensor in floats]) if floats else None
        written = floats[:1] if func._schema.is_mutable else []
        return [torch.empty(tensor.shape, dtype=common) for tensor in floats + written if tensor.dtype != common]
    if func.name() in PRODUCTS:
        found = [torch.empty(value.shape, dtype=value.dtype) for value in tensors if value.is_conj() or _odd(value)]
        return [*found, torch.empty(BUFFERS if tensors[-1].dtype == torch.bfloat16 else 0, dtype=torch.uint8)]
    return []


def _odd(matrix: Tensor) -> bool:
    """Whether a matrix of bfloat16, or a batch of them, has neither contiguous rows nor contiguous columns."""
    return matrix.dtype == torch.bfloat16 and not (matrix.is_contiguous() or matrix.mT.is_contiguous())
