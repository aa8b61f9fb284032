"""Systems that others trained load with the logits that they had; what doesn't fit is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from helpers import language_models
from helpers.language_models import logits
from hpml_bench.suite import registry
from hpml_bench.system.errors import UserError
from hpml_bench.training.saving import save_trained
from hpml_bench.training.systems import load_system

KIND = "Llama"


def adapter(base: Path, to: Path, **changes: Any) -> torch.Tensor:
    """Save a LoRA adapter of PEFT with random weights, and return its logits."""
    options = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options | changes))
    model.save_pretrained(to)
    return language_models.logits_of(model)


def loaded(base: Path, where: Path) -> torch.Tensor:
    """Return the logits of a system, loaded by the method `trained` as a suite names it."""
    return logits(language_models.trained(base, "trained", {"path": str(where)})[0])


def test_an_adapter_of_peft_answers_as_it_did(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """Nothing of it is trained, and none of its tensors is left out."""
    expected = adapter(model_folders[KIND], tmp_path)
    torch.testing.assert_close(loaded(model_folders[KIND], tmp_path), expected, rtol=1e-4, atol=1e-4)
    model = language_models.trained(model_folders[KIND], "trained", {"path": str(tmp_path)})[0]
    assert not any(weight.requires_grad for weight in model.parameters())


def test_a_checkpoint_replaces_the_weights(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """Those of the output layer too."""
    model = AutoModelForCausalLM.from_pretrained(model_folders[KIND])
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(tmp_path)
    expected = language_models.logits_of(model)
    torch.testing.assert_close(loaded(model_folders[KIND], tmp_path), expected, rtol=1e-4, atol=1e-4)


def test_content_is_part_of_the_identity(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """The same path with other weights is another run; a folder changed between plan and run is refused."""
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


@pytest.mark.parametrize(("edit", "said"), [
    (lambda folder: _drop(folder, "lora_B"), "the adapter lacks the tensor .*lora_B"),
    (lambda folder: _edit(folder / "adapter_config.json", target_modules=["q_proj"]), "no place for the tensor"),
    (lambda folder: _edit(folder / "adapter_config.json", target_modules=["query"]), "[Tt]arget modules"),
    (lambda folder: _edit(folder / "adapter_config.json", r=3), "size mismatch"),
    (lambda folder: _edit(folder / "adapter_config.json", task_type="SEQ_CLS"), "is an adapter for SEQ_CLS"),
    (lambda folder: (folder / "adapter_model.safetensors").unlink(), "is missing"),
    (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"no"), "PEFT can't put the adapter"),
])  # fmt: skip
def test_an_adapter_that_does_not_fit(edit: Any, said: str, model_folders: dict[str, Path], tmp_path: Path) -> None:
    """A sentence says what is wrong, before anything is scored."""
    adapter(model_folders[KIND], tmp_path)
    edit(tmp_path)
    with pytest.raises(UserError, match=said):
        load_system(AutoModelForCausalLM.from_pretrained(model_folders[KIND]), tmp_path)


def test_an_adapter_of_another_base(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """Known where the base that it names is on this machine; a copy of the same tensors is the same base."""
    model = AutoModelForCausalLM.from_pretrained(model_folders[KIND])
    model.save_pretrained(tmp_path / "copy")
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    model.save_pretrained(tmp_path / "other")
    for name in ("copy", "other"):
        adapter(tmp_path / name, tmp_path / name / "adapter")
    loaded(model_folders[KIND], tmp_path / "copy" / "adapter")
    with pytest.raises(UserError, match="other weights than the suite's backbone"):
        loaded(model_folders[KIND], tmp_path / "other" / "adapter")


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
