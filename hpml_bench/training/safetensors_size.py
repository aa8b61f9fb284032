"""Size of a safetensors file from the names, shapes and types of its tensors, without writing it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import torch

TYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""Names of the types that can be trained, in the order in which their tensors lie in a file."""
ALIGNMENT = 8


def safetensors_bytes(tensors: Iterable[tuple[str, torch.Tensor]]) -> int:
    """Return the size in bytes of the file that `save_file` writes for these tensors.

    That is eight bytes with the header's length, the header (JSON padded with spaces to a multiple of eight), and the
    tensors by type and name (https://huggingface.co/docs/safetensors#format).
    """
    order = list(TYPES)
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in sorted(tensors, key=lambda pair: (order.index(pair[1].dtype), pair[0])):
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + math.ceil(len(text) / ALIGNMENT) * ALIGNMENT + end
