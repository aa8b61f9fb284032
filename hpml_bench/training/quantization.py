"""Quantisation: a backbone whose frozen linear layers are stored in 4 or 8 bits, by bitsandbytes;
counts of weights.

transformers quantises linear layers, and GPT-2's Conv1D (transposed), while it loads them.
Embeddings, norms, biases and the output layer stay floats.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_bnb_weight
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer
from transformers.quantizers.base import get_keys_to_not_convert

from hpml_bench.suite.settings import Settings
from hpml_bench.training.kernels import AUTOCAST
from hpml_bench.training.trial import passed_over

WEIGHTS = ("Params4bit", "Int8Params")
"""bitsandbytes' classes of quantised weights; PEFT knows them by their names too, without
importing it.
"""


def config_of(settings: Settings, model: PreTrainedModel) -> BitsAndBytesConfig:
    """Return how `from_pretrained` quantises a model like this one, whose weights need no
    values.
    """
    chosen = cast(Any, settings.quantization)
    passed = passed_over(model)
    skipped = (
        [*get_keys_to_not_convert(model), *passed] if passed else None
    )  # None: the former alone
    if chosen.name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    dtype = chosen.compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=skipped,
        bnb_4bit_quant_type=chosen.name,
        bnb_4bit_use_double_quant=chosen.double_quantization,
        bnb_4bit_compute_dtype=getattr(torch, dtype)
        if dtype
        else AUTOCAST.get(settings.precision, torch.float32),
    )


def replace_layers(model: PreTrainedModel, settings: Settings) -> Any:
    """Replace layers of a model without values as loading does, and return transformers'
    quantizer.
    """
    quantizer = AutoHfQuantizer.from_config(config_of(settings, model), pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map={"": torch.device("cpu")})
    return quantizer


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Freeze a quantised model, in place, and make it ready for training; leave any other as it
    is.
    """
    # as PEFT's `prepare_model_for_kbit_training`, but embeddings and output layer keep their type,
    # inputs no gradient
    if not is_quantized(model):
        return model
    model.requires_grad_(False)
    for layer in model.modules():
        if type(layer).__name__.endswith("Norm"):
            layer.float()
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # evaluation would pack the weights anew, for good, and products with them give no
            # gradient
            layer.support_avx512bf16_for_cpu = False
    return model


def is_quantized(model: nn.Module) -> bool:
    return any(_is_quantized(layer) for layer in model.modules())


def _is_quantized(layer: nn.Module) -> bool:
    """Return whether a layer itself has a quantised weight; PEFT's layers around one have not."""
    weight = layer._parameters.get("weight")
    return type(weight).__name__ in WEIGHTS or hasattr(weight, "quant_state")


def weights_in(parameter: nn.Parameter) -> int:
    """Return the number of weights in a parameter; a packed one has twice its bytes, or one
    less.
    """
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def frozen_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's frozen weights as they are stored, with the scales of
    quantised ones.
    """
    parts: list[Tensor] = [weight for weight in model.parameters() if not weight.requires_grad]
    for layer in filter(_is_quantized, model.modules()):
        weight = cast(Any, layer.weight)
        if type(weight).__name__ == "Int8Params":
            parts.append(cast(Any, layer).state.SCB if weight.SCB is None else weight.SCB)
        else:  # scales, and tables of levels
            states = [weight.quant_state, weight.quant_state.state2]
            found = [
                getattr(state, name, None)
                for state in states
                for name in ("absmax", "code", "offset")
            ]
            parts += [part for part in found if part is not None]
    return sum(part.nbytes for part in parts)


def coverage(encoder: nn.Module) -> dict[str, float]:
    """Return `adapted_percent` of a method of PEFT that acts on layers, `quantized_percent` of a
    quantised backbone.

    They are shares of the weights in matrices, embeddings and output layer left out: 100 % where
    every linear layer is reached. The experts of a mixture may be in no linear layer, and then be
    neither adapted nor quantised.
    """
    base: Any = cast(Any, encoder).get_base_model() if isinstance(encoder, PeftModel) else encoder
    layers: list[Any] = [layer for layer in base.modules() if isinstance(layer, BaseTunerLayer)]
    # what doesn't count: embeddings, output layer, and what PEFT has added
    added = [
        getattr(x, name, None)
        for x in layers
        for name in (*x.adapter_layer_names, *x.other_param_names)
    ]
    output = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    parts = [part for part in (*added, output) if isinstance(part, nn.Module)]
    parts += [part for part in base.modules() if isinstance(part, nn.Embedding)]
    outside = {id(weight) for part in parts for weight in part.parameters()}
    body = {
        id(weight): weight
        for weight in base.parameters()
        if weight.ndim > 1 and id(weight) not in outside
    }
    # PEFT acts on the weight of a linear layer, or on one parameter of stacked experts
    acted_on = {
        id(getattr(x.get_base_layer(), getattr(x, "parameter_name", "weight"), None))
        for x in layers
    }
    adapted = [weight for key, weight in body.items() if key in acted_on or weight.requires_grad]
    quantized = [weight for weight in body.values() if type(weight).__name__ in WEIGHTS]
    shares = {"adapted_percent": adapted if layers else [], "quantized_percent": quantized}
    total = sum(map(weights_in, body.values()))
    return {name: 100 * sum(map(weights_in, part)) / total for name, part in shares.items() if part}


@contextmanager
def merged_in_floats(encoder: nn.Module) -> Iterator[bool]:
    """Let the body compute as if the method were folded into the dequantised weights; yield
    False if that can't be.
    """
    layers = [layer for layer in encoder.modules() if _is_quantized(_base(layer))]
    adapted: list[Any] = [layer for layer in layers if isinstance(layer, BaseTunerLayer)]
    biased = any(any(getattr(layer, "lora_bias", {}).values()) for layer in adapted)
    if not adapted or biased or any(not hasattr(layer, "get_delta_weight") for layer in adapted):
        yield False
        return
    for (
        layer
    ) in layers:  # dequantised when it is called, so that no more than one is in memory as floats
        layer.forward = partial(_forward_in_floats, layer)
    try:
        yield True
    finally:
        for layer in layers:
            del layer.forward


def _base(layer: nn.Module) -> nn.Module:
    return cast(nn.Module, layer.get_base_layer()) if isinstance(layer, BaseTunerLayer) else layer


def _forward_in_floats(layer: Any, states: Tensor) -> Tensor:
    base: Any = _base(layer)
    weight = dequantize_bnb_weight(base.weight, getattr(base, "state", None)).detach().float()
    if isinstance(layer, BaseTunerLayer):
        weight = weight + sum(
            cast(Any, layer).get_delta_weight(name) for name in layer.active_adapters
        )
    bias = None if base.bias is None else base.bias.to(weight.dtype)
    return linear(states, weight, bias)
