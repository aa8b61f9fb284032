"""Clocks for CPU and CUDA: one for steps and passes, and a second one to check its sums."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch

from hpml_bench.plugins.group import settle

TOGETHER = 1e-4
"""Most seconds between two readings that count as one moment; on a busy machine they can lie further apart."""
TRIES = 10


class Clock(ABC):
    """Clock of consecutive laps, each from the end of the one before; `start` and `lap` don't wait for the device.

    Before any `start`, the first lap begins when the clock is made.
    """

    def __init__(self) -> None:
        self._laps: list[tuple[Any, Any]] = []
        self.start()

    def start(self) -> None:
        """Begin a lap here; the time before is in none."""
        self._mark, self._began = self._now()
        self._ended = self._began

    def lap(self) -> None:
        """End a lap; the next one begins here."""
        begin = self._mark
        self._mark, self._ended = self._now()
        self._laps.append((begin, self._mark))

    @abstractmethod
    def take(self) -> list[float]:
        """Return the seconds of each lap since the last call, and forget them; waits for the device."""

    def window(self) -> float:
        """Return the seconds from `start` to the end of the last lap by `second_clock`; waits for the device."""
        return self._ended - self._began

    @abstractmethod
    def _now(self) -> tuple[Any, float]:
        """Return this moment by the clock and by `second_clock`."""


class CpuClock(Clock):
    """Clock by perf_counter: on the CPU the work is done when its call returns."""

    def take(self) -> list[float]:
        """Return the seconds of each lap since the last call, and forget them."""
        laps, self._laps = self._laps, []
        return [end - begin for begin, end in laps]

    def _now(self) -> tuple[float, float]:
        for _ in range(TRIES):
            second = second_clock()
            first = time.perf_counter()
            if second_clock() - second < TOGETHER:  # else another process ran in between
                break
        return first, second


class CudaClock(Clock):
    """Clock by events in the stream: kernels run long after their call returns, and waiting would slow each step."""

    def take(self) -> list[float]:
        """Return the seconds of each lap since the last call, and forget them; waits for the device."""
        torch.cuda.synchronize()
        laps, self._laps = self._laps, []
        return [begin.elapsed_time(end) / 1000 for begin, end in laps]

    def window(self) -> float:
        """Return the seconds from `start` until the device has ended the last lap, by the second clock."""
        torch.cuda.synchronize()
        return second_clock() - self._began

    def _now(self) -> tuple[torch.cuda.Event, float]:
        second = second_clock()
        event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event, second


def clock(device: torch.device) -> Clock:
    """Return the clock for a device."""
    return CudaClock() if device.type == "cuda" else CpuClock()


def second_clock() -> float:
    """Return the seconds of the hardware's clock, which the system never steps or slews."""
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return time.monotonic() if raw is None else time.clock_gettime(raw)


def one_at_a_time(calls: Iterable[Callable[[], object]], device: torch.device) -> list[float]:
    """Return the seconds of each call; each begins when the device has ended the one before, as a server's requests."""
    watch = clock(device)
    for call in calls:
        watch.start()
        call()
        watch.lap()
        settle(device)
    return watch.take()
