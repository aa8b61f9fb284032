"""Fake tensors in place of a run's real ones: its model, quantised layers, and what torch's fake
tensors can't run.
"""

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial, reduce
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.nn import functional
from torch.nn.functional import layer_norm, linear
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface, PreTrainedModel, masking_utils
from transformers.pytorch_utils import Conv1D

from hpml_bench.data.sources import weight_types
from hpml_bench.fit import depth
from hpml_bench.plugins.rows import Batch, Rows
from hpml_bench.suite.settings import Settings
from hpml_bench.system.environment import has_bf16
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.training import distributed, kernels, peft, quantization, saving
from hpml_bench.training.distributed import is_sharded, mesh_of
from hpml_bench.training.kernels import WEIGHTS
from hpml_bench.training.model import CPU, ModelKind, describe_backbone

NONE = "hpml_none"
"""Marks the result of `mask.any()`. Branches on it are taken as False: nearly all such masks
flag errors.
"""
BLOCK, SCALES_BLOCK = 64, 256
"""Weights per scale of nf4, and scales per scale of scales under double quantisation:
bitsandbytes' defaults.
"""
LEVELS, SCALE_LEVELS = 16, 256  # entries of the tables of levels of weights, and of scales
BUFFERS = 2**16
"""Bytes of oneDNN's buffers in a product of bfloat16 by instructions for it: 45 to 116 kB at the
peaks of the runs of `benchmarks/fit_ratios.py`; ATen's own products, which processors without
AVX-512 take, have none.
"""
PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}


def _scalar(tensor: Tensor) -> float:
    if tensor.dtype == torch.bool:
        return not hasattr(tensor, NONE)
    return 1.0 if tensor.is_floating_point() else 0


def _any(tensor: Tensor, *_: Any) -> Tensor:
    found = torch.empty((), dtype=torch.bool)
    if tensor.dtype == torch.bool:
        setattr(found, NONE, True)
    return found


def _places(tensor: Tensor) -> Tensor:
    return tensor.new_empty((tensor.numel(), tensor.dim()), dtype=torch.int64)


def _unmasked(indices: list[Tensor | None]) -> list[Tensor | None]:
    masks = [index is not None and index.dtype == torch.bool for index in indices]
    found = [
        list(_places(cast(Tensor, i)).unbind(1)) if m else [i]
        for i, m in zip(indices, masks, strict=True)
    ]
    return [part for parts in found for part in parts]


def _quantized_product(
    inputs: Tensor,
    _packed: Tensor,
    shape: Any,
    absmax: Tensor,
    *_: Any,
    bias: Any = None,
    **__: Any,
) -> Tensor:
    """Return inputs times dequantised weights, which are a temporary of the product, as their
    scales are.
    """
    scales = torch.empty(absmax.shape)
    weight = torch.empty(tuple(shape), dtype=inputs.dtype)
    result = linear(inputs, weight, bias)
    del scales
    return result


def _grouped_product(
    one: Tensor, other: Tensor, offsets: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    """Return the product of experts' tokens and weights [E, K, N], or, of two matrices, one such
    part per expert.
    """
    groups = offsets.shape if one.dim() == other.dim() == 2 and offsets is not None else ()
    return one.new_empty((*groups, one.shape[-2], other.shape[-1]))


MADE_UP: dict[str, Callable[..., Any]] = {
    "aten::_local_scalar_dense": _scalar,
    "aten::any": _any,
    "aten::_grouped_mm": _grouped_product,
    "aten::bincount": lambda tensor, _weights=None, minlength=0: tensor.new_empty(minlength),
    "aten::nonzero": _places,
    "aten::index.Tensor": lambda tensor, indices: torch.ops.aten.index(tensor, _unmasked(indices)),
    "aten::index_put_": lambda tensor, indices, *rest: torch.ops.aten.index_put_(
        tensor, _unmasked(indices), *rest
    ),
    "bitsandbytes::gemm_4bit": _quantized_product,
}
"""Operators whose result depends on values, which fake tensors don't have, or that take memory
inside -> what stands in for them.
"""


def copies(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """Return tensors of the sizes of the copies that an operator makes of its operands, and of
    oneDNN's buffers.
    """
    tensors = [value for value in args if isinstance(value, Tensor) and value.dim()]
    if torch.Tag.pointwise in func.tags:
        # operands of several types are converted to the common one, and what is written in place
        # too (torch: aten/src/ATen/TensorIterator.cpp, `compute_types`)
        floats = [tensor for tensor in tensors if tensor.is_floating_point()]
        common = (
            reduce(torch.promote_types, [tensor.dtype for tensor in floats]) if floats else None
        )
        written = floats[:1] if func._schema.is_mutable else []
        return [
            torch.empty(tensor.shape, dtype=common)
            for tensor in floats + written
            if tensor.dtype != common
        ]
    if func.name() in PRODUCTS:
        # conjugates are resolved (ATen/ConjugateFallback.cpp), and bfloat16 matrices copied whose
        # rows or columns aren't contiguous (ATen/native/mkldnn/Matmul.cpp,
        # `is_mkldnn_optimized_format`)
        half = tensors[-1].dtype == torch.bfloat16
        odd = [
            half and not (value.is_contiguous() or value.mT.is_contiguous()) for value in tensors
        ]
        copied = [
            value for value, strange in zip(tensors, odd, strict=True) if strange or value.is_conj()
        ]
        found = [torch.empty(value.shape, dtype=value.dtype) for value in copied]
        if half:
            # oneDNN adds up in a float32 matrix of the result's shape with AVX-512 and without
            # instructions for bfloat16 (src/cpu/matmul/gemm_bf16_matmul.cpp,
            # `book_acc_scratchpad`): on a processor that lacks these, or by its variable
            limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in {
                "AVX512_CORE",
                "AVX512_CORE_VNNI",
            }
            in_float32 = torch.backends.cpu.get_cpu_capability() == "AVX512" and (
                limited or not has_bf16("cpu")
            )
            sums = 4 * tensors[-2].shape[-2] * tensors[-1].shape[-1] if in_float32 else 0
            found.append(torch.empty(max(BUFFERS, sums), dtype=torch.uint8))
        return found
    return []


class MadeUp(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets a program read values that fake tensors lack, and shows what operators do inside;
    inside the tracker.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inside = copies if device == "cpu" else (lambda _func, _args: [])

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        inside = self._inside(func, args)
        result = MADE_UP.get(func.name(), func)(*args, **(kwargs or {}))
        del inside
        return result


def to_fake(model: nn.Module) -> None:
    """Replace tensors on the meta device by fake ones on the CPU, in place; call it under
    FakeTensorMode.
    """
    made: dict[int, Tensor] = {}  # shared ones stay shared

    def fake(tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor
        if id(tensor) not in made:
            like = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CPU
            )
            weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = (
                nn.Parameter(like, requires_grad=tensor.requires_grad) if weight else like
            )
        return made[id(tensor)]

    for module in model.modules():
        # some of PEFT's keep tensors outside parameters and buffers
        for own in cast(
            tuple[dict[str, Any], ...], (module._parameters, module._buffers, vars(module))
        ):
            for name, value in list(own.items()):
                if isinstance(value, Tensor):
                    own[name] = fake(value)


def _pack(layer: Any, settings: Settings) -> None:
    """Replace the weight of a layer of bitsandbytes by a fake one, of the bytes that nf4 takes,
    with its scales.
    """
    from bitsandbytes.functional import QuantState

    chosen, weight = settings.quantization, layer.weight
    assert chosen is not None  # noqa: S101 - `describe` has made the layer
    scales = math.ceil(weight.numel() / BLOCK)
    shape, dtype = torch.Size((layer.out_features, layer.in_features)), WEIGHTS[settings.weights]
    nested: dict[str, Any] = {}
    if chosen.double_quantization:
        further = torch.empty(math.ceil(scales / SCALES_BLOCK))
        state2 = QuantState(
            absmax=further,
            code=torch.empty(SCALE_LEVELS),
            blocksize=SCALES_BLOCK,
            dtype=torch.float32,
        )
        nested = {"offset": torch.empty(()), "state2": state2}
    absmax = torch.empty(scales, dtype=torch.uint8 if nested else torch.float32)
    packed: Any = nn.Parameter(
        torch.empty(math.ceil(weight.numel() / 2), 1, dtype=torch.uint8), requires_grad=False
    )
    packed.quant_state = QuantState(
        absmax=absmax,
        shape=shape,
        code=torch.empty(LEVELS),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
        **nested,
    )
    packed.bnb_quantized, packed.quant_type, packed.compress_statistics = (
        True,
        "nf4",
        chosen.double_quantization,
    )
    layer._parameters["weight"], layer.quant_state = packed, packed.quant_state


def _in_file(name: str) -> list[str]:
    """Return what sorts names in the order of loading: by parts, numbers by value."""
    return [part.zfill(9) if part.isdigit() else part for part in name.split(".")]


def describe(
    folder: Path,
    settings: Settings,
    kind: ModelKind,
    _: torch.device,
    blocks: int | None = None,
    on_cpu: bool = True,
) -> PreTrainedModel:
    """Return a backbone of fake tensors, of its first blocks or all, from config.json; call it
    under FakeTensorMode.

    `on_cpu`: whether the run is on a CPU, and not on a card. Raises Unsupported: the weights are
    int8.
    """
    change = partial(depth.cut, blocks=blocks) if blocks else None
    with unset_fake_temporarily():
        backbone = describe_backbone(folder, settings, kind, change)
        if settings.quantization is not None:
            if (
                settings.quantization.name != "nf4"
            ):  # products of int8 can't be traced: they look for large inputs
                raise Unsupported("its memory can't be predicted in int8; that in nf4 can")
            # as loading does; by the latter PEFT tells such layers
            quantization.replace_layers(backbone, settings).postprocess_model(backbone)
            quantization.prepare(backbone)
            backbone.requires_grad_(False)
    named = backbone.named_modules()
    packed: dict[str, Any] = {
        name: layer for name, layer in named if type(layer).__name__ == "Linear4bit"
    }
    for layer in packed.values():
        _pack(layer, settings)
    to_fake(backbone)
    if packed:  # bytes that the last of the largest weights takes while it is quantised
        weights = {name: layer.in_features * layer.out_features for name, layer in packed.items()}
        last = max(packed, key=lambda name: (weights[name], _in_file(name)))
        later = sum(
            weight.nbytes
            for name, weight in backbone.named_parameters()
            if _in_file(name) > _in_file(last)
        )
        dtype = WEIGHTS[settings.weights]
        each = dtype.itemsize * (
            1 + issubclass(packed[last].source_cls, Conv1D)
        )  # GPT-2's are transposed to a copy
        if on_cpu:
            with suppress(UserError):  # where the file is here, a weight of its type stays there
                each -= dtype.itemsize * (weight_types(folder).keys() == {saving.TYPES[dtype]})
            # `quantize_4bit` is made of operators, which hold float32 values, these scaled, int32
            # and uint8 levels and two halves of the latter (bitsandbytes: backends/default/ops.py)
            each += 10 if dtype == torch.float32 else 14
        torch.empty(max(0, weights[last] * each - later), dtype=torch.uint8)
    return backbone


def _apply(
    module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """Convert a module's tensors as torch does real ones: for fake ones it swaps, which weak
    references forbid.
    """
    for child in module.children() if recurse else ():
        child._apply(convert)  # type: ignore[no-untyped-call]
    for weight in module._parameters.values():
        if weight is not None:
            weight.data = convert(weight.data)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else convert(buffer)
    return module


class Flash(torch.autograd.Function):
    """Attention without a mask by CUDA's flash kernel: keeps inputs, output and a float32 per
    query and head.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, length, _ = query.shape
        output = query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
        ctx.save_for_backward(query, key, value, output, torch.empty(batch, heads, length))
        return output

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _, sums = ctx.saved_tensors
        inside = [
            torch.empty_like(sums)
        ]  # the products of outputs and their gradients, summed over a head
        # keys and values [B, G, L, D] of fewer heads than the queries' are not repeated, but for
        # their gradients (torch: aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp,
        # `mha_bwd`)
        if query.shape[1] > key.shape[1]:
            inside += [part.new_empty(*query.shape[:2], *part.shape[2:]) for part in (key, value)]
        return tuple(torch.empty_like(part) for part in (query, key, value))


def _fused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as the kernels for CUDA, which keep no scores, with dropout too; without a mask as
    `Flash`.
    """
    if mask is not None:
        return kernels.attention(module, query, key, value, mask, **options | {"dropout": 0.0})
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    query, key, value = (part.to(kind) for part in (query, key, value))
    if (
        kind == torch.float32 and (groups := query.shape[1] // key.shape[1]) > 1
    ):  # no flash: keys are repeated
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return Flash.apply(query, key, value).transpose(1, 2), None  # type: ignore[no-untyped-call]


def _cuda_layer_norm(values: Tensor, shape: Any, *rest: Any, **more: Any) -> Tensor:
    """Normalise in float32 under autocast, as on CUDA, whose gradient keeps that copy; on a CPU
    bfloat16 stays.
    """
    if not torch.is_autocast_enabled("cpu"):
        return layer_norm(values, shape, *rest, **more)
    rest = tuple(value.float() if isinstance(value, Tensor) else value for value in rest)
    return layer_norm(values.float(), shape, *rest, **more)


def _start(*_: Any) -> None:
    """Refuse a start from rows, which takes memory of its own and depends on values."""
    raise Unsupported("it starts from a decomposition of values, which isn't traced")


@contextmanager
def stand_ins(device: str) -> Iterator[None]:
    """Replace in the body what fake tensors can't run, or what a fake CPU runs otherwise than a
    GPU.
    """
    padded = True

    def batch(rows: Rows, indices: Any) -> Batch:
        nonlocal padded
        found = own_batch(rows, indices)
        padded = found.real_tokens < found.padded_tokens
        return found

    own_batch, on_cpu = Rows.batch, device == "cpu"
    attention = kernels.attention if on_cpu else _fused_attention
    # the real mask seeds numpy's generator with a value; CUDA's dropout keeps one of a byte per
    # element
    dropout: tuple[str, Any] = ("dropout_mask", lambda values, _p: torch.empty_like(values))
    if not on_cpu:
        dropout = (
            "apply_dropout",
            lambda values, p: torch.native_dropout(values, p, train=True)[0] if p else values,
        )
    replaced: list[tuple[Any, str, Any]] = [
        (kernels, *dropout),
        (functional, "layer_norm", layer_norm if on_cpu else _cuda_layer_norm),
        (nn.Module, "_apply", _apply),
        (peft, "start_eva", _start),
        (peft, "start_corda", _start),
        (Rows, "batch", batch),
        (
            distributed,
            "largest_number",
            lambda own: lambda: own,
        ),  # fake tensors can't wait for the other ranks'
        # transformers leaves a mask out where no token is padding, which it sees by values, and so
        # not while tracing
        (masking_utils, "is_tracing", lambda *_: padded or not torch.is_grad_enabled()),
    ]
    with ExitStack() as stack:
        for where, name, value in replaced:
            stack.enter_context(mock.patch.object(where, name, value))
        AttentionInterface.register(kernels.ATTENTION, attention)
        try:
            yield
        finally:
            AttentionInterface.register(kernels.ATTENTION, kernels.attention)


@contextmanager
def silent_ranks(settings: Settings) -> Iterator[None]:
    """Join a process group whose other ranks send nothing, where the model is sharded over them
    in the body.
    """
    if not is_sharded(settings):
        yield
        return
    for name in ("testing._internal.distributed.fake_pg", "distributed._tools.fake_collectives"):
        importlib.import_module(
            f"torch.{name}"
        )  # which registers the backend, and before torch 2.10 its operators
    dist.init_process_group("fake", store=HashStore(), rank=0, world_size=settings.world_size or 1)
    mesh_of("cpu")  # of values, which fake tensors don't have
    try:
        yield
    finally:
        dist.destroy_process_group()
