"""Loading of a run's model: the backbone, changed by the method, under the task's head."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, cast
from unittest import mock

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.utils import logging

from hpml_bench.data.sources import weight_types
from hpml_bench.plugins.method import Method, quantization_of
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.optimizer import choose_optimizer
from hpml_bench.plugins.task import Task
from hpml_bench.suite.settings import RunSpec, Settings
from hpml_bench.system.errors import Unsupported, UserError, of_machine
from hpml_bench.system.text import first_line
from hpml_bench.training import kernels, quantization
from hpml_bench.training.causal_lm import KEYS_AND_VALUES, needs_mask
from hpml_bench.training.distributed import is_sharded
from hpml_bench.training.kernels import WEIGHTS, keep_trained_as_float32, linear_weights
from hpml_bench.training.peft import adapters_as_float32
from hpml_bench.training.trial import is_causal, positions, seeded

KINDS: dict[str, tuple[Any, Any]] = {
    "encoder": (modeling_auto.MODEL_MAPPING, modeling_auto.AutoModel),
    "language_model": (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        modeling_auto.AutoModelForCausalLM,
    ),
}
"""Kinds of models: the classes by configuration, and the class that loads them."""
ModelKind = Literal["encoder", "language_model"]
Load = Callable[[Path, Settings, ModelKind, torch.device], PreTrainedModel]
"""Loading of a backbone of a kind from a folder, in the type of the settings, to a device."""
CPU = torch.device("cpu")
LARGE_BYTES = 1_000_000_000
NOT_CHECKPOINTED = dict.fromkeys(
    KEYS_AND_VALUES,
    "its prefix is in the cache of keys and values, which blocks are not given then",
)
"""PEFT's types that gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) breaks, and why
(huggingface/peft#869); PEFT says so itself.
"""
NOT_SHARDED = {
    "CPT": "it changes its prompt's weights in each pass, which only a whole copy shows",
    "OSF": "it projects gradients in hooks on whole weights",
    "SHADOW": "its second model shares weights with the first one's blocks",
}
"""PEFT's types that FSDP breaks, and why."""
NOT_ROUNDED = {"OSF": "it multiplies gradients by float32 matrices"}
"""PEFT's types whose trained weights can't be bfloat16, and why."""


def linear_as_bf16(folder: Path, settings: Settings, method: Method) -> bool:
    """Return whether linear layers are loaded as bfloat16, in which their frozen weights are
    kept anyway.
    """
    # where a file holds bfloat16 alone, that loses nothing; its type is config.json's where it
    # isn't here, as in `fit`
    floats = settings.weights == "float32" and quantization_of(method, settings) is None
    if settings.precision != "bf16" or not floats or not method.built_by_shape:
        return False
    with suppress(UserError):
        return {*weight_types(folder)} == {"BF16"}
    with suppress(Exception):  # a broken configuration can raise anything; loading names it
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return bool(config.dtype == torch.bfloat16)
    return False


@contextmanager
def _linear_layers_as_bf16() -> Iterator[None]:
    """Let models be made with linear layers of bfloat16: transformers loads each weight in the
    type it was made of.
    """
    finish = PreTrainedModel.post_init

    def declare(model: PreTrainedModel) -> None:
        finish(model)
        for weight in linear_weights(model):
            weight.data = weight.data.to(torch.bfloat16)

    with mock.patch.object(PreTrainedModel, "post_init", declare):
        yield


def is_large(folder: Path, settings: Settings, *, half: bool = False) -> bool:
    """Return whether weights take so much of the host's memory that a machine's ranks load them
    one after another.
    """
    # while loading, a rank takes more memory than afterwards; small ones are loaded sooner at once,
    # as are those that go straight from the mapped file to a GPU
    if settings.device == "cuda" and (half or settings.weights != "float32"):
        return False
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) > LARGE_BYTES


def build_model(
    folder: Path,
    spec: RunSpec,
    method: Method,
    task: Task,
    look: Callable[[PreTrainedModel], None] | None = None,
    device: torch.device = CPU,
    loading: AbstractContextManager[None] = nullcontext(),  # noqa: B008 - reusable
    load: Load | None = None,
    *,
    half: bool = False,
) -> TaskModel:
    """Load the backbone, let the method change it, and put the task's head on.

    First weights of head and method depend on the seed alone, and the global generators keep their
    state. `look` gets the backbone as it was loaded: inside the context `loading`, by `load`, or by
    `load_backbone` where that is None. `half` is what `linear_as_bf16` says of the run; the model
    is then one for autocast alone. Raises Unsupported: the method can't run with this backbone;
    UserError: it can't be loaded, is too short, or an option is wrong.
    """
    settings = spec.settings.model_copy(
        update={"quantization": quantization_of(method, spec.settings)}
    )
    check_sharding(spec, settings, method)
    with seeded(spec.seed):
        with loading, _linear_layers_as_bf16() if half else nullcontext():
            backbone = (load or load_backbone)(folder, settings, task.model_kind, device)
        linear = {
            id(weight) for weight in linear_weights(backbone)
        }  # PEFT makes others of some: none is kept alive
        for weight in backbone.parameters() if half else ():
            if id(weight) not in linear:
                weight.data = weight.data.float()  # an output layer tied to the embeddings
        text = backbone.config.get_text_config()
        if positions(backbone, settings.max_length) is None:
            raise UserError(
                f"max_length {settings.max_length} is more tokens than {settings.backbone} has "
                f"positions"
            )
        if look is not None:
            look(backbone)
        if settings.gradient_checkpointing:
            if not backbone.supports_gradient_checkpointing:
                raise Unsupported(
                    f"transformers has no gradient checkpointing for {backbone.config.model_type}"
                )
            # torch's non-reentrant kind: DDP needs no change for it, and inputs need no gradient
            backbone.gradient_checkpointing_enable({"use_reentrant": False})
        encoder = _encoder(backbone, method, spec, device, half=half)
        keep_trained_as_float32(encoder)
        kernels.speed_up(encoder, settings.device)
        places = positions(encoder, settings.max_length)
        if places is None:
            raise Unsupported(
                f"its virtual tokens and max_length {settings.max_length} together are more than "
                f"the model's positions"
            )
        model = cast(
            TaskModel,
            task.build(encoder, text.hidden_size, places - settings.max_length, spec.seed),
        )
        model.masked = needs_mask(encoder)
        method.complete(model, task)
        return model


def _check_type(encoder: nn.Module, settings: Settings) -> None:
    """Raise Unsupported where a type of PEFT's doesn't go with the settings or with the
    backbone.
    """
    if not isinstance(encoder, PeftModel):
        return
    kind = encoder.active_peft_config.peft_type.value
    prompted = encoder.active_peft_config.is_prompt_learning and kind not in KEYS_AND_VALUES
    if prompted and getattr(encoder.config.get_text_config(), "hidden_size_per_layer_input", None):
        raise Unsupported(
            "each layer looks up an embedding by a token's id, which a virtual token does not have"
        )
    for wanted, reasons, what in (
        (
            settings.gradient_checkpointing,
            NOT_CHECKPOINTED,
            "does not work with gradient checkpointing",
        ),
        (is_sharded(settings), NOT_SHARDED, "can't be sharded"),
        (settings.trained_weights == "bfloat16", NOT_ROUNDED, "has no trained_weights in bfloat16"),
    ):
        if wanted and kind in reasons:
            raise Unsupported(f"{kind} {what}: {reasons[kind]}")


def check_sharding(spec: RunSpec, settings: Settings, method: Method) -> None:
    """Raise Unsupported where a run's weights, method or optimizer can't be sharded, and the
    settings want it.
    """
    if not is_sharded(settings) or not method.trains:
        return
    optimizer = choose_optimizer(spec.method, settings)
    if settings.quantization is not None:
        raise Unsupported("quantised weights can't be sharded: FSDP loses their scales")
    if not method.shards:
        raise Unsupported(
            f"{spec.method.name} can't be sharded: it reads whole weights outside its layers' "
            f"passes"
        )
    if not optimizer.shards:
        raise Unsupported(f"{optimizer.title} can't be sharded: its steps may need whole tensors")


def _encoder(
    backbone: PreTrainedModel, method: Method, spec: RunSpec, device: torch.device, *, half: bool
) -> nn.Module:
    """Return what the method makes of a backbone, on the device; a quantised one must keep its
    own weights.
    """
    quantized = dict(backbone.named_parameters()) if quantization.is_quantized(backbone) else {}
    if quantized and method.reads_frozen_weights:
        raise Unsupported("it computes with the backbone's weights themselves, which are quantised")
    with seeded(spec.seed), adapters_as_float32() if half else nullcontext():
        try:
            encoder = cast(nn.Module, method.build(backbone))
        except ValueError as error:  # PEFT raises it where a type doesn't fit the model
            if "Target modules" in str(error):
                raise UserError(f"method {spec.method.name}: {first_line(error)}") from error
            raise Unsupported(first_line(error)) from error
    if own := [name for name, weight in quantized.items() if weight.requires_grad]:
        raise Unsupported(
            f"it trains weights of the backbone, among them {own[0]}, and the backbone is quantised"
        )
    if device.type != "cpu":
        encoder.to(device)  # weights that the method added
        if ids := getattr(
            encoder, "prompt_tokens", None
        ):  # kept beside buffers: copied in each pass, with a wait
            cast(Any, encoder).prompt_tokens = {name: own.to(device) for name, own in ids.items()}
    _check_type(encoder, spec.settings)
    return encoder


def load_backbone(
    folder: Path,
    settings: Settings,
    kind_of_model: ModelKind = "encoder",
    device: torch.device = CPU,
) -> PreTrainedModel:
    """Load a bare backbone, or a whole causal language model, from a folder's safetensors; no
    code of it is run.
    """
    config, auto, extra = _configured(folder, settings, kind_of_model)
    if (
        device.type != "cpu" or settings.quantization is not None
    ):  # packed weights would go to a GPU if there is one
        extra["device_map"] = {"": device}
    if settings.quantization is not None:
        described = describe_backbone(folder, settings, kind_of_model)
        extra["quantization_config"] = quantization.config_of(settings, described)
    try:
        model, report = auto.from_pretrained(
            folder,
            config=config,
            dtype=WEIGHTS[settings.weights],
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **extra,
        )
    except Exception as error:  # the libraries raise kinds of their own
        if of_machine(error):
            raise
        raise UserError(
            f"{folder}: can't be loaded from safetensors: {first_line(error)}"
        ) from None
    quantization.prepare(model)
    if report["missing_keys"]:
        raise UserError(
            f"{folder}: the file lacks weights, among them {min(report['missing_keys'])}"
        )
    if kind_of_model == "language_model" and not is_causal(model):
        raise UserError(
            f"{folder}: {config.model_type} reads both ways, so that it can't generate; give a "
            f"decoder"
        )
    return cast(PreTrainedModel, model)


def describe_backbone(
    folder: Path,
    settings: Settings,
    kind_of_model: ModelKind,
    change: Callable[[PretrainedConfig], None] | None = None,
) -> PreTrainedModel:
    """Return what `load_backbone` would, from config.json, to which `change` is made: floats
    without values (meta).
    """
    config, auto, extra = _configured(folder, settings, kind_of_model)
    if change is not None:
        change(config)
    with torch.device("meta"):
        model = auto.from_config(
            config, dtype=WEIGHTS[settings.weights], trust_remote_code=False, **extra
        )
    return cast(PreTrainedModel, model.eval())


def _configured(
    folder: Path, settings: Settings, kind_of_model: str
) -> tuple[PretrainedConfig, Any, dict[str, Any]]:
    logging.disable_progress_bar()
    # missing weights, of which it warns, are checked by `load_backbone`
    logging.set_verbosity_error()
    config, kind, auto = _read_config(folder, kind_of_model)
    _adjust(config, settings.dropout)
    extra: dict[str, Any] = {}
    if "add_pooling_layer" in inspect.signature(kind).parameters:
        extra["add_pooling_layer"] = (
            False  # BERT's pooler would be trained by `full` and never get a gradient
        )
    if getattr(kind, "_supports_sdpa", False):
        # ours where the model's code looks up its attention by name, and tests for no particular
        # name, as GPT-2's did before transformers 5.2 for cross-attention only
        source = inspect.getsource(sys.modules[kind.__module__])
        source = source.replace('_use_sdpa = self._attn_implementation == "sdpa"', "")
        tests_name = re.search(r"""_attn_implementation\s*(?:in\b|[!=]=\s*["']sdpa)""", source)
        by_name = "ALL_ATTENTION_FUNCTIONS" in source and not tests_name
        extra["attn_implementation"] = kernels.ATTENTION if by_name else "sdpa"
    return config, auto, extra


def _read_config(
    folder: Path, kind_of_model: str
) -> tuple[PretrainedConfig, type[PreTrainedModel], Any]:
    """Return a configuration, the model's class, and transformers' class that loads it."""
    mapping, auto = KINDS[kind_of_model]
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if kind_of_model == "language_model" and type(config) not in mapping:
            # one of text and images, of which the text model is trained
            mapping = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            auto = modeling_auto.AutoModelForImageTextToText
        if type(config) in modeling_auto.MODEL_MAPPING and type(config) not in mapping:
            raise UserError(
                f"transformers has no causal language model of the kind {config.model_type}"
            )
        kind = mapping[type(config)]
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # a broken configuration can raise anything
        raise UserError(
            f"{folder}: no model that transformers knows: {first_line(error)}"
        ) from None
    if config.is_encoder_decoder:
        raise UserError(
            f"{folder}: {config.model_type} is an encoder-decoder; give an encoder or a decoder"
        )
    return config, kind[0] if isinstance(kind, tuple) else kind, auto


def _adjust(config: PretrainedConfig, dropout: float | None) -> None:
    """Set the options that are the same for all backbones in a configuration and its text
    model's, in place.
    """
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        if hasattr(part, "use_cache"):
            part.use_cache = False
        if hasattr(
            part, "output_router_logits"
        ):  # as models trained with a loss of routers are saved
            part.output_router_logits = False  # it would come before the logits
        for key, value in part.to_dict().items():
            if "drop" not in key or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if "layerdrop" in key:
                setattr(part, key, 0.0)  # a skipped layer has no gradient, for which DDP would wait
            elif dropout is not None:
                setattr(part, key, dropout)
