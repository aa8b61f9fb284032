"""A few blocks of a model tell of all: footprints equal to those of whole models."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import fit_ratios
import pytest
from transformers import AutoConfig, AutoTokenizer

from hpml_bench.data.prepared import Prepared
from hpml_bench.fit import trace as tracing
from hpml_bench.fit.depth import few
from hpml_bench.fit.trace import Footprint, blocks_that_tell, trace
from hpml_bench.suite.settings import RunSpec

BLOCKS = 8
QWEN = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 32}
OTHERS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "windows": {
        **QWEN, "use_sliding_window": True, "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"] * (BLOCKS // 2),
    },
    "one dense": {
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 32, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 64, "mlp_only_layers": [0],
    },
}  # fmt: skip
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], tuple[int, int] | None]] = {
    "lora checkpointing": ("llama", "lora", {}, {"gradient_checkpointing": True, "micro_batch": 2}, (2, 3)),
    "full bf16 on a card": ("llama", "full", {}, {"device": "cuda", "precision": "bf16"}, (2, 3)),
    "prompt_tuning": ("llama", "prompt_tuning", {}, {}, (2, 3)),
    "none": ("llama", "none", {}, {}, (2, 3)),
    "qlora": ("llama", "qlora", {}, {"precision": "bf16"}, (2, 3)),
    "prefix tuning": ("llama", "peft", {"type": "PREFIX_TUNING"}, {}, (2, 3)),
    "vera, whose first block holds what all share": ("llama", "peft", {"type": "VERA"}, {}, (2, 3)),
    "adalora": ("llama", "peft", {"type": "ADALORA"}, {}, (2, 3)),
    "a classifier": ("gpt2", "lora", {}, {"precision": "bf16", "weights": "bfloat16"}, (2, 3)),
    "windows in every other block": ("windows", "lora", {}, {}, (2, 4)),
    "a first block without experts": ("one dense", "lora", {}, {}, (2, 3)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models of eight blocks, without weights."""
    return tmp_path_factory.mktemp("depth")


def prepare(folder: Path, model: str) -> tuple[str, Prepared]:
    """Write rows, and a configuration of eight blocks with its tokenizer, once per model; return the task too."""
    task = "sequence_classification" if model == "gpt2" else "causal_lm"
    spec = fit_ratios.spec_of(task, "lora", {}, {})
    prepared = fit_ratios.prepare(folder, spec.settings.task)
    backbone = folder / model
    if not backbone.exists():
        config = json.loads((Path(prepared.backbone) / "config.json").read_text())
        config |= {"n_layer" if model == "gpt2" else "num_hidden_layers": BLOCKS} | OTHERS[model]
        AutoConfig.for_model(**config).save_pretrained(backbone)
        AutoTokenizer.from_pretrained(prepared.backbone).save_pretrained(backbone)
    return task, prepared.model_copy(update={"backbone": str(backbone)})


@pytest.mark.parametrize("name", CASES)
def test_a_few_blocks_tell_of_all(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of the footprint is the whole model's within 1 %, though only some blocks are traced."""
    model, method, options, changes, numbers = CASES[name]
    task, prepared = prepare(folder, model)
    spec = fit_ratios.spec_of(task, method, options, changes)
    told = blocks_that_tell(spec, prepared)
    assert told is not None
    assert told[:2] == numbers
    whole = trace(spec, prepared)
    traced: list[int] = []
    own = tracing.describe
    monkeypatch.setattr(tracing, "describe", lambda *of, **more: traced.append(more["blocks"]) or own(*of, **more))
    found = trace(spec, prepared, told)
    assert traced == [*told[:2]]
    for field in fields(Footprint):
        assert getattr(found, field.name) == pytest.approx(getattr(whole, field.name), rel=0.01), field.name


def test_blocks_that_a_method_tells_apart_are_all_traced(folder: Path) -> None:
    """Adapters on two of eight blocks, one of them the last, don't repeat."""
    task, prepared = prepare(folder, "llama")
    options = {"type": "LORA", "target_modules": ["q_proj"], "layers_to_transform": [3, 7]}
    spec: RunSpec = fit_ratios.spec_of(task, "peft", options, {})
    assert blocks_that_tell(spec, prepared) is None


@pytest.mark.parametrize(
    ("blocks", "numbers"),
    [
        ("a" * 32, (2, 3, 29)),
        ("ab" * 16, (2, 4, 14)),
        ("b" + "a" * 31, (2, 3, 29)),
        ("bbb" + "a" * 29, (4, 5, 27)),
        ("aaaaab" * 8, (6, 12, 6)),
        ("aaaaab" * 7 + "aa", (8, 14, 5)),
        ("aaa", None),
        ("a" * 7 + "b", None),
        ("abcdefgh", None),
        ("", None),
    ],
)
def test_as_many_blocks_as_show_each_kind(blocks: str, numbers: tuple[int, int, int] | None) -> None:
    """And one more repetition; all where that saves too little."""
    assert few(blocks) == numbers
