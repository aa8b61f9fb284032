"""What is tried before a training is found without computing numbers too, as it is for large models on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, CTRLConfig, GPTJConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from helpers import families, language_models
from helpers.classifiers import build
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.task import make_task
from hpml_bench.suite.settings import Settings
from hpml_bench.training import trial
from hpml_bench.training.model import build_model

METHODS = ("full", "lora", "adapter", "prompt_tuning", "head")


class Products(TorchDispatchMode):
    """Counts matrix products that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        named = func._schema.name in {"aten::mm", "aten::addmm", "aten::bmm"}
        self.count += named and result.device.type != "meta" and not isinstance(result, FakeTensor)
        return result


@pytest.mark.parametrize("method", METHODS)
def test_a_large_model_is_tried_without_numbers(
    method: str, backbone_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions and unused parameters are those of a pass with numbers, of which nothing is left behind."""
    for folder in backbone_folders.values():
        model = build(folder, method)
        model.encoder.spare = torch.nn.Linear(2, 2)
        expected = (
            trial.unused_parameters(model),
            trial.positions(model.encoder, 8),
            trial.positions(model.encoder, 999),
        )
        assert expected[0] == ["encoder.spare.weight", "encoder.spare.bias"]
        with monkeypatch.context() as patch, Products() as products:
            patch.setattr(trial, "LARGE", 0)
            found = (
                trial.unused_parameters(model),
                trial.positions(model.encoder, 8),
                trial.positions(model.encoder, 999),
            )
        assert found == expected
        assert products.count == 0
        assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        *((kind, "none", {}) for kind in language_models.KINDS),
        ("GPT-2", "prompt_tuning", {"tokens": 5}),
        ("Llama", "peft", {"type": "PREFIX_TUNING", "num_virtual_tokens": 5}),
        ("GPT-2", "lora", {}),
        ("GPT-J", "none", {}),
        ("CTRL", "none", {}),
        ("gpt_oss", "lora", {}),
        ("mamba", "none", {}),
    ],
)
def test_positions_are_found_from_a_few_tokens(
    kind: str, method: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of a pass over the whole text, of large models too, and None where that fails."""
    if kind in families.FAMILIES:
        folder = families.save_family(kind, tmp_path / kind)
    elif kind in language_models.KINDS:
        folder = language_models.save_models(tmp_path)[kind]
    else:
        shape = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 96, "vocab_size": 120}
        config = {"GPT-J": GPTJConfig, "CTRL": CTRLConfig}[kind](**shape, rotary_dim=8, dff=32)
        folder = tmp_path / kind
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    encoder: Any = language_models.trained(folder, method, options, steps=0)[0].encoder
    read: list[int] = []
    encoder.get_input_embeddings().register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
    for length in (1, 40, 91, 96, 97):
        ids = torch.ones(1, length, dtype=torch.long)
        try:
            expected = encoder(input_ids=ids, attention_mask=ids)[0].shape[1]
        except (IndexError, RuntimeError):
            expected = None
        read.clear()
        assert trial.positions(encoder, length) == expected
        with monkeypatch.context() as patch:
            patch.setattr(trial, "LARGE", 0)
            assert trial.positions(encoder, length) == expected
        assert set(read) <= {trial.SHORT}


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_weights_are_computed_with(
    quantization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold more than numbers, which fake tensors lack."""
    pytest.importorskip("bitsandbytes")
    folders = language_models.save_models(tmp_path)
    spec = language_models.spec_of(folders["Llama"], "lora", {})
    settings = Settings.model_validate({**spec.settings.model_dump(), "quantization": quantization})
    spec = spec.model_copy(update={"settings": settings})
    monkeypatch.setattr(trial, "LARGE", 0)
    model = build_model(folders["Llama"], spec, make_method(spec.method), make_task(settings.task))
    assert trial.unused_parameters(model) == []
    assert trial.positions(model.encoder, 20) == 20


def test_a_large_model_of_several_media_is_tried_in_a_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one layer in each of its parts, of which text reaches one; trained is what text reaches."""
    folder = language_models.save_composite(tmp_path / "gemma3")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    monkeypatch.setattr(trial, "LARGE", 0)
    assert trial.is_causal(model)
    twin = trial._twin(model)
    assert sum(weight.numel() for weight in twin.parameters()) < sum(weight.numel() for weight in model.parameters())
    assert trial.unread_parts(model) == ["model.vision_tower", "model.multi_modal_projector"]
    assert trial.unread_parts(model.get_decoder()) == []


@pytest.mark.parametrize("causal", [True, False])
def test_a_twin_tells_what_its_model_tells(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A one-layer twin reads both ways where its model does."""
    common = {"vocab_size": 300, "num_hidden_layers": 2}
    llama = LlamaConfig(hidden_size=32, intermediate_size=32, num_attention_heads=2, num_key_value_heads=2, **common)
    model: PreTrainedModel = LlamaForCausalLM(llama)
    for layer in model.model.layers:
        layer.self_attn.is_causal = causal
    assert trial.is_causal(model) is causal
    twin = trial._twin(model)
    assert sum(weight.numel() for weight in twin.parameters()) < sum(weight.numel() for weight in model.parameters())
