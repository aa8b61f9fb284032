"""PEFT's types on a bare backbone: the choices that PEFT leaves open, and what single types need
in addition.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from peft import LoraConfig, PeftType, get_peft_model, initialize_lora_eva_weights
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.boft import layer as boft
from peft.tuners.tuners_utils import BaseTunerLayer

from hpml_bench.system.errors import Unsupported
from hpml_bench.training.trial import passed_over, unread_parts

TOKENS = 20  # default number of virtual tokens, as in `prompt_tuning`
# PEFT refuses updates of `out_proj` in these types and models (`_check_lora_target_modules_mamba`)
LORA_LIKE = {"LORA", "ADALORA", "XLORA", "RANDLORA"}
STATE_SPACE = {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"}
STEPS_UNKNOWN = 10**9  # AdaLoRA's `total_step` until `before_train` sets it


def wrap(backbone: Any, kind: str, options: dict[str, Any]) -> Any:
    """Return PEFT's model for a type, with the options given and our defaults for the others."""
    for name, layer in list(backbone.named_modules()):
        if type(layer).__name__ == "Conv1D":  # GPT-2's: most types know linear layers alone
            linear = torch.nn.Linear(layer.nx, layer.nf, device="meta")
            linear.weight = torch.nn.Parameter(layer.weight.detach().T.contiguous())
            linear.bias = layer.bias
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, linear)
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    hints = typing.get_type_hints(config_class)
    if kind == "LORA" and options.keys() <= {
        "r",
        "lora_alpha",
        "use_rslora",
    }:  # PEFT knows no other with experts
        options = {"target_parameters": stacked_experts(backbone) or None} | options
    chosen = {
        key: value
        for key, value in defaults(kind, backbone).items()
        if key in hints and value is not None
    }
    config = config_class(
        **{key: _nested(hints[key], value) for key, value in (chosen | options).items()}
    )
    config.task_type = task_type(backbone)  # CPT takes no other than CAUSAL_LM when made
    if kind == "BOFT":
        boft._FBD_CUDA = (
            False  # else PEFT compiles it in every rank, and computes differently where that fails
        )
    corda = getattr(config, "init_lora_weights", None) == "corda"
    if corda:
        config.init_lora_weights = True  # until `before_train` has data
    model = get_peft_model(backbone, config)
    if corda:
        config.init_lora_weights = "corda"
    return model


def add_lora(backbone: Any, options: Any, target: str | list[str]) -> Any:
    """Return a backbone frozen, with updates of rank `r` and scale `alpha / r` beside the
    weights of target layers.
    """
    everywhere = target == "all-linear"
    experts = stacked_experts(backbone) if everywhere else []
    if experts and options.dropout:
        raise Unsupported(
            "PEFT knows no dropout for updates of experts that are stacked; set dropout: 0, or a "
            "target"
        )
    passed = passed_over(backbone)
    excluded = unread_parts(backbone)
    if everywhere:
        excluded += [*passed, *refused_by_peft("LORA", backbone)]
    config = LoraConfig(
        task_type=task_type(backbone),
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=target,
        target_parameters=experts or None,
        fan_in_fan_out=any(
            type(layer).__name__ == "Conv1D" for layer in backbone.modules()
        ),  # GPT-2's linears
        exclude_modules=_pattern(excluded),
    )
    model = get_peft_model(backbone, config)
    for name in passed:
        if isinstance(backbone.get_submodule(name), BaseTunerLayer):
            raise Unsupported(
                f"an update of {name} has no effect: the model's code reads the layer's weight "
                f"itself"
            )
    return keep_input_type(model)


def refused_by_peft(kind: str, backbone: Any) -> list[str]:
    """Return the names of the linear layers that PEFT refuses to adapt with a type, although it
    finds them itself under `all-linear`.
    """
    # transformers hands the weight of `out_proj` itself to a fused kernel in most state-space
    # models; PEFT goes by their `model_type`, also where the layer is called as any other is
    if kind not in LORA_LIKE or backbone.config.model_type not in STATE_SPACE:
        return []
    return [
        name
        for name, layer in backbone.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.rpartition(".")[2] == "out_proj"
    ]


def stacked_experts(backbone: Any) -> list[str]:
    """Return the names of the weights [experts, out, in] or [experts, in, out] of mixtures of
    experts.
    """
    # they are in no linear layer, so that PEFT's `all-linear` leaves them out, except in families
    # whose experts were linear layers before transformers 5
    unread = _pattern(unread_parts(backbone)) or "(?!)"
    return [
        f"{name}.{key}"
        for name, part in backbone.named_modules()
        for key, weight in part.named_parameters(recurse=False)
        if "Expert" in type(part).__name__ and weight.ndim == 3 and not re.fullmatch(unread, name)
    ]


@contextmanager
def adapters_as_float32() -> Iterator[None]:
    """Let PEFT make its weights beside those of bfloat16 as beside float32: it would round their
    first values.
    """
    move = BaseTunerLayer._move_adapter_to_device_of_base_layer

    def moved(layer: Any, *arguments: Any, **named: Any) -> None:
        weight = getattr(layer.get_base_layer(), "weight", None)
        if weight is None or weight.dtype != torch.bfloat16:
            move(layer, *arguments, **named)
            return
        values, weight.data = (
            weight.data,
            weight.data.new_empty((), dtype=torch.float32).expand(weight.shape),
        )
        move(layer, *arguments, **named)
        weight.data = values

    with mock.patch.object(BaseTunerLayer, "_move_adapter_to_device_of_base_layer", moved):
        yield


def task_type(backbone: Any) -> str:
    """Return PEFT's name for what it wraps: a whole language model, or a bare backbone without a
    head.
    """
    return "CAUSAL_LM" if backbone.get_output_embeddings() is not None else "FEATURE_EXTRACTION"


def keep_input_type(model: Any) -> Any:
    """Leave the input of adapted layers as it is: PEFT would cast it to float32, and autocast
    back to bfloat16.
    """
    for layer in model.modules():
        if hasattr(layer, "cast_input_dtype_enabled"):
            layer.cast_input_dtype_enabled = False
    return model


def defaults(kind: str, backbone: Any) -> dict[str, Any]:
    """Return the options that PEFT leaves open or sets too large for small models; None leaves
    one to PEFT.
    """
    config = backbone.config.get_text_config()
    refused = refused_by_peft(kind, backbone)
    unread = _pattern([*unread_parts(backbone), *passed_over(backbone), *refused])
    inner = (
        "" if backbone.base_model is backbone else f"{backbone.base_model_prefix}."
    )  # without an output layer
    layers = dict(backbone.base_model.named_modules())
    named = {
        name: part
        for name, part in layers.items()
        if not (unread and re.fullmatch(unread, inner + name))
    }
    shapes = [
        tuple(layer.weight.shape) for layer in named.values() if isinstance(layer, torch.nn.Linear)
    ]
    divisor = math.gcd(*(size for shape in shapes for size in shape))
    block = _largest_divisor(divisor, 256)
    smallest = min(shapes, key=math.prod)
    norms = sorted(
        {
            name.rsplit(".")[-1]
            for name, layer in named.items()
            if type(layer).__name__.endswith("Norm")
        }
    )
    blocks = next(
        (name for name, part in named.items() if isinstance(part, torch.nn.ModuleList)), ""
    )
    common: dict[str, Any] = {"task_type": task_type(backbone), "num_virtual_tokens": TOKENS}
    common |= {"target_modules": "all-linear", "exclude_modules": unread}
    special: dict[str, dict[str, Any]] = {
        "ADALORA": {"total_step": STEPS_UNKNOWN},
        "ADAPTION_PROMPT": {
            "target_modules": None,
            "adapter_len": 10,
            "adapter_layers": config.num_hidden_layers,
        },
        "C3A": {"block_size": block},
        "CPT": {
            "task_type": "CAUSAL_LM",
            "num_virtual_tokens": None,
            "cpt_token_ids": torch.randint(config.vocab_size, (TOKENS,)).tolist(),
            "cpt_tokens_type_mask": [2] * TOKENS,  # trained, as input tokens
        },
        "FROD": {"progressbar": False},
        "IA3": {"target_modules": None},  # keys, values and feed-forward, by PEFT's table
        "LN_TUNING": {"target_modules": norms},
        "PROMPT_TUNING": {"prompt_tuning_init": "SAMPLE_VOCAB"},
        "ROAD": {"group_size": _largest_divisor(divisor, 64)},
        "SHADOW": {
            "target_modules": [f"{blocks}.{index}" for index in range(config.num_hidden_layers)]
        },
        "SHIRA": {"r": min(32, math.prod(smallest) // sum(smallest))},
        "TRAINABLE_TOKENS": {
            "target_modules": None,
            "token_indices": list(range(config.vocab_size)),
        },
        "VBLORA": {"vector_length": block},
        "WAVEFT": {"n_frequency": min(2592, math.prod(smallest))},
    }
    return common | special.get(kind, {})


def _pattern(parts: list[str]) -> str | None:
    """Return a regular expression for the names of some parts of a model and of all within them;
    None for no parts.
    """
    return rf"(?:{'|'.join(map(re.escape, parts))})(?:\..*)?" if parts else None


def start_eva(model: Any, batches: list[Any]) -> None:
    """Start LoRA from the principal directions of its inputs, padding left out; LoRA ranks can
    move between layers.
    """
    inputs = [
        {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **batch.more}
        for batch in batches
    ]
    with torch.autocast(
        next(model.parameters()).device.type, enabled=False
    ):  # on a GPU QR has no half precision
        initialize_lora_eva_weights(
            model,
            inputs,
            prepare_model_inputs_fn=lambda model_input, _: model_input["attention_mask"].nonzero(),
            gather_distributed_inputs=False,  # all ranks see the same batches
            show_progress_bar=False,
        )


def start_corda(model: Any, batches: list[Any]) -> None:
    """Wrap the backbone anew, from a decomposition of its weights by the covariance of their
    inputs.
    """
    from peft.tuners.lora.corda import preprocess_corda

    config, backbone = model.active_peft_config, model.unload()

    def run() -> None:
        for batch in batches:
            for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
                backbone(
                    input_ids=ids[: int(mask.sum())].unsqueeze(0)
                )  # a text alone: padding must not count

    with torch.autocast(next(backbone.parameters()).device.type, enabled=False):
        preprocess_corda(backbone, config, run_model=run)
        model.base_model = get_peft_model(backbone, config).base_model


def _nested(hint: Any, value: Any) -> Any:
    """Return a mapping as the dataclass that PEFT's annotation names, anything else as it is."""
    kinds = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
    return kinds[0](**value) if kinds and isinstance(value, dict) else value  # type: ignore[operator]


def _largest_divisor(number: int, most: int) -> int:
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)
