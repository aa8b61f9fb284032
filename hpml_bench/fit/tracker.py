"""Tracker of tensor memory: the bytes of all live storages while operators run, and their peak by phase."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Peak:
    """Most bytes alive at a time in a phase, and how many of those were of logits."""

    bytes: int = 0
    logits: int = 0

    def reach(self, live: int, logits: int) -> None:
        """Take a new state, if it is higher."""
        if live > self.bytes:
            self.bytes, self.logits = live, logits


@dataclass
class Size:
    """Bytes of a storage, and how many of them are of logits: all or none."""

    bytes: int
    logits: int


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages from the operator that returns them first until nothing refers to them.

    A storage counts once, however many tensors view it. `block` is the allocator's unit, to which sizes are rounded up.
    """

    def __init__(self, block: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.logits = 0
        self._block, self._logit_elements = block, 0
        self._sizes: weakref.WeakKeyDictionary[Any, Size] = weakref.WeakKeyDictionary()
        self._peaks: list[Peak] = []

    @contextmanager
    def phase(self) -> Iterator[Peak]:
        """Yield the peak of the body, which is complete after it."""
        peak = Peak(self.live, self.logits)
        self._peaks.append(peak)
        try:
            yield peak
        finally:
            self._peaks.remove(peak)

    def mark_logits(self, outputs: Tensor) -> None:
        """Count a model's outputs, and what is computed of their size from now on, as logits."""
        size = self._hold(outputs)
        self._logit_elements = outputs.numel()
        self.logits += size.bytes - size.logits
        size.logits = size.bytes

    def _hold(self, tensor: Tensor) -> Size:
        storage = tensor.untyped_storage()
        if (known := self._sizes.get(storage)) is not None:
            return known
        taken = -(-storage.nbytes() // self._block) * self._block
        size = self._sizes[storage] = Size(taken, taken if tensor.numel() == self._logit_elements else 0)
        self.live += size.bytes
        self.logits += size.logits
        for peak in self._peaks:
            peak.reach(self.live, self.logits)
        weakref.finalize(storage, self._release, size)
        return size

    def _release(self, size: Size) -> None:
        self.live -= size.bytes
        self.logits -= size.logits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._hold(leaf)
        return result
