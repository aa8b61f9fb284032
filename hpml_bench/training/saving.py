"""Saving and loading of trained weights: tensors, PEFT's own files, the whole model where all of
it is trained.
"""

import json
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from hpml_bench.data.prepare import weights_digest
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import resolve_model
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.plugins.tokenizer import Encoder, load_tokenizer
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import check_regular, read_bytes
from hpml_bench.training.model import build_model

TENSORS = "trained.safetensors"
RUN = "run_spec.json"
FROM_DATA = {
    "eva": "load PEFT's files by PeftModel.from_pretrained",
    "corda": "use another method to keep its result",
}
"""Initialisations of LoRA that can't be repeated, and what to do instead."""
SETS = ("target_modules", "exclude_modules", "feedforward_modules")
"""Names of modules that PEFT's configurations hold as sets."""
ENCODER = "encoder"  # folder of the encoder under a head, as transformers or PEFT loads it
IMPORT = """try:  # a saved run of hpml-bench, whose code loads it: base model, method and head
    from hpml_bench.training.saved_model import SavedConfig, SavedModel, SavedPipeline
except ImportError as error:
    raise ImportError("this model needs hpml-bench, which is installed from its clone") from error
"""
"""Code beside a saved model, which transformers runs where `trust_remote_code` allows it."""
TYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""Names of the types that can be trained, in the order in which their tensors lie in a file."""
NAMES = TYPES | {
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in safetensors files."""


def save_trained(
    model: TaskModel, method: Method, spec: RunSpec, prepared: Prepared, folder: Path
) -> None:
    """Write every trained tensor by name, and the files that other programs read.

    These are PEFT's adapter files for its models, else the whole model where its own weights were
    trained; and the tokenizer with the training's chat template. An encoder under a head lies in a
    folder of its own: beside the tokenizer, transformers' pipelines would put a random head on it;
    they find our class there instead.
    """
    task = make_task(spec.settings.task, tuple(prepared.label_names), prepared.facts)
    folder.mkdir(parents=True, exist_ok=True)
    encoder: Any = model.encoder
    parts = folder if not task.pipeline else folder / ENCODER
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    save_file(
        {name: weight.detach().cpu().contiguous().clone() for name, weight in trained.items()},
        folder / TENSORS,
    )
    if not method.save(encoder, parts):
        if isinstance(encoder, PeftModel):
            encoder.save_pretrained(str(parts), save_embedding_layers=False)
            (parts / "README.md").unlink(missing_ok=True)  # PEFT's card: ours comes from the record
        elif isinstance(encoder, PreTrainedModel) and any(
            weight.requires_grad for weight in encoder.parameters()
        ):
            with torch.device("meta"):
                fresh = type(encoder)(type(encoder.config).from_dict(encoder.config.to_dict()))
            if set(encoder.state_dict()) <= set(
                fresh.state_dict()
            ):  # its class loads all; BERT's has a pooler besides
                encoder.save_pretrained(parts)
    _amend(parts / "config.json", {"use_cache": True})  # which training switches off
    if spec.settings.backbone.startswith("hub:"):
        repository = spec.settings.backbone.removeprefix("hub:").partition("@")[0]
        base = {"base_model_name_or_path": repository, "revision": prepared.digests.revision}
        _amend(parts / "adapter_config.json", base)
    _sort_targets(parts / "adapter_config.json")
    save_tokenizer(spec, prepared, task, folder)
    if task.pipeline:
        write_class(task, folder)
    facts = {
        "spec": spec.model_dump(mode="json"),
        "label_names": prepared.label_names,
        "facts": prepared.facts,
    }
    facts |= {"digests": prepared.digests.model_dump(mode="json")}
    (folder / RUN).write_text(json.dumps(facts, indent=1) + "\n")
    # safetensors makes its files readable for their owner alone, as temporary ones
    for file in folder.rglob("*.safetensors"):
        file.chmod(stat.S_IMODE((folder / RUN).stat().st_mode))


def save_tokenizer(spec: RunSpec, prepared: Prepared, task: Task, folder: Path) -> None:
    backbone, generation = Path(prepared.backbone), folder / "generation_config.json"
    if not (backbone / "tokenizer.json").exists():
        return
    for pattern in ("*token*.json", "chat_template.*", generation.name):
        for file in backbone.glob(pattern):
            (folder / file.name).write_bytes(file.read_bytes())
    if prepared.stop_ids:
        if not generation.exists():
            generation.write_text("{}")
        _amend(generation, {"eos_token_id": list(prepared.stop_ids)})
    encoder = Encoder(
        load_tokenizer(backbone), spec.settings.max_length, None, spec.settings.backbone
    )
    template = task.chat_template(encoder)
    if template is not None and template != encoder.tokenizer.chat_template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        _amend(folder / "tokenizer_config.json", {"chat_template": template})


def _sort_targets(file: Path) -> None:
    """Sort the names of an adapter's modules: PEFT keeps them as a set, whose order differs
    between processes, and with it the file's digest.
    """
    if not file.exists():
        return
    written = json.loads(file.read_text(encoding="utf-8"))
    named = {name: written[name] for name in SETS if isinstance(written.get(name), list)}
    _amend(file, {name: sorted(modules) for name, modules in named.items()})


def _amend(file: Path, values: dict[str, Any]) -> None:
    if file.exists():
        written = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**written, **values}, indent=2) + "\n", encoding="utf-8")


def write_class(task: Task, folder: Path) -> None:
    """Write what transformers needs to find our class, with the names of the labels, in place of
    a model of its own.
    """
    names = dict(enumerate(task.label_names)) or {0: "LABEL_0"}
    config: dict[str, Any] = {
        "model_type": "hpml_bench",
        "architectures": ["SavedModel"],
        "auto_map": {
            "AutoConfig": "saved_model.SavedConfig",
            task.pipeline[1]: "saved_model.SavedModel",
        },
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "problem_type": None if task.label_names else "regression",
    }
    kind, loaded_as = task.pipeline
    if kind == "text-classification":
        config["custom_pipelines"] = {
            kind: {"impl": "saved_model.SavedPipeline", "pt": [loaded_as], "type": "text"}
        }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "saved_model.py").write_text(IMPORT, encoding="utf-8")


@dataclass(frozen=True)
class Saved:
    """A run that `save_trained` wrote."""

    model: TaskModel
    task: Task
    spec: RunSpec


def load_saved(folder: Path) -> Saved:
    """Return a run that `save_trained` wrote, to evaluate; UserError where there is none, or no
    base model of it.
    """
    task, spec, tensors, digest = read_saved(folder)
    base = resolve_model(spec.settings.backbone).folder_or_file
    if weights_digest(base) != digest:
        raise UserError(
            f"{folder}: was trained from other weights than {spec.settings.backbone} has now"
        )
    with (
        torch.enable_grad()
    ):  # the caller may have switched it off, and some methods are built by a trial pass
        model = build_model(base, spec, make_method(spec.method), task)
    init = starts_from_data(model.encoder)
    if init:
        raise UserError(
            f"{folder}: {init} starts from the training's data, which isn't kept; {FROM_DATA[init]}"
        )
    fill(model, tensors, folder)
    return Saved(model.eval(), task, spec)


def read_saved(folder: Path) -> tuple[Task, RunSpec, dict[str, torch.Tensor], str]:
    """Return task, spec, tensors by name and base weights' digest of a saved run; a UserError
    where there is none.
    """
    try:
        facts = json.loads(read_bytes(folder / RUN, follow=True))
        spec = RunSpec.model_validate(facts["spec"])
        label_names = tuple(facts["label_names"])
        task_facts = facts["facts"]
        weights = facts["digests"]["weights"]
        check_regular(folder / TENSORS)
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise UserError(
            f"{folder}: holds no model that `hpml-bench run --save` wrote: {error}"
        ) from None
    return make_task(spec.settings.task, label_names, task_facts), spec, tensors, weights


def starts_from_data(encoder: Any) -> str | None:
    """Return the initialisation of an encoder if it is one of `FROM_DATA`; else None."""
    init = getattr(getattr(encoder, "active_peft_config", None), "init_lora_weights", None)
    return init if init in FROM_DATA else None


def fill(module: nn.Module, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Set parameters by name; a UserError where there is none of a tensor's name and shape."""
    built = dict(module.named_parameters())
    lacking = sorted(
        name
        for name, tensor in tensors.items()
        if name not in built or built[name].shape != tensor.shape
    )
    if lacking:
        raise UserError(
            f"{folder}: the model built anew has no such parameter {lacking[0]}; was it saved by "
            f"another version?"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            built[name].copy_(tensor)


def safetensors_bytes(tensors: Iterable[tuple[str, torch.Tensor]]) -> int:
    """Return the size in bytes of the file that `save_file` writes for these tensors, by type
    and name.
    """
    order = list(TYPES)
    head, rest = safetensors_head(
        sorted(tensors, key=lambda pair: (order.index(pair[1].dtype), pair[0]))
    )
    return len(head) + rest


def safetensors_head(tensors: Iterable[tuple[str, torch.Tensor]]) -> tuple[bytes, int]:
    """Return the beginning of a file of tensors in this order, and the number of their bytes, which
    follow it.

    That is eight bytes with the header's length, and the header: JSON padded with spaces to a
    multiple of eight (https://huggingface.co/docs/safetensors#format).
    """
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": [*tensor.shape],
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end
