"""Stand-in for autograd's engine, which asks the driver for a stream: the graph is walked node by node, in Python.

Each node computes its own gradients, on tensors of the card, so that devices are checked in the backward pass too.
Hooks on tensors are not called; a run of ours has none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from fake_card.tensors import WrongDeviceError


def backward(roots: Any, gradients: Any = None, *_: Any, **__: Any) -> None:
    """Add the gradients of tensors to those of the leaves that the graph reaches, as torch.autograd.backward."""
    roots = [roots] if isinstance(roots, Tensor) else list(roots)
    gradients = [gradients] if isinstance(gradients, Tensor) or gradients is None else list(gradients)
    arrived: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    ready = []
    left = _edges(root.grad_fn for root in roots if root.grad_fn is not None)
    for root, gradient in zip(roots, [*gradients, *[None] * len(roots)], strict=False):
        if root.grad_fn is None:
            raise RuntimeError("an output doesn't depend on any trained parameter")
        add(arrived[root.grad_fn], root.output_nr, torch.ones_like(root) if gradient is None else gradient)
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
                    add(arrived[following], number, fitted(gradient, following, number))
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
        first = first if first.stride() == leaf.stride() else torch.empty_like(leaf).copy_(first)  # as fused steps need
        leaf.grad = first if leaf.grad is None else leaf.grad + arrived[0]
        return ()
    values = [arrived.get(number) for number in range(len(node._input_metadata))]
    found = node.apply(*values) if isinstance(node, BackwardCFunction) else node(*values)  # type: ignore[no-untyped-call]
    found = found if isinstance(found, tuple) else (found,)
    kept = getattr(node, "tensor_inputs", None)
    return found if kept is None else [each for each, tensor in zip(found, kept, strict=False) if tensor]


def fitted(gradient: Tensor, node: Any, number: int) -> Tensor:
    """Return a gradient in the shape and type of the output that it is of; the device must be the same.

    Raises:
        WrongDeviceError: it is not.

    """
    output = node._input_metadata[number]
    if gradient.device != output.device:
        raise WrongDeviceError(
            f"{node.name()} got a gradient on {gradient.device}, which is not the same device as {output.device}"
        )
    if gradient.shape != torch.Size(output.shape):
        gradient = gradient.sum_to_size(output.shape)
    return gradient.to(output.dtype)


def note_inputs(apply: Any) -> Any:
    """Return the `apply` of autograd's functions in Python, which notes for `through` which arguments are tensors.

    It takes the method as its class has it, not bound to the class.
    """

    def noted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        result = apply.__get__(None, cls)(*args, **kwargs)
        for output in result if isinstance(result, tuple) else (result,):
            if isinstance(output, Tensor) and isinstance(output.grad_fn, BackwardCFunction):
                output.grad_fn.tensor_inputs = [isinstance(each, Tensor) for each in args]
        return result

    return classmethod(noted)
