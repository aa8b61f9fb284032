"""A clock for blocks of work that is right on CPU and on CUDA."""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Clock(Protocol):
    """Times one block after another; `start` and `stop` cost next to nothing and don't wait for the device."""

    def start(self) -> None:
        """Begin a block."""

    def stop(self) -> None:
        """End it."""

    def take(self) -> list[float]:
        """Return the seconds of each block since the last call, and forget them; waits for the device."""


class CpuClock:
    """perf_counter: on the CPU the work is done when the call returns."""

    def __init__(self) -> None:
        self._began = 0.0
        self._seconds: list[float] = []

    def start(self) -> None:
        """Begin a block."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """End it."""
        self._seconds.append(time.perf_counter() - self._began)

    def take(self) -> list[float]:
        """Return the seconds of each block since the last call, and forget them."""
        seconds, self._seconds = self._seconds, []
        return seconds


class CudaClock:
    """Events in the stream: kernels run long after their call returns, and a wait at every step would slow them."""

    def __init__(self) -> None:
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        """Begin a block."""
        begin, end = _event(), _event()
        begin.record()
        self._events.append((begin, end))

    def stop(self) -> None:
        """End it."""
        self._events[-1][1].record()

    def take(self) -> list[float]:
        """Return the seconds of each block since the last call, and forget them; waits for the device."""
        torch.cuda.synchronize()
        events, self._events = self._events, []
        return [begin.elapsed_time(end) / 1000 for begin, end in events]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def clock(device: torch.device) -> Clock:
    """Return the clock for a device."""
    return CudaClock() if device.type == "cuda" else CpuClock()
