"""Quantities of a training step that have no noise: they change only with the code."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hpml_bench.gate.measure.workload import WARM_UP, TimedMethod

SYNCS = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero")
"""Operators in which the host waits for a value; so it does in copies to it (`waits`)."""


def count(job: TimedMethod) -> dict[str, Any]:
    """Return name -> {title, unit, value, tolerance, parts}, per step unless the unit says otherwise.

    Both sides count steps on the same first batches. `parts` is the same quantity, split by the names of its parts.
    """
    job.run(WARM_UP)
    padding, real = _padding(job)
    flops = _flops(job)
    with _Operators() as operators:
        job.step(job.batches[0])
    parameters = {name: p.numel() for name, p in job.trainer.model.named_parameters() if p.requires_grad}
    share = sum(padding.values()) / (sum(padding.values()) + real)
    return {
        "trainable_parameters": _quantity("trainable parameters", "parameters", parameters),
        "flops_per_step": _quantity("floating-point operations", "FLOPs a step", flops),
        "operators_per_step": _quantity("operators", "calls a step", operators.calls),
        "host_syncs_per_step": _quantity("waits of the host for a value", "a step", operators.syncs),
        "collectives_per_step": _quantity("collectives", "calls a step", operators.collectives),
        "collective_bytes_per_step": _quantity("bytes in collectives", "bytes a step", operators.bytes),
        "padded_token_share": _quantity("padding", "of all tokens", padding, share),
        "tensor_memory": _memory(job, operators),
    }


def _quantity(
    title: str, unit: str, parts: Mapping[str, float], value: float | None = None, tolerance: float = 0.0
) -> dict[str, Any]:
    """Return a quantity; its value is the sum of its parts where none is given."""
    whole = float(sum(parts.values())) if value is None else value
    return {"title": title, "unit": unit, "value": whole, "tolerance": tolerance, "parts": dict(parts)}


def _padding(job: TimedMethod) -> tuple[dict[str, int], int]:
    """Return the padding that the model gets in each batch, and the real tokens of all, each taken once."""
    seen: list[tuple[int, torch.Tensor]] = []

    def look(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((inputs[0].numel(), inputs[1]))

    handle = job.trainer.model.register_forward_pre_hook(look)
    try:
        job.run(len(job.batches))
    finally:
        handle.remove()
    real = [int(mask.sum()) for _, mask in seen]
    return {f"batch {index}": seen[index][0] - real[index] for index in range(len(seen))}, sum(real)


def _flops(job: TimedMethod) -> dict[str, int]:
    """Return the floating-point operations of a step, forward and backward, by operator.

    Fused attention isn't counted on the CPU, so attention is computed by matrix products here.
    """
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        job.step(job.batches[0])
    return {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}


def _memory(job: TimedMethod, operators: _Operators) -> dict[str, Any]:
    """Return the peak of a step: of CUDA's allocator, or on a CPU of the tensors that operators return and keep."""
    device = job.trainer.group.device
    peak, tolerance = operators.peak, 0.0
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats(device)
        job.step(job.batches[0])
        torch.cuda.synchronize()
        peak, tolerance = torch.cuda.max_memory_allocated(device), 0.01  # it rounds, and libraries keep workspaces
    return _quantity("peak memory of tensors", "bytes", operators.made, peak, tolerance)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators, collectives and host syncs, and the memory that the tensors made by operators hold."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.syncs: Counter[str] = Counter()
        self.collectives: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.live = self.peak = 0
        self.made: Counter[str] = Counter()
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and note it."""
        name = func._schema.name
        where = f"{name} in {_caller()}"
        self.calls[where] += 1
        if name in SYNCS or waits(name, args, kwargs or {}):
            self.syncs[where] += 1
        if name.startswith(("c10d::", "_c10d_functional::")):
            self.collectives[where] += 1
            self.bytes[where] += sum(t.numel() * t.element_size() for t in tree_leaves(args) if torch.is_tensor(t))
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor):
                self._hold(tensor.untyped_storage(), where)
        return result

    def _hold(self, storage: torch.UntypedStorage, where: str) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self._grow(size)
        self.made[where] += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._grow, -size)

    def _grow(self, size: int) -> None:
        self.live += size


def waits(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operator copies from a device to the host and waits for it.

    Copies to a device from memory that isn't pinned wait too, but their data is ready: not counted.
    """
    if name == "aten::_to_copy":
        source, target = args[0].device, torch.device(kwargs.get("device") or args[0].device)
        waited = not kwargs.get("non_blocking")
    elif name == "aten::copy_":
        target, source = args[0].device, args[1].device
        waited = not (kwargs.get("non_blocking") or args[2:] == (True,))
    else:
        return False
    return waited and source.type != "cpu" and target.type == "cpu"


def _caller() -> str:
    """Return the innermost function that is neither torch's nor of this module."""
    frame = sys._getframe(2)
    while frame.f_back and ("/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
