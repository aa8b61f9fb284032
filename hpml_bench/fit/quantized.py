"""Backbones in 4 bits without weights: bitsandbytes' layers, whose weights' sizes follow from their storage."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import quantization
from hpml_bench.training.kernels import WEIGHTS

BLOCK, SCALES_BLOCK = 64, 256
"""Weights per scale of nf4, and scales per scale of scales under double quantisation: bitsandbytes' defaults."""
LEVELS, SCALE_LEVELS = 16, 256
"""Entries of the tables of levels of weights, and of scales."""


def quantize(model: PreTrainedModel, settings: Settings) -> None:
    """Replace the linear layers of a model on the meta device as loading does where a run's settings quantise it.

    Raises:
        Unsupported: the weights are int8, whose products can't be traced: they look for large inputs.

    """
    options = quantization.loading_options(settings, torch.device("cpu"))
    if settings.quantization is None:
        return
    if settings.quantization.name != "nf4":
        raise Unsupported("its memory can't be predicted in int8; that in nf4 can")
    quantizer = AutoHfQuantizer.from_config(options["quantization_config"], pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=options["device_map"])
    quantization.prepare(model)
    model.requires_grad_(False)


def pack(layer: Any, settings: Settings) -> None:
    """Replace the weight of a layer of bitsandbytes by a fake one, of the bytes that nf4 takes, with its scales."""
    from bitsandbytes.functional import QuantState

    chosen, weight = settings.quantization, layer.weight
    assert chosen is not None  # noqa: S101 - `quantize` has made the layer
    scales = math.ceil(weight.numel() / BLOCK)
    shape, dtype = torch.Size((layer.out_features, layer.in_features)), WEIGHTS[settings.weights]
    nested: dict[str, Any] = {}
    if chosen.double_quantization:
        further = torch.empty(math.ceil(scales / SCALES_BLOCK))
        state2 = QuantState(absmax=further, code=torch.empty(SCALE_LEVELS), blocksize=SCALES_BLOCK, dtype=torch.float32)
        nested = {"offset": torch.empty(()), "state2": state2}
    absmax = torch.empty(scales, dtype=torch.uint8 if nested else torch.float32)
    packed: Any = nn.Parameter(torch.empty(math.ceil(weight.numel() / 2), 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = QuantState(
        absmax=absmax, shape=shape, code=torch.empty(LEVELS), blocksize=BLOCK, quant_type="nf4", dtype=dtype, **nested
    )
    packed.bnb_quantized, packed.quant_type, packed.compress_statistics = True, "nf4", chosen.double_quantization
    layer._parameters["weight"], layer.quant_state = packed, packed.quant_state


def product(
    inputs: Tensor, _packed: Tensor, shape: Any, absmax: Tensor, *_: Any, bias: Any = None, **__: Any
) -> Tensor:
    """Return inputs times dequantised weights, which are a temporary of the product, as their scales are."""
    scales = torch.empty(absmax.shape)
    weight = torch.empty(tuple(shape), dtype=inputs.dtype)
    result = linear(inputs, weight, bias)
    del scales
    return result
