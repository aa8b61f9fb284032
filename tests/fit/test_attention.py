"""Memory of attention and norms: what a batch without padding saves, and what a card keeps otherwise than a CPU."""

from __future__ import annotations

from pathlib import Path

import fit_ratios
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from hpml_bench.fit import fake
from hpml_bench.fit.trace import Footprint, trace
from hpml_bench.plugins.group import Group

UNPADDED = {"micro_batch": 1, "dropout": 0.0, "max_length": 512, "global_batch": 4, "eval_batch": 1}
CARD = UNPADDED | {"device": "cuda", "precision": "bf16", "weights": "bfloat16"}


def traced(folder: Path, length: int) -> Footprint:
    """Return the footprint of LoRA on a Llama with two heads of keys, on rows of one length."""
    shape = {
        "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 2,
    }  # fmt: skip
    spec = fit_ratios.spec_of("causal_lm", "lora", {}, CARD | {"max_length": length})
    return trace(spec, fit_ratios.prepare(folder / str(length), spec.settings.task, 4, length, shape))


def test_a_batch_without_padding_takes_no_mask(tmp_path: Path, group: Group) -> None:
    """On a CPU by the allocator's events, with rows so long that a mask per layer were a tenth of the step."""
    spec = fit_ratios.spec_of("causal_lm", "lora", {}, UNPADDED)
    prepared = fit_ratios.prepare(tmp_path, spec.settings.task, 4, 512)
    real = fit_ratios.measured(spec, prepared, group).step
    assert 1 <= trace(spec, prepared).step / real <= fit_ratios.MOST


def test_on_a_card_activations_of_unpadded_rows_grow_with_their_length(tmp_path: Path) -> None:
    """Not with its square: flash attention keeps neither scores nor a mask."""
    short, long = (traced(tmp_path, length) for length in (512, 1024))
    assert long.activations == pytest.approx(2 * short.activations, rel=0.03)


def test_on_a_card_keys_are_not_repeated_without_a_mask() -> None:
    """Flash attention keeps queries, keys and values as they are, its output, and a float32 per query and head."""
    query, key, value = (torch.empty(2, heads, 64, 16, dtype=torch.bfloat16, requires_grad=True) for heads in (8, 2, 2))
    kept: list[torch.Tensor] = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output, _ = fake._fused_attention(torch.nn.Module(), query, key, value, None)
    assert output.shape == (2, 64, 8, 16)
    assert sum(each.nbytes for each in kept) == 2 * query.nbytes + key.nbytes + value.nbytes + 4 * 2 * 8 * 64
    gradients = torch.autograd.grad(output.sum(), (query, key, value))
    assert [each.shape for each in gradients] == [query.shape, key.shape, value.shape]


def test_on_a_card_norms_keep_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast LayerNorm's input is converted there: 2 further bytes for each value of those with a gradient."""
    changes = CARD | {"max_length": fit_ratios.LENGTH}
    spec = fit_ratios.spec_of("sequence_classification", "lora", {}, changes)
    prepared = fit_ratios.prepare(tmp_path, spec.settings.task, 4)
    card = trace(spec, prepared)
    monkeypatch.setattr(fake, "_cuda_layer_norm", fake.layer_norm)
    inputs = 2 * fit_ratios.LAYERS * fit_ratios.LENGTH * fit_ratios.WIDTH
    assert card.step - trace(spec, prepared).step >= 0.9 * 2 * inputs
