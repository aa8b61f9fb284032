"""Saving what a run trained, and loading it again: tensors, PEFT's own files, the whole model where all is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from hpml_bench.config.settings import RunSpec
from hpml_bench.data.prepare import weights_digest
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import resolve_model
from hpml_bench.errors import UserError
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.task import make_task
from hpml_bench.training.model import TaskModel, build_model

TENSORS = "trained.safetensors"
RUN = "run_spec.json"
FROM_DATA = {"eva": "load PEFT's files by PeftModel.from_pretrained", "corda": "use another method to keep its result"}
"""Starts of LoRA that can't be built anew, and what to do."""


def save_trained(model: TaskModel, method: Method, spec: RunSpec, prepared: Prepared, folder: Path) -> None:
    """Write what was trained: every trained tensor by name, and besides what other programs read.

    That is PEFT's adapter files of its models, else the whole model where its own weights were trained; and the
    tokenizer with its chat template.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder: Any = model.encoder
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    save_file({name: weight.detach().cpu().contiguous().clone() for name, weight in trained.items()}, folder / TENSORS)
    if not method.save(encoder, folder):
        if isinstance(encoder, PeftModel):
            encoder.save_pretrained(str(folder), save_embedding_layers=False)
        elif isinstance(encoder, PreTrainedModel) and _is_whole(encoder):
            encoder.save_pretrained(folder)
    if (Path(prepared.backbone) / "tokenizer.json").exists():
        for pattern in ("*token*.json", "chat_template.*"):
            for file in Path(prepared.backbone).glob(pattern):
                (folder / file.name).write_bytes(file.read_bytes())
    facts = {
        "spec": spec.model_dump(mode="json"),
        "label_names": prepared.label_names,
        "facts": prepared.facts,
        "digests": prepared.digests.model_dump(mode="json"),
    }
    (folder / RUN).write_text(json.dumps(facts, indent=1) + "\n")


def _is_whole(encoder: nn.Module) -> bool:
    """Tell whether a model was trained and is as its class makes it, so that its class loads it."""
    if not any(weight.requires_grad for weight in encoder.parameters()):
        return False
    made = type(cast(Any, encoder).config)
    with torch.device("meta"):
        fresh = type(encoder)(made.from_dict(cast(Any, encoder).config.to_dict()))
    return set(encoder.state_dict()) <= set(fresh.state_dict())  # BERT's has a pooler besides


def load_trained(folder: Path) -> TaskModel:
    """Return the model of a run that `save_trained` wrote, in evaluation mode; the base model comes from its source.

    Raises:
        UserError: the folder holds no such run, or its base model can't be had.

    """
    try:
        facts = json.loads((folder / RUN).read_text())
        spec = RunSpec.model_validate(facts["spec"])
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder}: holds no model that `hpml-bench run --save` wrote: {error}") from None
    task = make_task(spec.settings.task, tuple(facts["label_names"]), facts["facts"])
    base = resolve_model(spec.settings.backbone).folder_or_file
    if weights_digest(base) != facts["digests"]["weights"]:
        raise UserError(f"{folder}: was trained from other weights than {spec.settings.backbone} has now")
    with torch.enable_grad():  # whoever loads may have switched it off, and some methods are built by trying
        model = build_model(base, spec, make_method(spec.method), task)
    start = getattr(getattr(model.encoder, "active_peft_config", None), "init_lora_weights", None)
    if start in FROM_DATA:
        raise UserError(f"{folder}: {start} starts from the training's data, which isn't kept; {FROM_DATA[start]}")
    there = dict(model.named_parameters())
    lacking = sorted(name for name, tensor in tensors.items() if name not in there or there[name].shape != tensor.shape)
    if lacking:
        raise UserError(
            f"{folder}: the model built anew has no such parameter {lacking[0]}; was it saved by another version?"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            there[name].copy_(tensor)
    return model.eval()
