"""Systems that others trained, loaded from a folder into a backbone: adapters, whole
checkpoints, saved runs.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from tokenizers import Tokenizer

from hpml_bench.data.prepare import weights_digest
from hpml_bench.data.sources import MOST_CONFIG, refuse_odd_files, resolve_model
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.task import Task
from hpml_bench.system.errors import UserError, of_machine
from hpml_bench.system.files import read_bytes
from hpml_bench.system.text import first_line, shortened
from hpml_bench.training.peft import keep_input_type
from hpml_bench.training.quantization import is_quantized
from hpml_bench.training.saving import RUN, fill, read_saved, starts_from_data
from hpml_bench.training.trial import seeded

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TASK_TYPES = (
    None,
    "CAUSAL_LM",
    "FEATURE_EXTRACTION",
)  # PEFT's task types of adapters without a head


def load_system(backbone: Any, where: Path) -> Any:
    """Return the encoder that a folder, or a .gguf file, makes of a backbone; nothing in it is
    trained.

    A folder is what `run --save` wrote (its head comes after, by `load_head`), an adapter as PEFT
    writes it, or a whole checkpoint of the backbone's architecture, whose weights replace the
    backbone's. Raises UserError: there is none, or it doesn't fit by architecture, base weights,
    vocabulary or tensors.
    """
    if not where.exists():
        raise UserError(
            f"{where}: there is no such folder or file; name an adapter's or a checkpoint's"
        )
    refuse_odd_files(where)
    if not (where / RUN).is_file() and backbone.get_output_embeddings() is None:
        raise UserError(
            f"{where}: has no head for the task, which is put on the bare model; give the folder "
            f"of `run --save`"
        )
    files = Path(backbone.name_or_path) / "tokenizer.json", where / "tokenizer.json"
    if all(file.is_file() for file in files):
        with _explained(where, "its tokenizer.json can't be read"):
            ours, theirs = (Tokenizer.from_file(str(file)).get_vocab() for file in files)
            differing = sorted(
                token for token, number in ours.items() if theirs.get(token, number) != number
            )
            if differing or len(theirs.keys() & ours.keys()) < len(ours):
                which = (
                    f": {differing[0]!r} has the number {theirs[differing[0]]}" if differing else ""
                )
                raise UserError(
                    f"{where}: its tokenizer isn't the one of the suite's backbone{which}"
                )
    if (where / RUN).is_file():
        encoder = _saved_run(backbone, where)
    elif (where / ADAPTER).is_file():
        encoder = _adapter(backbone, where)
    else:
        encoder = _checkpoint(backbone, where)
    return encoder.requires_grad_(False)


def load_head(model: TaskModel, task: Task, where: Path) -> None:
    """Set a task's head from a saved run; a UserError where that is of another task, or of other
    labels.
    """
    if not (where / RUN).is_file():
        return
    own, _, tensors, _ = read_saved(where)
    _refuse_not_finite(where, tensors)
    if own.title != task.title or own.label_names != task.label_names:
        labels = (
            ""
            if own.title != task.title
            else f" with the labels {shortened(', '.join(own.label_names), 80)}"
        )
        raise UserError(f"{where}: was trained for {own.title}{labels}, not for the suite's task")
    with torch.no_grad():
        fill(
            model,
            {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder.")},
            where,
        )
    model.requires_grad_(False)


def _saved_run(backbone: Any, folder: Path) -> Any:
    own, spec, tensors, digest = read_saved(folder)
    _refuse_not_finite(folder, tensors)
    if (own.model_kind == "language_model") != (backbone.get_output_embeddings() is not None):
        raise UserError(f"{folder}: was trained for {own.title}, not for the suite's task")
    if weights_digest(Path(backbone.name_or_path)) != digest:
        raise UserError(
            f"{folder}: was trained from {spec.settings.backbone}, other weights than the suite's "
            f"backbone"
        )
    if make_method(spec.method).command:  # its program's own files lie there
        return (_adapter if (folder / ADAPTER).is_file() else _checkpoint)(backbone, folder)
    with seeded(spec.seed), torch.enable_grad():  # some methods are built by a trial pass
        encoder = make_method(spec.method).build(backbone)
    if starts_from_data(encoder):  # its first weights can't be had again; PEFT's files need none
        raise UserError(
            f"{folder}: starts from the training's data; give its PEFT files alone, without {RUN}"
        )
    fill(
        encoder,
        {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")},
        folder,
    )
    return encoder


def _adapter(backbone: Any, folder: Path) -> Any:
    """Return PEFT's model around the backbone, with all of the adapter's tensors and no other."""
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"{folder}: {ADAPTER_WEIGHTS} is missing; save the adapter with save_pretrained (no "
            f".bin is read)"
        )
    with _explained(folder, "PEFT can't put the adapter on the suite's backbone"):
        config = PeftConfig.from_pretrained(str(folder))
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    _refuse_not_finite(folder, tensors)
    if config.task_type not in TASK_TYPES:
        raise UserError(f"{folder}: is an adapter for {config.task_type}, not for the suite's task")
    base = Path(config.base_model_name_or_path or "")
    if (
        base != Path()
        and base.is_dir()
        and weights_digest(base) != weights_digest(Path(backbone.name_or_path))
    ):
        raise UserError(
            f"{folder}: the adapter was trained on {base}, other weights than the suite's "
            f"backbone; where they are the "
            f"same in other files, set base_model_name_or_path in {ADAPTER} to null"
        )
    with _explained(folder, "PEFT can't put the adapter on the suite's backbone"):
        device = str(backbone.device)
        model = PeftModel.from_pretrained(backbone, str(folder), config=config, torch_device=device)
        loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name in sorted(tensors.keys() ^ loaded.keys()):
        how = (
            "the adapter lacks the tensor"
            if name in loaded
            else "the suite's backbone has no place for the tensor"
        )
        raise UserError(f"{folder}: {how} {name}; was it trained on another model?")
    if not tensors:
        raise UserError(f"{folder}: the adapter has no tensor, so that it applies to no module")
    return keep_input_type(model)


def _checkpoint(backbone: Any, where: Path) -> Any:
    """Return the backbone with the weights of a checkpoint of its architecture."""
    if is_quantized(backbone):
        raise UserError(
            f"{where}: a whole checkpoint can't replace quantised weights; score it in a suite "
            f"without"
        )
    folder = resolve_model(f"path:{where.resolve()}").folder_or_file
    kind, config = type(backbone), backbone.config
    with _explained(where, f"can't be loaded as {kind.__name__}"):
        theirs = json.loads(read_bytes(folder / "config.json", MOST_CONFIG, follow=True))
        if theirs.get("model_type") != config.model_type:
            raise UserError(
                f"{where}: is a {theirs.get('model_type')}, and the suite's backbone a "
                f"{config.model_type}"
            )
        other, report = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    if lacking := report["missing_keys"]:
        raise UserError(f"{where}: the checkpoint lacks weights, among them {min(lacking)}")
    if left := [
        name
        for name in report["unexpected_keys"]
        if not name.endswith(("attn.bias", "masked_bias"))
    ]:
        raise UserError(
            f"{where}: the suite's backbone has no place for the checkpoint's {min(left)}"
        )
    _refuse_not_finite(where, other.state_dict())
    ours, theirs = (
        {name: tensor.shape for name, tensor in of.state_dict().items()} for of in (backbone, other)
    )
    if differing := sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    ):
        shapes = " and ".join(
            str([*of[differing[0]]]) if differing[0] in of else "missing" for of in (theirs, ours)
        )
        raise UserError(
            f"{where}: {differing[0]} is of other size than the suite's backbone has ({shapes})"
        )
    backbone.load_state_dict(other.state_dict())
    return backbone


def _refuse_not_finite(where: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise UserError where a tensor has values that are NaN or infinite, as of a training that
    diverged.
    """
    broken = [
        name
        for name, tensor in sorted(tensors.items())
        if tensor.is_floating_point() and not tensor.float().isfinite().all()
    ]
    if broken:
        more = f" and {len(broken) - 1:,} more" if len(broken) > 1 else ""
        raise UserError(
            f"{where}: the weights of {broken[0]}{more} are NaN or infinite, so that its answers "
            f"mean nothing; give a checkpoint from before its training diverged"
        )


@contextmanager
def _explained(where: Path, what: str) -> Iterator[None]:
    """Turn errors of the libraries, which raise kinds of their own, into a sentence; hints to
    authors stay silent.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:
        if of_machine(error):
            raise
        raise UserError(f"{where}: {what}: {first_line(error)}") from None
