"""Quantised backbones: what they compute, train, refuse, count, merge and save, beside the same
in floats.
"""

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers import language_models, tiny
from helpers.classifiers import build
from helpers.commands import called
from helpers.language_models import logits
from hpml_bench import load_trained
from hpml_bench.builtin.methods.head import Head
from hpml_bench.builtin.probes.parameters import ParametersProbe
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.method import Method
from hpml_bench.plugins.probe import Run
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import quantization
from hpml_bench.training.kernels import autocast
from hpml_bench.training.saving import save_trained

bitsandbytes = pytest.importorskip("bitsandbytes", minversion="0.48")

LINEAR = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)} | {
    "gate_proj": (64, 32), "up_proj": (64, 32), "down_proj": (32, 64),
}  # fmt: skip
"""Shapes [out, in] of a block's linear layers in the small Llama; there are two blocks."""
IN_LINEAR = 2 * sum(math.prod(shape) for shape in LINEAR.values())
OTHERS = 2 * language_models.VOCABULARY * 32 + 5 * 32  # embeddings, output layer and norms of it


def values_of(weight: torch.Tensor, kind: str, double: bool = True) -> torch.Tensor:
    """Return what quantising a weight leaves of it, by bitsandbytes' functions alone."""
    functional = bitsandbytes.functional
    if kind == "nf4":
        packed, state = functional.quantize_4bit(
            weight, compress_statistics=double, quant_type="nf4"
        )
        return functional.dequantize_4bit(packed, state)
    half = weight.half()
    scale = half.abs().amax(1, keepdim=True).float()
    return (half * (127 / scale)).round() * scale / 127


def plain(folder: Path, kind: str, double: bool = True) -> Any:
    """Return a language model of transformers in floats whose linear layers have the values that
    quantising leaves.
    """
    model = AutoModelForCausalLM.from_pretrained(folder)
    for name, layer in model.named_modules():
        if name != "lm_head" and type(layer) is nn.Linear:
            layer.weight.data = values_of(layer.weight.data, kind, double)
        elif type(layer).__name__ == "Conv1D":
            layer.weight.data = values_of(layer.weight.data.T.contiguous(), kind, double).T
    return model.eval()


def as_eight_bits(inputs: torch.Tensor) -> torch.Tensor:
    """Return inputs [B, L, H] as LLM.int8() rounds them: by rows, but for columns in which any
    is six or more.
    """
    rows = inputs.flatten(0, 1).half()
    large = rows.abs() >= 6
    scale = (
        rows.masked_fill(large, 0).abs().amax(1, keepdim=True).float().clamp(min=1e-9)
    )  # padding is zero
    rounded = (rows * (127 / scale)).round() * scale / 127
    return torch.where(large.any(0), rows.float(), rounded).view_as(inputs)


def quantized_layers(model: nn.Module) -> list[str]:
    """Return the last parts of the names of a model's quantised layers."""
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    names = [name for name, layer in model.named_modules() if isinstance(layer, kinds)]
    return sorted({name.removesuffix(".base_layer").rpartition(".")[2] for name in names})


@pytest.mark.parametrize("kind", language_models.KINDS)
@pytest.mark.parametrize("double", [True, False])
def test_four_bits_compute_with_dequantised_weights(
    double: bool, kind: str, model_folders: dict[str, Path]
) -> None:
    """The logits are those of floats with the values that bitsandbytes' functions leave; the
    output layer stays.
    """
    spec = {"name": "nf4", "double_quantization": double}
    model, _, _, _ = language_models.trained(model_folders[kind], "none", quantization=spec)
    expected = language_models.logits_of(plain(model_folders[kind], "nf4", double))
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(model_folders[kind])
    assert (language_models.logits_of(base) - expected).abs().max() > 0.05
    assert "lm_head" not in quantized_layers(model)
    assert quantized_layers(model) == (
        ["c_attn", "c_fc", "c_proj"] if kind == "GPT-2" else sorted(LINEAR)
    )


def test_int8_takes_dequantised_weights(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU in training; in an evaluation inputs are rounded to 8 bits too, by LLM.int8()'s
    rule.
    """
    # products of integers overflow in oneDNN without VNNI; torch has another kernel for processors
    # that lack it (pytorch#136942), but asks the processor, not oneDNN whether it is limited: here
    # products are exact then
    if os.environ.get("ONEDNN_MAX_CPU_ISA"):
        monkeypatch.setattr(torch, "_int_mm", lambda one, other: one.int() @ other.int())
    model, _, _, _ = language_models.trained(model_folders["Llama"], "none", quantization="int8")
    assert quantized_layers(model) == sorted(LINEAR)
    expected = plain(model_folders["Llama"], "int8")
    torch.testing.assert_close(
        logits(model.train()), language_models.logits_of(expected), rtol=1e-3, atol=1e-3
    )
    name, inputs = (
        "model.layers.0.mlp.up_proj",
        2 * torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0)),
    )
    assert 0 < (inputs.abs() >= 6).sum() < 10
    layer, floats = model.eval().encoder.get_submodule(name), expected.get_submodule(name)
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs), floats(as_eight_bits(inputs)), rtol=0, atol=5e-3)
        assert (layer(inputs) - floats(inputs)).abs().max() > 2e-2


def test_gradients_are_those_of_the_dequantised_weights(model_folders: dict[str, Path]) -> None:
    """Of a text's embeddings, through every layer; also after an evaluation, for which some CPUs
    repack weights.
    """
    ids, mask, labels = language_models.texts()
    found = []
    for model in (
        language_models.trained(model_folders["Llama"], "none", quantization="nf4")[0].encoder,
        plain(model_folders["Llama"], "nf4"),
    ):
        encoder = model
        with torch.no_grad():
            encoder.eval()(input_ids=ids, attention_mask=mask)
        words = encoder.get_input_embeddings()(ids).detach().requires_grad_()
        encoder.train()(inputs_embeds=words, attention_mask=mask, labels=labels).loss.backward()
        found.append(words.grad)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert found[0].abs().max() > 1e-4


def test_the_type_of_products_follows_the_precision(model_folders: dict[str, Path]) -> None:
    """Unless the settings name another."""

    def types(**changes: Any) -> set[torch.dtype]:
        model = build(model_folders["bare"], "head", **changes)
        return {
            layer.compute_dtype
            for layer in model.modules()
            if isinstance(layer, bitsandbytes.nn.Linear4bit)
        }

    assert types(quantization="nf4") == {torch.float32}
    assert types(quantization="nf4", precision="bf16") == {torch.bfloat16}
    assert types(quantization={"name": "nf4", "compute_dtype": "float16"}) == {torch.float16}


def test_weights_in_bfloat16_leave_norms_in_float32(model_folders: dict[str, Path]) -> None:
    """Embeddings and output layer are in the type that the settings say; logits are nearly those
    of float32.
    """
    changes = {"weights": "bfloat16", "precision": "bf16"}
    model, _, _, spec = language_models.trained(model_folders["Llama"], "qlora", steps=0, **changes)
    found = {
        name.removesuffix(".weight").rpartition(".")[2]: weight.dtype
        for name, weight in model.named_parameters()
        if not weight.requires_grad and "base_layer" not in name
    }
    norms = dict.fromkeys(("input_layernorm", "post_attention_layernorm", "norm"), torch.float32)
    assert found == norms | {"embed_tokens": torch.bfloat16, "lm_head": torch.bfloat16}
    expected = logits(language_models.trained(model_folders["Llama"], "qlora", steps=0)[0])
    with autocast(spec.settings), quantization.merged_in_floats(model.eval().encoder):
        merged = logits(model)
    with autocast(spec.settings):
        found = logits(model)
    for one, other in ((found, expected), (found, merged)):
        assert (one - other).abs().mean() < 0.1 * expected.std(), (
            "a few weights fall on another of the 16 levels"
        )


@pytest.mark.parametrize(
    ("kind", "method", "options", "told"),
    [
        ("nf4", "full", {}, "trains the backbone's own weights"),
        ("int8", "full", {}, "trains the backbone's own weights"),
        ("nf4", "peft", {"type": "DORA"}, "computes with the backbone's weights"),
        ("int8", "peft", {"type": "SHIRA"}, "computes with the backbone's weights"),
        ("nf4", "peft", {"type": "PISSA"}, "starts from a decomposition"),
        ("int8", "peft", {"type": "CORDA"}, "starts from a decomposition"),
    ],
)
def test_what_needs_float_weights_is_unsupported(
    method: str, options: dict[str, Any], told: str, kind: str, model_folders: dict[str, Path]
) -> None:
    """Of both kinds of tasks; one sentence, and the run is a row of the report."""
    with pytest.raises(Unsupported, match=told):
        language_models.trained(model_folders["Llama"], method, options, quantization=kind)
    if method == "full":
        with pytest.raises(Unsupported, match=told):
            build(model_folders["bare"], method, quantization=kind)


def test_a_method_that_trains_a_part_of_the_backbone_is_unsupported(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever method it is: bitsandbytes gives biases no right gradient."""

    def biases(method: Method, backbone: Any) -> Any:
        for name, weight in backbone.named_parameters():
            weight.requires_grad_(name.endswith("bias"))
        return backbone

    monkeypatch.setattr(Head, "build", biases)
    with pytest.raises(Unsupported, match=r"trains weights of the backbone, among them .*bias"):
        build(model_folders["bare"], "head", quantization="nf4")


@pytest.mark.parametrize(("method", "setting"), [("qlora", None), ("lora", "int8")])
def test_a_missing_package(
    method: str, setting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence with what to install, and no run."""
    monkeypatch.setattr("hpml_bench.plugins.method.find_spec", lambda name: None)
    suite = tiny.local_suite(tmp_path, quantization=setting)
    command = ["run", method, str(suite), "--out", str(tmp_path / "out"), "--wandb", "off"]
    done = called(*command, status=2)
    assert "pip install 'bitsandbytes" in done.output
    assert not (tmp_path / "out").exists()


def test_a_setting_is_overridden_by_its_parts(tmp_path: Path) -> None:
    """A name alone is spelled out first; and a run without quantisation keeps its id."""
    suite = tiny.local_suite(tmp_path, quantization="nf4")
    found = load_suite(str(suite), ["quantization.double_quantization=false"]).settings.quantization
    assert (found.name, found.double_quantization) == ("nf4", False)
    assert load_suite(str(suite), ["quantization=null"]).settings.quantization is None
    assert (
        tiny.spec().run_id
        == tiny.spec(quantization=None).run_id
        != tiny.spec(quantization="nf4").run_id
    )


@pytest.mark.parametrize(
    ("setting", "scales"),
    [
        # a scale of four bytes a block of 64, and 16 levels of four bytes a layer
        ({"name": "nf4", "double_quantization": False}, IN_LINEAR // 64 * 4 + 14 * 16 * 4),
        # a byte a block, and a layer's 16 levels, 256 levels of the scales, one scale of theirs,
        # and an offset
        ("nf4", IN_LINEAR // 64 + 14 * (16 + 256 + 1 + 1) * 4),
        # four bytes a row
        ("int8", 2 * sum(rows for rows, _ in LINEAR.values()) * 4),
    ],
)
def test_parameters_are_counted(
    setting: Any, scales: int, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """By hand: what quantised weights stand for, PEFT's own count, and bytes as stored; also
    after a forward pass.
    """
    model, made, task, spec = language_models.trained(
        model_folders["Llama"], "lora", {"r": 2}, quantization=setting
    )
    probe = ParametersProbe()
    group = SimpleNamespace(main=True, rank=0)
    run = Run(spec.settings, group, model, made, task, None, tmp_path, 0.0)
    probe.start(run)
    probe.after_training()
    found = probe.stop()
    trained = 2 * 2 * sum(sum(shape) for shape in LINEAR.values())
    assert found["trainable_parameters"] == trained
    assert found["total_parameters"] == IN_LINEAR + OTHERS + trained
    assert (trained, found["total_parameters"]) == model.encoder.get_nb_trainable_parameters()
    assert (
        found["frozen_bytes"]
        == (IN_LINEAR if setting == "int8" else IN_LINEAR // 2) + 4 * OTHERS + scales
    )
    assert found["frozen_bf16_percent"] == 0


def updated(model: Any, folder: Path, kind: str, *, again: bool = False) -> Any:
    """Return `plain` with the updates of a model of ours, quantised `again` or not."""
    expected = plain(folder, kind)
    layers = dict(expected.named_modules())
    for name, layer in model.encoder.base_model.model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            layers[name].weight.data += layer.get_delta_weight("default").detach()
            if again:
                layers[name].weight.data = values_of(layers[name].weight.data, kind)
    return expected


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("nf4", "qlora", {}),
        ("nf4", "peft", {"type": "VERA"}),
        ("int8", "lora", {}),
        ("nf4", "prompt_tuning", {"tokens": 5}),  # which adds to no weight
    ],
)
def test_merging_in_floats_adds_the_updates_to_the_dequantised_weights(
    kind: str, method: str, options: dict[str, Any], model_folders: dict[str, Path]
) -> None:
    """As transformers computes with weights put together here; afterwards the model is what it
    was.
    """
    model, _, _, _ = language_models.trained(
        model_folders["Llama"], method, options, quantization=kind
    )
    before = logits(model)
    expected = updated(model, model_folders["Llama"], kind)
    with quantization.merged_in_floats(model.encoder) as merged:
        assert merged == (method != "prompt_tuning")
        if not merged:
            return
        torch.testing.assert_close(
            logits(model), language_models.logits_of(expected), rtol=1e-3, atol=2e-3
        )
    assert torch.equal(logits(model), before)
    if kind == "nf4":
        torch.testing.assert_close(
            before, language_models.logits_of(expected), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_merge_quantises_again(kind: str, model_folders: dict[str, Path]) -> None:
    """PEFT's merged weights have the values that quantising leaves of the sums."""
    model, made, _, _ = language_models.trained(model_folders["Llama"], "lora", quantization=kind)
    expected = updated(model, model_folders["Llama"], kind, again=True)
    merged = model.with_encoder(
        made.merge(model.encoder)
    ).train()  # on a CPU int8 then has float inputs
    torch.testing.assert_close(
        logits(merged), language_models.logits_of(expected), rtol=1e-3, atol=5e-3
    )
    assert quantized_layers(merged) == sorted(LINEAR)


@pytest.mark.parametrize("kind", ["Llama", "GPT-2"])
def test_a_saved_qlora_loads(kind: str, model_folders: dict[str, Path], tmp_path: Path) -> None:
    """By our own function bit for bit, and by PEFT onto a base that transformers quantised."""
    model, made, _, spec = language_models.trained(model_folders[kind], "qlora")
    expected = logits(model)
    save_trained(model, made, spec, language_models.prepared(model_folders[kind]), tmp_path)
    assert torch.equal(logits(load_trained(tmp_path)), expected)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="float32",
    )
    base = AutoModelForCausalLM.from_pretrained(
        model_folders[kind], quantization_config=config, device_map="cpu"
    )
    loaded = PeftModel.from_pretrained(base, tmp_path)
    for layer in loaded.modules():  # as ours: products in float32 on every CPU
        layer.support_avx512bf16_for_cpu = False
    torch.testing.assert_close(language_models.logits_of(loaded), expected, rtol=1e-4, atol=1e-4)


def test_a_run_on_four_bits_over_one_rank_and_two(tmp_path: Path) -> None:
    """DDP leaves packed weights as they are; merging changes nothing in floats, something where
    it quantises again.
    """
    alone = tiny.run_and_save(
        tmp_path, "qlora", tiny.task_settings(tmp_path, "causal_lm", world_size=1)
    )
    assert (
        "base model's linear layers stored in nf4" in (tmp_path / "saved" / "README.md").read_text()
    )
    spec = alone.spec.model_copy(
        update={"settings": alone.spec.settings.model_copy(update={"world_size": 2})}
    )
    two = tiny.run(spec, prepare(spec.settings), tmp_path / "two")
    one = alone.metrics
    assert one["test_loss"] == pytest.approx(two.metrics["test_loss"], rel=1e-4)
    assert one["frozen_bytes"] == two.metrics["frozen_bytes"]
    assert one["dequantized_test_loss"] == pytest.approx(one["test_loss"], rel=1e-5)
    assert one["dequantized_test_score"] == one["test_score"]
    assert one["dequantized_answers_changed"] == 0
    assert abs(one["merged_test_loss"] - one["test_loss"]) > 1e-4
    assert one["dequantized_bytes"] == 4 * (one["total_parameters"] - one["trainable_parameters"])
