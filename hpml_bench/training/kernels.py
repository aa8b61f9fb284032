"""Kernels: the same mathematics in fewer passes over memory, for every method alike (gains:
docs/performance.md).

Each function changes a model in place. Results differ from those of the replaced code by rounding
only (the fused activation; attention with dropout, whose products have the training's precision, as
in transformers' eager attention), by the random numbers drawn (dropout), or not at all (frozen
weights under autocast).
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import dropout as torch_dropout
from transformers import AttentionInterface, AttentionMaskInterface, masking_utils
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.pytorch_utils import Conv1D

from hpml_bench.suite.settings import Settings
from hpml_bench.training.distributed import blocks, is_sharded

ATTENTION = "hpml_sdpa"
SMALL = (
    1 << 13
)  # number of elements below which seeding a generator costs more than drawing from torch's
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
WEIGHTS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GROUP_BYTES = 25 * 2**20
"""Bytes of weights whose gradients are cast together, as DDP exchanges them (its
`bucket_cap_mb`).
"""


def speed_up(encoder: nn.Module, device: str) -> None:
    for parent in list(encoder.modules()):
        for name, child in parent.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(parent, name, nn.GELU(approximate="tanh"))
            elif type(child) is nn.Dropout and device == "cpu":
                setattr(parent, name, Dropout(child.p))


class Dropout(nn.Dropout):
    """Dropout whose mask costs less than torch's on a CPU; p is rounded to a multiple of 2^-16."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return apply_dropout(input, self.p) if self.training else input


def apply_dropout(values: Tensor, p: float) -> Tensor:
    """Apply dropout with 16 random bits per element from SFC64, seeded by one number of torch's
    generator.
    """
    if p == 0 or _threshold(p) == 2**16 or values.numel() < SMALL:
        return torch_dropout(values, p)
    return values * dropout_mask(values, p).mul_(1 / (1 - p))


def dropout_mask(values: Tensor, p: float) -> Tensor:
    """Return a new mask like the values, 1 where dropout keeps them and 0 where it doesn't; p
    below 1 - 2^-17.
    """
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw((values.numel() + 3) // 4)
    bits = torch.from_numpy(words.view(np.int16)[: values.numel()]).view(values.shape)
    return bits.ge_(_threshold(p) - 2**15).to(values.dtype)


def _threshold(p: float) -> int:
    """Return the number of values, of the 2^16 that 16 bits have, that drop an element."""
    return round(p * 2**16)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as torch's scaled_dot_product_attention; on a CPU with dropout, for which that has no
    kernel, written out.

    Query [B, H, L, D]; key and value [B, G, L, D] with H a multiple of G; mask [B or 1, 1, L, L]
    (True: attend) or None. Returns [B, L, H, D]. The softmax is in float32. A row that may attend
    to nothing, which only padding is, gets the mean of all values here, and zeros from torch's
    kernel.
    """
    groups = query.shape[1] // key.shape[1]
    if dropout == 0 or query.device.type != "cpu":
        options |= {"dropout": dropout, "scaling": scaling, "is_causal": is_causal}
        attending: Any = module
        if groups > 1 and attention_mask is None and query.device.type == "cuda":
            # no kernel but flash attention, which takes half precision from capability 8.0 on, and
            # torch's slowest has groups of heads that share keys (pytorch/pytorch#181528)
            kind = (
                torch.get_autocast_dtype("cuda")
                if torch.is_autocast_enabled("cuda")
                else query.dtype
            )
            half = kind in {torch.bfloat16, torch.float16}
            if not half or torch.cuda.get_device_capability(query.device) < (8, 0):
                key, value = (
                    key.repeat_interleave(groups, dim=1),
                    value.repeat_interleave(groups, dim=1),
                )
                attending = SimpleNamespace(is_causal=getattr(module, "is_causal", True))
        output, _ = sdpa_attention_forward(attending, query, key, value, attention_mask, **options)
        return output, None
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    length = query.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and length > 1 and causal:
        attention_mask = torch.ones(length, key.shape[2], dtype=torch.bool).tril()
    scores = (
        (query @ key.transpose(-1, -2))
        .float()
        .mul_(query.shape[-1] ** -0.5 if scaling is None else scaling)
    )
    if attention_mask is not None:  # added: masked_fill of the scores is one more pass each way
        hidden = torch.zeros_like(attention_mask, dtype=scores.dtype)
        scores.add_(hidden.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min))
    weights = apply_dropout(scores.softmax(dim=-1).to(value.dtype), dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, masking_utils.sdpa_mask)
masking_utils.find_packed_sequence_indices = lambda *_: (
    None
)  # no row holds several texts; looking waits for the device


def store_frozen_as_bf16(encoder: nn.Module) -> None:
    """Store linear layers' frozen weights in bfloat16, to which autocast would cast them: no bit
    differs on a CPU.
    """
    # an adapter's frozen ones, such as MiCA's, stay as they are: PEFT multiplies them with trained
    # ones when it merges
    tuners = [part for part in encoder.modules() if isinstance(part, BaseTunerLayer)]
    parts = [getattr(tuner, name) for tuner in tuners for name in tuner.adapter_layer_names]
    of_adapters = {
        weight for part in parts if isinstance(part, nn.Module) for weight in part.parameters()
    }
    for weight in linear_weights(encoder):
        if not weight.requires_grad and weight not in of_adapters:
            weight.data = weight.data.to(torch.bfloat16)


def linear_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights and biases of linear layers, which autocast casts in every step."""
    # without an output layer tied to the embeddings: they would become bfloat16 too, and with them
    # all that follows
    embeddings = [layer for layer in model.modules() if isinstance(layer, nn.Embedding)]
    shared = {weight for layer in embeddings for weight in layer.parameters()}
    linear = (layer for layer in model.modules() if type(layer) in {nn.Linear, Conv1D})
    return [
        weight
        for layer in linear
        for weight in layer.parameters(recurse=False)
        if weight not in shared
    ]


def autocast(settings: Settings, *, cached: bool | None = None) -> AbstractContextManager[object]:
    """Return the autocast of a precision; `cached`: whether casts of weights are kept until its
    end.
    """
    if settings.precision not in AUTOCAST:
        return nullcontext()
    # by default they are unless weights are sharded: a kept cast would leave a block's whole after
    # its pass
    cached = not is_sharded(settings) if cached is None else cached
    return torch.autocast(settings.device, dtype=AUTOCAST[settings.precision], cache_enabled=cached)


def autocast_of(model: nn.Module) -> AbstractContextManager[object]:
    """Return autocast in the half-precision type of a model's weights, where float32 adapters
    meet them; or nothing.
    """
    half = next((p for p in model.parameters() if p.dtype in AUTOCAST.values()), None)
    return nullcontext() if half is None else torch.autocast(half.device.type, dtype=half.dtype)


def make_scaler(settings: Settings) -> torch.amp.GradScaler:
    """Return the loss scaler of fp16, where small gradients would be 0 (Micikevicius et al.
    2018); else a no-op.
    """
    return torch.amp.GradScaler(settings.device, enabled=settings.precision == "fp16")


def set_float32_products(settings: Settings) -> None:
    """Let float32 products on a GPU round their inputs to TensorFloat-32 for the precision tf32,
    and for no other.
    """
    torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"


def leave_out_cudnn_attention() -> None:
    """Keep torch's attention from cuDNN's kernel, which torch prefers on an H100 from 2.11 on."""
    # with a mask its gradient is NaN at some lengths (pytorch/pytorch#196678), and it plans for
    # half a second at every new shape (modelscope/FunASR#3704), which would be part of the times of
    # steps and of generated tokens
    torch.backends.cuda.enable_cudnn_sdp(False)


SDPA_KERNELS: dict[str, Callable[[], Any]] = {
    "flash": torch.backends.cuda.flash_sdp_enabled,
    "memory efficient": torch.backends.cuda.mem_efficient_sdp_enabled,
    "cuDNN": torch.backends.cuda.cudnn_sdp_enabled,
    "math": torch.backends.cuda.math_sdp_enabled,
}
"""Kernels of torch's scaled_dot_product_attention, and whether it may take each."""


def attention_of(model: nn.Module) -> dict[str, Any]:
    """Return a record's entry on how a model attends: transformers' name for it, and the kernels
    that torch may take, which picks one for each shape.
    """
    config = getattr(getattr(model, "encoder", model), "config", None)
    return {
        "implementation": getattr(config, "_attn_implementation", None),
        "kernels": [name for name, enabled in SDPA_KERNELS.items() if enabled()],
    }


@dataclass
class ResidualStream:
    """The sum to which every block of a model adds what it computes."""

    dtype: str = ""
    """Its type in the last block's input; empty before a pass, and for a model without blocks."""


def watch_residual(model: nn.Module) -> ResidualStream:
    """Return a model's residual stream, whose type is noted in the next pass and in none after."""
    # the weights don't tell it: on a GPU autocast gives float32 for a layer norm, with which
    # post-norm blocks such as BERT's end
    stream = ResidualStream()
    members = [*blocks(getattr(model, "encoder", model))]
    if not members:
        return stream

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        handle.remove()
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        kinds = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        if kinds:
            stream.dtype = str(kinds[0]).removeprefix("torch.")

    handle = members[-1].register_forward_pre_hook(note, with_kwargs=True)
    return stream


def keep_trained_as_float32(model: nn.Module) -> None:
    """Convert trained parameters to float32: an optimizer's step is often too small to be added
    in bfloat16.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in {torch.bfloat16, torch.float16}:
            parameter.data = parameter.data.float()


# Casts: of all trained weights by one kernel, and of an input of several layers once; autocast
# launches one for each. Values and gradients are autocast's, to the bit: gradients of copies are
# added in float32, one after another.


class _CastWeights(torch.autograd.Function):
    """Copies of tensors in another type, whose gradients are in the tensors' own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.own = weights[0].dtype
        copies = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(copies, weights)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        reached = [gradient for gradient in gradients if gradient is not None]
        copies = [torch.empty_like(gradient, dtype=ctx.own) for gradient in reached]
        torch._foreach_copy_(copies, reached)
        found = iter(copies)
        return (None, *(None if gradient is None else next(found) for gradient in gradients))


class _CastInput(torch.autograd.Function):
    """A copy of an input in another type that was made already; its gradient is in the input's
    own.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, copy: Tensor) -> Tensor:
        ctx.own = value.dtype
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.to(ctx.own), None


class Casts:
    """The linear layers of an encoder under autocast, and their trained weights in float32; none
    in full precision.
    """

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        self.dtype = AUTOCAST.get(settings.precision)
        own = (
            weight for weight in linear_weights(encoder) if not isinstance(weight, DTensor)
        )  # no sharded ones
        trained = dict.fromkeys(of for of in own if of.requires_grad and of.dtype == torch.float32)
        linear = (layer for layer in encoder.modules() if type(layer) in {nn.Linear, Conv1D})
        self.layers = [*linear] if self.dtype else []
        self.groups: list[list[nn.Parameter]] = []
        for weight in trained if self.layers else ():
            if not self.groups or sum(of.nbytes for of in self.groups[-1]) >= GROUP_BYTES:
                self.groups.append([])
            self.groups[-1].append(weight)
        self._input: tuple[weakref.ref[Tensor], int, Tensor] | None = None
        """The last that was cast, its version, and its copy; an input kept alive would keep a
        block's activations.
        """

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Multiply by copies in the body: a forward and its backward pass, which may compute
        activations again.
        """
        copies: dict[int, Tensor] = {}
        for group in self.groups:
            made: tuple[Tensor, ...] = _CastWeights.apply(self.dtype, *group)  # type: ignore[no-untyped-call]
            copies.update(zip(map(id, group), made, strict=True))
        for layer in self.layers:
            vars(layer)["forward"] = partial(self._product, layer, layer.forward, copies)
        try:
            yield
        finally:
            self._input = None
            for layer in self.layers:
                del vars(layer)["forward"]

    def _product(
        self,
        layer: nn.Module,
        own: Callable[[Tensor], Tensor],
        copies: Mapping[int, Tensor],
        x: Tensor,
    ) -> Tensor:
        """Return a layer's product by copies; by its own weights where a model leaves autocast,
        as for some routers.
        """
        parameters = (
            layer._parameters
        )  # read now: those of a sharded layer are whole during its pass alone
        weight, bias = (
            copies.get(id(of), of) for of in (parameters.get("weight"), parameters.get("bias"))
        )
        if weight is None or not torch.is_autocast_enabled(x.device.type):
            return own(x)
        if x.dtype == torch.float32:
            # an input of the layer before is not cast again, as of queries and keys
            if self._input is None or self._input[0]() is not x or self._input[1] != x._version:
                self._input = weakref.ref(x, self._forget), x._version, x.detach().to(self.dtype)
            x = cast(Tensor, _CastInput.apply(x, self._input[2]))  # type: ignore[no-untyped-call]
        if type(layer) is not Conv1D or bias is None:
            return nn.functional.linear(x, weight, bias)
        return torch.addmm(bias, x.view(-1, x.shape[-1]), weight).view(*x.shape[:-1], -1)

    def _forget(self, _: weakref.ref[Tensor]) -> None:
        self._input = None
