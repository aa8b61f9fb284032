"""Models that are no plain transformer: what of them is adapted and quantised, and that it
trains, saves and merges.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

from helpers import language_models
from helpers.language_models import logits, trained
from hpml_bench import load_trained
from hpml_bench.plugins.decoding import Decoding, Generator
from hpml_bench.plugins.group import Group
from hpml_bench.suite import registry
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.training import generation
from hpml_bench.training.causal_lm import needs_mask
from hpml_bench.training.quantization import coverage
from hpml_bench.training.saving import save_trained
from hpml_bench.training.systems import load_system
from hpml_bench.training.trial import unused_parameters

COVERED = {
    "mixtral": (100, 11), "gpt_oss": (97, 11), "granitemoe": (100, 11), "qwen2_moe": (99, 43),
    "phimoe": (100, 11),
    "llama4_text": (100, 43), "jamba": (97, 39), "falcon_h1": (85, 85), "nemotron_h": (84, 57),
    "mamba": (48, 48),
    "falcon_mamba": (48, 48), "mamba2": (67, 67),
}  # fmt: skip
"""Percent of the weights in matrices that `qlora` adapts, as `lora` does, and that it quantises."""
if Version(transformers.__version__) >= Version("5.25"):
    # its layers are called one by one since; PEFT still refuses an update of `out_proj`
    COVERED["falcon_mamba"] = (64, 88)


@pytest.mark.parametrize("kind", COVERED)
def test_lora_adapts_experts_and_spares_what_reads_its_weights(
    kind: str, task_folder: Path, tmp_path: Path
) -> None:
    """Each update has an effect; it is saved, loaded by PEFT too, and merged, to the same
    logits.
    """
    base = language_models.save_family(kind, task_folder / kind)
    model, made, _, spec = trained(base, "lora")
    found, shares = logits(model), coverage(model.encoder)
    assert round(shares["adapted_percent"]) == COVERED[kind][0]
    assert unused_parameters(model) == []
    save_trained(model, made, spec, language_models.prepared(base), tmp_path)
    assert torch.equal(logits(load_trained(tmp_path)), found)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    torch.testing.assert_close(language_models.logits_of(loaded), found, rtol=1e-4, atol=1e-4)
    merged = model.with_encoder(made.merge(model.encoder)).eval()
    torch.testing.assert_close(logits(merged), found, rtol=1e-3, atol=1e-3)


PLAIN = (
    "gpt2",
    "llama",
    "qwen2",
    "qwen3",
    "phi3",
    "gemma",
    "opt",
    "gpt_neox",
    "falcon",
    "olmo2",
    "cohere",
    "stablelm",
)
MASKED = {"gpt_oss", "llama4_text", "gemma4_text", "mamba", "falcon_mamba", "mamba2"}
"""Windows, or no attention that says that it is causal."""


@pytest.mark.parametrize("kind", [*language_models.FAMILIES, *PLAIN])
def test_padding_on_the_right_is_read_without_a_mask(kind: str, task_folder: Path) -> None:
    """States of real tokens are equal to the bit; a model with windows keeps its mask."""
    if kind in language_models.FAMILIES:
        model = AutoModelForCausalLM.from_pretrained(
            language_models.save_family(kind, task_folder / kind)
        )
    else:
        fields = CONFIG_MAPPING[kind].__dataclass_fields__
        options = {
            "num_hidden_layers": 2,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
        } | language_models.COMMON
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            CONFIG_MAPPING[kind](**{key: value for key, value in options.items() if key in fields})
        )
    assert needs_mask(model) == (kind in MASKED)
    ids = 3 + torch.arange(60).view(3, 20) % 50
    mask = (torch.arange(20) < torch.tensor([[20], [12], [5]])).long()
    with torch.no_grad():
        masked, bare = (
            model.eval()(input_ids=ids, attention_mask=seen)[0][mask.bool()]
            for seen in (mask, None)
        )
    assert torch.equal(masked, bare)


@pytest.mark.parametrize("kind", COVERED)
def test_qlora_quantises_what_no_kernel_reads(kind: str, task_folder: Path) -> None:
    """Packed weights that the model's code reads itself would be misread: they stay floats, as
    stacked experts do.
    """
    pytest.importorskip("bitsandbytes")
    base = language_models.save_family(kind, task_folder / kind)
    model = trained(base, "qlora", steps=2)[0]
    shares = coverage(model.encoder)
    assert (
        tuple(map(round, (shares["adapted_percent"], shares["quantized_percent"]))) == COVERED[kind]
    )
    assert logits(model).isfinite().all()


def test_qlora_takes_a_target(model_folders: dict[str, Path]) -> None:
    """Its updates stand beside the layers that are named, and all linear layers are quantised."""
    pytest.importorskip("bitsandbytes")
    model = trained(model_folders["Llama"], "qlora", {"target": ["q_proj"]}, steps=1)[0]
    assert {
        name.split(".")[-4] for name, weight in model.named_parameters() if weight.requires_grad
    } == {"q_proj"}
    assert coverage(model.encoder)["quantized_percent"] == 100


@pytest.mark.parametrize(
    ("kind", "method", "options", "reason"),
    [
        (
            "mamba",
            "lora",
            {"target": ["x_proj"]},
            "update of backbone.layers.0.mixer.x_proj has no effect",
        ),
        ("falcon_h1", "lora", {"target": ["out_proj"]}, "incompatible with Mamba"),
        (
            "phimoe",
            "lora",
            {"target": ["router", "q_proj"]},
            "update of model.layers.0.mlp.router has no effect",
        ),
        ("granitemoe", "lora", {"dropout": 0.1}, "no dropout for updates of experts"),
        ("gemma4_text", "prompt_tuning", {}, "embedding by a token's id"),
        ("gemma4_text", "peft", {"type": "P_TUNING"}, "reverse the embedding"),
        ("mamba", "prompt_tuning", {}, "num_attention_heads"),
    ],
)
def test_what_does_not_fit_is_unsupported_with_a_reason(
    kind: str, method: str, options: dict[str, Any], reason: str, task_folder: Path
) -> None:
    """When the model is built, not by a traceback in training."""
    with pytest.raises(Unsupported, match=reason):
        trained(language_models.save_family(kind, task_folder / kind), method, options, steps=1)


def test_lora_by_pefts_name_is_lora(task_folder: Path) -> None:
    """With the same rank and scale, experts included; options that PEFT can't combine with
    experts leave those out.
    """
    base = language_models.save_family("gpt_oss", task_folder / "gpt_oss")
    plain, by_name = (
        {
            name: weight.shape
            for name, weight in trained(base, *method, steps=0)[0].named_parameters()
        }
        for method in (("lora", {}), ("peft", {"type": "LORA", "r": 8, "lora_alpha": 16}))
    )
    assert plain == by_name
    shares = coverage(trained(base, "peft", {"type": "DORA"}, steps=1)[0].encoder)
    assert round(shares["adapted_percent"]) == 11


def test_only_what_acts_on_weights_has_a_coverage(model_folders: dict[str, Path]) -> None:
    """Prompts, adapters and full fine-tuning have none, nor a model of the caller's own."""
    for method in ("full", "prompt_tuning", "adapter", "none"):
        assert coverage(trained(model_folders["Llama"], method, steps=0)[0].encoder) == {}
    assert coverage(nn.ModuleDict({"part": nn.Linear(2, 2)})) == {}


@pytest.mark.parametrize("kind", language_models.COMPOSITES)
def test_of_a_model_listed_for_images_the_text_model_is_trained(kind: str, tmp_path: Path) -> None:
    """Where transformers lists no language model of the kind; its logits are theirs, and its
    cache holds.
    """
    base = language_models.save_of_images(kind, tmp_path / kind)
    theirs = AutoModelForImageTextToText.from_pretrained(base)
    expected = language_models.logits_of(theirs)
    torch.testing.assert_close(logits(trained(base, "none")[0]), expected, rtol=1e-4, atol=1e-4)
    model = trained(base, "lora", steps=1)[0]
    named = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(named) == 2 * 2 * (6 if kind == "glm4v" else 7)
    assert not [name for name in named if "vision" in name or "visual" in name]
    prompts = language_models.prompts(4)
    generator = Generator(Decoding(6), (), str, language_models.PAD, batch=4, seed=0)
    run: Any = SimpleNamespace(
        model=model, generator=generator, group=Group(0, 1, torch.device("cpu"))
    )
    assert generation._cache_holds(run, ([*range(4)], prompts))


# Systems that others trained load with the logits that they had; what doesn't fit is refused in a
# sentence


KIND = "Llama"


def adapter(base: Path, to: Path, **changes: Any) -> torch.Tensor:
    """Save a LoRA adapter of PEFT with random weights, and return its logits."""
    options = {
        "r": 2,
        "target_modules": ["q_proj", "v_proj"],
        "init_lora_weights": False,
        "task_type": "CAUSAL_LM",
    }
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options | changes)
    )
    model.save_pretrained(to)
    return language_models.logits_of(model)


def loaded(base: Path, where: Path) -> torch.Tensor:
    """Return the logits of a system, loaded by the method `trained` as a suite names it."""
    return logits(language_models.trained(base, "trained", {"path": str(where)})[0])


def test_an_adapter_and_a_checkpoint_answer_as_they_did(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing is trained, no tensor of an adapter is left out, and all weights are a
    checkpoint's.
    """
    expected = adapter(model_folders[KIND], tmp_path / "adapter")
    system = language_models.trained(
        model_folders[KIND], "trained", {"path": str(tmp_path / "adapter")}
    )[0]
    torch.testing.assert_close(logits(system), expected, rtol=1e-4, atol=1e-4)
    assert not any(weight.requires_grad for weight in system.parameters())
    model = AutoModelForCausalLM.from_pretrained(model_folders[KIND])
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(tmp_path)
    expected = language_models.logits_of(model)
    torch.testing.assert_close(
        loaded(model_folders[KIND], tmp_path), expected, rtol=1e-4, atol=1e-4
    )


def test_content_is_part_of_the_identity(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """The same path with other weights is another run; a folder changed between plan and run is
    refused.
    """
    options = registry.plugin("methods", "trained").Options
    adapter(model_folders[KIND], tmp_path)
    before = options(path=str(tmp_path))
    adapter(model_folders[KIND], tmp_path, r=4)
    assert before.digest != options(path=f"path:{tmp_path}").digest != ""
    with pytest.raises(UserError, match="isn't what it was"):
        language_models.trained(model_folders[KIND], "trained", before.model_dump())


def _drop(folder: Path, name: str) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors[next(key for key in tensors if name in key)]
    save_file(tensors, folder / "adapter_model.safetensors")


def _edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda folder: _drop(folder, "lora_B"), "the adapter lacks the tensor .*lora_B"),
        (
            lambda folder: _edit(folder / "adapter_config.json", target_modules=["q_proj"]),
            "no place for the tensor",
        ),
        (
            lambda folder: _edit(folder / "adapter_config.json", target_modules=["query"]),
            "[Tt]arget modules",
        ),
        (lambda folder: _edit(folder / "adapter_config.json", r=3), "size mismatch"),
        (
            lambda folder: _edit(folder / "adapter_config.json", task_type="SEQ_CLS"),
            "is an adapter for SEQ_CLS",
        ),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "is missing"),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"no"),
            "PEFT can't put the adapter",
        ),
    ],
)
def test_an_adapter_that_does_not_fit(
    edit: Any, said: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """A sentence says what is wrong, before anything is scored."""
    adapter(model_folders[KIND], tmp_path)
    edit(tmp_path)
    with pytest.raises(UserError, match=said):
        load_system(AutoModelForCausalLM.from_pretrained(model_folders[KIND]), tmp_path)


def test_an_adapter_of_another_base(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """Known where the base that it names is on this machine, by its files; none that it names is
    not asked for.
    """
    model = AutoModelForCausalLM.from_pretrained(model_folders[KIND])
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    model.save_pretrained(tmp_path)
    adapter(tmp_path, tmp_path / "adapter")
    with pytest.raises(UserError, match=r"other weights than .* set base_model_name_or_path in"):
        loaded(model_folders[KIND], tmp_path / "adapter")
    _edit(tmp_path / "adapter/adapter_config.json", base_model_name_or_path=None)
    loaded(model_folders[KIND], tmp_path / "adapter")


def test_other_systems_that_do_not_fit(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """A checkpoint of another architecture, a saved run of another base, no folder."""
    with pytest.raises(UserError, match="is a gpt2, and the suite's backbone a llama"):
        loaded(model_folders[KIND], model_folders["GPT-2"])
    model, made, _, spec = language_models.trained(model_folders["GPT-2"], "lora")
    save_trained(model, made, spec, language_models.prepared(model_folders["GPT-2"]), tmp_path)
    with pytest.raises(UserError, match="other weights than the suite's backbone"):
        loaded(model_folders[KIND], tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        loaded(model_folders[KIND], tmp_path / "none")
