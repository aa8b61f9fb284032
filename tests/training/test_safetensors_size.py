"""The size of a safetensors file is known before it is written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from hpml_bench.training.saving import TYPES, safetensors_bytes

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40)
SHAPES = st.lists(st.integers(0, 12), max_size=3)
KINDS = st.sampled_from([*TYPES])


@given(st.dictionaries(NAMES, st.tuples(SHAPES, KINDS), max_size=8))
def test_it_is_that_of_the_file(kinds: dict[str, tuple[list[int], torch.dtype]]) -> None:
    """Of any names, shapes and types, none included, to the byte."""
    tensors = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in kinds.items()}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "file"
        save_file(tensors, path)
        assert safetensors_bytes(tensors.items()) == path.stat().st_size


def test_nothing_is_allocated() -> None:
    """A model of 3 billion parameters, of which no device holds a byte, has its size at once."""
    tensors = {f"layer {index}": torch.empty(1000, 1_000_000, device="meta") for index in range(3)}
    assert 12_000_000_000 < safetensors_bytes(tensors.items()) < 12_000_001_000
