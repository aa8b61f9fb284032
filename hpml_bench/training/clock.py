"""Clocks for CPU and CUDA, and the log of a rank's steps, filled without waiting and reduced
over ranks per window.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from hpml_bench.plugins.group import Group, settle
from hpml_bench.plugins.probe import Step
from hpml_bench.suite.schedule import step_seconds

TOGETHER = 1e-4
"""Most seconds between two readings that count as one moment; on a busy machine they can lie
further apart.
"""
TRIES = 10


class CpuClock:
    """Clock of consecutive laps, each from the end of the one before; `start` and `lap` don't
    wait for the device.
    """

    def __init__(self) -> None:
        self._laps: list[tuple[Any, Any]] = []
        self.start()  # before any other, the first lap begins when the clock is made

    def start(self) -> None:
        """Begin a lap here; the time before is in none."""
        self._mark, self._began = self._now()
        self._ended = self._began

    def lap(self) -> None:
        """End a lap; the next one begins here."""
        begin = self._mark
        self._mark, self._ended = self._now()
        self._laps.append((begin, self._mark))

    def take(self) -> list[float]:
        """Return the seconds of each lap since the last call, and forget them; waits for the
        device.
        """
        laps, self._laps = self._laps, []
        return [end - begin for begin, end in laps]

    def window(self) -> float:
        """Return the seconds from `start` to the end of the last lap by `second_clock`; waits
        for the device.
        """
        return self._ended - self._began

    def _now(self) -> tuple[Any, float]:
        """Return this moment by the clock and by `second_clock`."""
        for _ in range(TRIES):
            second = second_clock()
            first = time.perf_counter()  # on the CPU the work is done when its call returns
            if second_clock() - second < TOGETHER:  # else another process ran in between
                break
        return first, second


class CudaClock(CpuClock):
    """Clock by events in the stream: kernels run long after their call returns, and waiting
    would slow each step.
    """

    def take(self) -> list[float]:
        torch.cuda.synchronize()
        laps, self._laps = self._laps, []
        return [begin.elapsed_time(end) / 1000 for begin, end in laps]

    def window(self) -> float:
        torch.cuda.synchronize()
        return second_clock() - self._began

    def _now(self) -> tuple[torch.cuda.Event, float]:
        second = second_clock()
        event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event, second


def clock(device: torch.device) -> CpuClock:
    return CudaClock() if device.type == "cuda" else CpuClock()


def second_clock() -> float:
    """Return the seconds of the hardware's clock, which the system never steps or slews."""
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return time.monotonic() if raw is None else time.clock_gettime(raw)


def one_at_a_time(calls: Iterable[Callable[[], object]], device: torch.device) -> list[float]:
    """Return the seconds of each call; each begins when the device has ended the one before, as
    a server's requests.
    """
    watch = clock(device)
    for call in calls:
        watch.start()
        call()
        watch.lap()
        settle(device)
    return watch.take()


class StepEntry(NamedTuple):
    """One step of this rank; the tensors stay on their device."""

    loss: torch.Tensor  # summed over `targets`
    norm: torch.Tensor
    lr: float
    samples: int
    real_tokens: int
    padded_tokens: int
    virtual_tokens: int
    # divisor of the loss when it is read; the mean over ranks is then that over the global batch
    targets: float = 1.0


@dataclass
class StepLog:
    """The steps of this rank since the last reduction, which happens outside the timed part."""

    group: Group
    clock: CpuClock
    steps: int = 0  # number of the last one that was reduced
    _entries: list[StepEntry] = field(default_factory=list)

    def begin_window(self) -> None:
        """Begin a window: all ranks and their devices wait for each other, then their clocks
        start.
        """
        self.group.barrier()
        settle(self.group.device)
        self.clock.start()

    def add(self, entry: StepEntry) -> None:
        """Add a step, which ends here; doesn't wait for the device."""
        self._entries.append(entry)
        self.clock.lap()

    def reduce(self) -> list[Step]:
        """Return the steps since the last call, reduced over ranks by one gather: the same on
        all ranks.
        """
        settle(self.group.device)
        window = self.clock.window()
        entries, self._entries = self._entries, []
        losses = torch.stack(
            [(entry.loss.detach() / entry.targets).double() for entry in entries]
        ).cpu()
        norms = torch.stack([entry.norm.detach().double() for entry in entries]).cpu()
        seconds = torch.tensor(self.clock.take(), dtype=torch.float64)
        rest = torch.tensor([[*entry[2:-1], window] for entry in entries], dtype=torch.float64)
        local = torch.cat([losses[:, None], norms[:, None], seconds[:, None], rest], dim=1)
        gathered = self.group.gather(local).numpy()  # [world, steps, columns]
        slowest = step_seconds(gathered[:, :, 2])
        steps: list[Step] = []
        for row, slow in enumerate(slowest):
            loss, norm, own, lr, *counted, _ = gathered[:, row].T
            self.steps += 1
            values = float(loss.mean()), float(norm[0]), float(lr[0]), float(slow)
            samples, real, padded, virtual = (int(column.sum()) for column in counted)
            steps.append(
                Step(self.steps, *values, tuple(own.tolist()), samples, real, padded, virtual)
            )
        steps[-1] = replace(steps[-1], second_clock=float(gathered[:, -1, -1].max()))
        return steps
