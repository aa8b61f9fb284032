"""Loading of files of bfloat16: linear layers stay as they are, and a run is the same to the bit."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    LlamaConfig,
)
from transformers import Gemma3TextConfig as GemmaConfig

from helpers import tiny
from helpers.loops import Recorder
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.training import assembly
from hpml_bench.training import model as model_module
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import make_trainer

ENDS = {"bos_token_id": None, "eos_token_id": tiny.VOCABULARY - 1, "pad_token_id": 0}
SHAPE = {
    "vocab_size": tiny.VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
GROUPED = SHAPE | ENDS | {"num_key_value_heads": 2}
VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
GEMMA = GROUPED | {"head_dim": 12, "sliding_window": 6}
MODELS: dict[str, Any] = {
    "llama": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**GROUPED)),
    "tied llama": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**GROUPED, tie_word_embeddings=True)),
    "gpt2": lambda: AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=tiny.VOCABULARY, n_embd=48, n_layer=2, n_head=2, n_positions=64, **ENDS)
    ),
    "gemma3": lambda: AutoModelForCausalLM.from_config(GemmaConfig(**GEMMA)),
    "gemma3 with images": lambda: Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=GEMMA, vision_config=VISION | {"image_size": 28, "patch_size": 14}, mm_tokens_per_image=4,
            boi_token_index=197, eoi_token_index=198, image_token_index=196,
        )
    ),
    "bert": lambda: BertModel(BertConfig(**SHAPE)),
}  # fmt: skip
"""Models by name; a scale of Gemma's embeddings, the root of the width, is no number of bfloat16."""
SAME: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "lora", {}),
    ("llama", "full", {}),
    ("llama", "adapter", {"size": 4}),
    ("llama", "prompt_tuning", {"tokens": 3}),
    ("llama", "peft", {"type": "VERA", "r": 8}),
    ("llama", "peft", {"type": "IA3"}),
    ("llama", "peft", {"type": "PREFIX_TUNING", "num_virtual_tokens": 3}),
    ("llama", "peft", {"type": "LORA", "modules_to_save": ["lm_head"]}),
    ("tied llama", "lora", {}),
    ("gpt2", "full", {}),
    ("gemma3", "lora", {}),
    ("gemma3 with images", "lora", {}),
    ("bert", "head", {}),
    ("bert", "lora", {}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of bfloat16."""
    where = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        for random in ("config.json", "model.safetensors"):  # of the model whose tokenizer is taken
            (tiny.model(where / name) / random).unlink()
        torch.manual_seed(0)
        make().to(torch.bfloat16).save_pretrained(where / name)
    return where


def a_run(folder: Path, model: str, method: str, options: dict[str, Any], **changes: Any) -> tuple[RunSpec, Prepared]:
    task = "sequence_classification" if model == "bert" else "causal_lm"
    kind = registry.plugin("methods", method)
    chosen = MethodSpec(name=method, method=method, lr=1e-2, options=kind.Options(**options).model_dump())
    values = {"precision": "bf16", "world_size": 1, "steps": 4, "dropout": 0.0} | changes
    spec = RunSpec(suite="s", settings=tiny.task_settings(folder, task, rows=64, **values), method=chosen, seed=0)
    return spec, prepare(spec.settings).model_copy(update={"backbone": str(folder / model)})


def trained(spec: RunSpec, prepared: Prepared, group: Group) -> list[Any]:
    """Return the losses of steps, their gradient norms, and the losses and answers of rows."""
    kept, run = Recorder(), assemble(spec, prepared, group)
    trainer = make_trainer(run, [kept], lambda _: None)
    trainer.train()
    trainer.evaluate(run.test, "test", run.steps)
    rows = [evaluation.predictions for evaluation in kept.evaluations]
    answers = [of.texts and of.texts.answer for of in rows]
    return [kept.values("loss"), kept.values("grad_norm"), *(of.loss.tolist() for of in rows), answers]


@pytest.mark.parametrize(("model", "method", "options"), SAME)
def test_a_file_of_bf16_gives_the_same_run_as_in_float32(
    model: str, method: str, options: dict[str, Any], folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, gradient norms, rows' losses and answers are equal to the bit; no linear weight is ever float32."""
    spec, prepared = a_run(folder, model, method, options)
    loaded: list[tuple[set[torch.dtype], set[torch.dtype]]] = []
    load = model_module.load_backbone

    def watched(*arguments: Any) -> Any:
        found = load(*arguments)
        linear = {id(weight) for weight in model_module.linear_weights(found)}
        by_kind = [{w.dtype for w in found.parameters() if (id(w) in linear) == kind} for kind in (True, False)]
        loaded.append((by_kind[0], by_kind[1] | {b.dtype for b in found.buffers() if b.is_floating_point()}))
        return found

    monkeypatch.setattr(model_module, "load_backbone", watched)
    halved = trained(spec, prepared, group)
    monkeypatch.setattr(assembly, "linear_as_bf16", lambda *_: False)
    whole = trained(spec, prepared, group)
    assert halved == whole
    assert all(map(math.isfinite, (*halved[0], *halved[1], *halved[-2])))
    assert loaded == [({torch.bfloat16}, {torch.float32}), ({torch.float32}, {torch.float32})]


def with_one_of_float32(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("norm.weight"))
    save_file(tensors | {name: tensors[name].float()}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("options", "changes", "change_file"),
    [
        *(({"type": kind}, {}, None) for kind in ("PISSA", "DORA", "EVA", "LOHA")),
        ({"type": "IA3"}, {"precision": "fp32"}, None),
        ({"type": "IA3"}, {"precision": "fp16"}, None),
        ({"type": "IA3"}, {"weights": "bfloat16"}, None),
        ({"type": "IA3"}, {}, with_one_of_float32),
    ],
)
def test_what_bf16_would_round_is_loaded_as_the_settings_say(
    options: dict[str, Any], changes: dict[str, Any], change_file: Any, folder: Path, tmp_path: Path
) -> None:
    """Methods that start from weights, other precisions, a type that is asked for, files with a tensor of float32."""
    spec, prepared = a_run(folder, "llama", "peft", options, **changes)
    copy = shutil.copytree(prepared.backbone, tmp_path / "model")
    if change_file is not None:
        change_file(copy)
    assert not model_module.linear_as_bf16(copy, spec.settings, make_method(spec.method))
    assert model_module.linear_as_bf16(folder / "llama", *plain(folder))


def plain(folder: Path) -> tuple[Settings, Method]:
    spec, _ = a_run(folder, "llama", "lora", {})
    return spec.settings, make_method(spec.method)


def test_a_prediction_takes_the_type_of_a_file_that_is_not_here_from_its_configuration(
    folder: Path, tmp_path: Path
) -> None:
    """As of a model of the hub of which config.json alone was fetched."""
    shutil.copy(folder / "llama" / "config.json", tmp_path)
    assert model_module.linear_as_bf16(tmp_path, *plain(folder))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert not model_module.linear_as_bf16(tmp_path, *plain(folder))
