"""Predicted peak of loading against that of tensors, on a CPU and on a card that isn't there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fit_ratios
import pytest

from hpml_bench.fit.trace import trace
from hpml_bench.plugins.group import Group

SHAPE = {
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 512, "vocab_size": 2048,
}  # fmt: skip
"""Of a model whose file is of bfloat16; else the script's own, of float32."""
CASES: dict[str, tuple[dict[str, Any] | None, str, dict[str, Any], dict[str, Any]]] = {
    "as the file, bf16": (SHAPE, "lora", {}, {"precision": "bf16"}),
    "trained, bf16": (SHAPE, "full", {}, {"precision": "bf16"}),
    "read in float32 first": (SHAPE, "peft", {"type": "DORA"}, {"precision": "bf16"}),
    "float32 of bf16": (SHAPE, "none", {}, {"precision": "fp32"}),
    "cast after loading": (None, "lora", {}, {"precision": "bf16"}),
    "quantised": (None, "qlora", {}, {"precision": "bf16"}),
    "quantised, of the file's type": (None, "qlora", {}, {"precision": "fp32"}),
    "quantised, as half of it": (None, "qlora", {}, {"precision": "bf16", "weights": "bfloat16"}),
    "quantised, as twice of it": (SHAPE, "qlora", {}, {"precision": "fp32"}),
    "quantised before the embeddings": (None, "qlora", {}, {"precision": "bf16"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_peak_of_loading_is_predicted_within_five_percent(name: str, group: Group, tmp_path: Path) -> None:
    """By the allocator's events: weights in the type that they are loaded in, casts, and trial passes."""
    shape, method, options, changes = CASES[name]
    task = "sequence_classification" if "embeddings" in name else "causal_lm"
    spec = fit_ratios.spec_of(task, method, options, changes)
    prepared = fit_ratios.prepare(tmp_path, spec.settings.task, shape=shape)
    real, found = fit_ratios.measured(spec, prepared, group), trace(spec, prepared)
    assert found.loading == pytest.approx(real.loading, rel=0.05)
    assert found.peak >= found.loading
    if method == "qlora":  # PEFT's layers around quantised ones are other than those around floats
        for phase in ("step", "evaluation"):
            assert 1 <= getattr(found, phase) / getattr(real, phase) <= 1.05, phase


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_fp16_keeps_frozen_weights_as_they_are_loaded(weights: str, group: Group, tmp_path: Path) -> None:
    """Unlike bf16, which stores those of linear layers in its own type: each step casts them, and keeps the copies."""
    spec = fit_ratios.spec_of("causal_lm", "lora", {}, {"precision": "fp16", "weights": weights})
    prepared = fit_ratios.prepare(tmp_path, spec.settings.task)
    real, found = fit_ratios.measured(spec, prepared, group), trace(spec, prepared)
    for phase, least in (("loading", 0.95), ("step", 1), ("evaluation", 1)):
        assert least <= getattr(found, phase) / getattr(real, phase) <= 1.05, phase


def test_sampling_is_part_of_the_prediction(group: Group, tmp_path: Path) -> None:
    """The largest batch of answers is rehearsed with what sorts its probabilities; as are those that `fit` traces."""
    options = {"scorer": "exact", "max_new_tokens": 8, "temperature": 0.7, "top_p": 0.9}
    spec = fit_ratios.spec_of("causal_lm", "none", {}, {"task": {"name": "causal_lm", "options": options}})
    prepared = fit_ratios.prepare(tmp_path, spec.settings.task)
    real, found = fit_ratios.measured(spec, prepared, group), trace(spec, prepared)
    sorted_bytes = fit_ratios.BATCH * fit_ratios.VOCABULARY * (8 + 8)  # float64, and their places
    assert real.generation - real.held > 2 * sorted_bytes
    assert 1 <= found.generation / real.tensors["generation"] < 1.05
