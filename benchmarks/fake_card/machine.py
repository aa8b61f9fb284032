"""A machine with a card that isn't there: the calls of torch and of the harness that ask a driver,
replaced.

Among them is autograd's engine, which asks it for a stream: the graph is walked node by node, in
Python. Each node computes its own gradients, on tensors of the card, so that devices are checked in
the backward pass too. Hooks on tensors are not called; a run of ours has none.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from inspect import getattr_static
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode
from transformers import PreTrainedModel

from fake_card.tensors import CPU, CUDA, Card, CardTensor, WrongDeviceError, held
from hpml_bench.plugins.group import Group
from hpml_bench.suite.settings import DatasetSpec, Settings
from hpml_bench.training import clock, distributed, model, trainer
from hpml_bench.training.distributed import process_group

attend: Any = torch.nn.functional.scaled_dot_product_attention
make_tensor = torch.tensor
load_backbone = model.load_backbone
swap_tensors: Any = torch.utils.swap_tensors
DATA: Any = getattr_static(torch._C.TensorBase, "data")


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return torch.tensor of the CPU, moved: the original asks the driver itself. That copy
    waits, as torch's does.
    """
    made = make_tensor(data, dtype=dtype, device=None if device is None else "cpu")
    return (made if device is None else made.to(device)).requires_grad_(requires_grad)


def swap(one: Tensor, other: Tensor) -> None:
    """Give a parameter what it gets when its module moves; torch swaps none that is part of a
    graph.
    """
    if isinstance(one, CardTensor) and isinstance(other, CardTensor):
        one.data = other
    else:
        swap_tensors(one, other)


def set_data(tensor: Tensor, value: Tensor) -> None:
    """Replace a tensor's data; one on the CPU moves to the card with it, as in torch."""
    if isinstance(value, CardTensor):
        swap_tensors(
            tensor,
            nn.Parameter(value, tensor.requires_grad)
            if isinstance(tensor, nn.Parameter)
            else value,
        )
    else:
        DATA.__set__(tensor, value)


def load(
    folder: Path, settings: Settings, kind: Any = "encoder", device: torch.device = CUDA
) -> PreTrainedModel:
    """Load a backbone on the CPU and move it: files are read into the memory of a card by the
    driver.
    """
    return load_backbone(folder, settings, kind, torch.device("cpu")).to(device)


def leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Attention(torch.autograd.Function):
    """Torch's attention, which a card does by one kernel each way, on what tensors hold; its
    graph stands beside.
    """

    @staticmethod
    def forward(ctx: Any, call: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        count("attention")
        with _disable_current_modes(), torch.set_grad_enabled(any(ctx.needs_input_grad)):
            ctx.inputs = [
                held(each).detach().requires_grad_(torch.is_grad_enabled()) for each in tensors
            ]
            ctx.output = call(*ctx.inputs)
            return CardTensor(ctx.output.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count("attention_backward")
        with _disable_current_modes():
            return None, *map(
                CardTensor, torch.autograd.grad(ctx.output, ctx.inputs, held(gradients[0]))
            )


def count(name: str) -> None:
    mode = _get_current_dispatch_mode()
    if isinstance(mode, Card):
        mode.kernels[name] += 1


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any
) -> Any:
    """Attend as torch does; under autocast in its type."""
    if query.device != CUDA:
        return attend(query, key, value, attn_mask, **options)
    kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    mask = attn_mask if attn_mask is None or attn_mask.dtype == torch.bool else attn_mask.to(kind)

    def call(*tensors: Tensor) -> Any:
        return attend(*tensors, held(mask), **options)

    return Attention.apply(call, *(each.to(kind) for each in (query, key, value)))  # type: ignore[no-untyped-call]


def backward(roots: Any, gradients: Any = None, *_: Any, **__: Any) -> None:
    """Add the gradients of tensors to those of the leaves that the graph reaches, as
    torch.autograd.backward.

    A gradient gets the shape and type of the output that it is of; WrongDeviceError where the
    device isn't the same.
    """
    roots = [roots] if isinstance(roots, Tensor) else list(roots)
    gradients = (
        [gradients] if isinstance(gradients, Tensor) or gradients is None else list(gradients)
    )
    arrived: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    ready = []
    left = _edges(root.grad_fn for root in roots if root.grad_fn is not None)
    for root, gradient in zip(roots, [*gradients, *[None] * len(roots)], strict=False):
        if root.grad_fn is None:
            raise RuntimeError("an output doesn't depend on any trained parameter")
        add(
            arrived[root.grad_fn],
            root.output_nr,
            torch.ones_like(root) if gradient is None else gradient,
        )
        ready += [root.grad_fn] * (not left[root.grad_fn] and root.grad_fn not in ready)
    with torch.no_grad():
        while ready:
            node = ready.pop()
            given = through(node, arrived.pop(node, {}))
            for (following, number), gradient in zip(node.next_functions, given, strict=False):
                if following is None:
                    continue
                left[following] -= 1
                if gradient is not None:
                    output = following._input_metadata[number]
                    if gradient.device != output.device:
                        told = (
                            f"got a gradient on {gradient.device}, which is not the same device "
                            f"as {output.device}"
                        )
                        raise WrongDeviceError(f"{following.name()} {told}")
                    same = gradient.shape == torch.Size(output.shape)
                    shaped = gradient if same else gradient.sum_to_size(output.shape)
                    add(arrived[following], number, shaped.to(output.dtype))
                ready += [following] * (not left[following])


def _edges(nodes: Iterable[Any]) -> Counter[Any]:
    """Return how many nodes of the graph lead to each node."""
    found: Counter[Any] = Counter()
    stack, seen = list(nodes), set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        following = [each for each, _ in node.next_functions if each is not None]
        found.update(following)
        stack += following
    return found


def add(arrived: dict[int, Tensor], number: int, gradient: Tensor) -> None:
    arrived[number] = arrived[number] + gradient if number in arrived else gradient


def through(node: Any, arrived: dict[int, Tensor]) -> Sequence[Tensor | None]:
    """Return the gradients of a node's inputs; a leaf keeps what arrives."""
    if not arrived:
        return [None] * len(node.next_functions)
    leaf = getattr(node, "variable", None)
    if leaf is not None:
        first = arrived[0].detach()
        first = (
            first if first.stride() == leaf.stride() else torch.empty_like(leaf).copy_(first)
        )  # as fused steps need
        leaf.grad = first if leaf.grad is None else leaf.grad + arrived[0]
        return ()
    values = [arrived.get(number) for number in range(len(node._input_metadata))]
    found = node.apply(*values) if isinstance(node, BackwardCFunction) else node(*values)  # type: ignore[no-untyped-call]
    found = found if isinstance(found, tuple) else (found,)
    kept = getattr(node, "tensor_inputs", None)
    return (
        found
        if kept is None
        else [each for each, tensor in zip(found, kept, strict=False) if tensor]
    )


def note_inputs(apply: Any) -> Any:
    """Return the unbound `apply` of functions in Python, which notes for `through` which
    arguments are tensors.
    """

    def noted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        result = apply.__get__(None, cls)(*args, **kwargs)
        for output in result if isinstance(result, tuple) else (result,):
            if isinstance(output, Tensor) and isinstance(output.grad_fn, BackwardCFunction):
                output.grad_fn.tensor_inputs = [isinstance(each, Tensor) for each in args]
        return result

    return classmethod(noted)


@contextmanager
def card() -> Iterator[tuple[Card, Group]]:
    """Yield the mode in which CUDA's tensors are those of the card, and the group of the only
    rank, which has it.
    """
    torch._C._ensureCUDADeviceGuardSet()  # one that does nothing, if there is no driver
    with torch.device(
        "cpu"
    ):  # the first such context keeps the functions that it changes, torch.tensor among them:
        torch.empty(
            0
            # with the stand-in kept instead, transformers would leave models' buffers uninitialised
        )
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    with ExitStack() as stack:
        for owner, name, value in REPLACED:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch.dict(os.environ, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0"))
        torch.__future__.set_swap_module_params_on_conversion(
            True
        )  # a parameter that moves stays the same object
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        stack.callback(leave_group)
        dataset = DatasetSpec(name="text_files")
        settings = Settings(backbone="path:x", dataset=dataset, device="cpu", world_size=1, steps=1)
        stack.enter_context(process_group(settings))
        yield stack.enter_context(Card()), Group(0, 1, CUDA)


REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (torch, "tensor", tensor),
    (torch.cuda, "_lazy_init", lambda: None),
    (torch.cuda, "synchronize", lambda *_: None),
    (torch.cuda, "current_device", lambda: 0),
    (torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state()),  # random numbers are the CPU's
    (torch.cuda, "set_rng_state", lambda *_: None),
    (torch.cuda, "get_device_capability", lambda *_: (9, 0)),
    (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
    (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
    (torch.utils, "swap_tensors", swap),
    (_foreach_utils, "_foreach_supported_types", [Tensor, CardTensor]),
    (nn.functional, "scaled_dot_product_attention", attention),
    (torch.Tensor, "data", property(DATA.__get__, set_data)),
    (torch.Tensor, "pin_memory", lambda self, *_: self),
    (torch.autograd, "backward", backward),
    (torch._C, "_current_graph_task_id", lambda: 0),  # checkpointing computes again once per number
    (torch.Tensor, "backward", lambda self, gradient=None, *_, **__: backward(self, gradient)),
    (
        torch.autograd.Function,
        "apply",
        note_inputs(getattr_static(torch.autograd.Function, "apply")),
    ),
    # within that of `card`
    (
        distributed,
        "process_group",
        lambda of: nullcontext(Group(0, 1, CUDA if of.device == "cuda" else CPU)),
    ),
    (distributed, "uuid", lambda _: ""),
    (model, "load_backbone", load),
    (trainer, "clock", lambda _: clock.CpuClock()),
)
"""Owner, name and stand-in."""
