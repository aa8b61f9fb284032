"""Step log of a rank: filled without waiting for the device, reduced over ranks once per window."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from hpml_bench.plugins.group import Group, settle
from hpml_bench.plugins.probe import Step
from hpml_bench.suite.schedule import step_seconds
from hpml_bench.training.clock import Clock


class StepEntry(NamedTuple):
    """One step of this rank; the tensors stay on their device."""

    loss: torch.Tensor
    """Summed over `targets`."""
    norm: torch.Tensor
    lr: float
    samples: int
    real_tokens: int
    padded_tokens: int
    virtual_tokens: int
    targets: float = 1.0
    """Divisor of the loss when it is read; the mean over ranks is then that over the global batch."""


@dataclass
class StepLog:
    """The steps of this rank since the last reduction, which happens outside the timed part."""

    group: Group
    clock: Clock
    samples: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    steps: int = 0
    _entries: list[StepEntry] = field(default_factory=list)

    def begin_window(self) -> None:
        """Begin a window: all ranks and their devices wait for each other, then their clocks start."""
        self.group.barrier()
        settle(self.group.device)
        self.clock.start()

    def add(self, entry: StepEntry) -> None:
        """Add a step, which ends here; doesn't wait for the device."""
        self._entries.append(entry)
        self.clock.lap()

    def reduce(self) -> list[Step]:
        """Return the steps since the last call, reduced over ranks by one gather: the same on all ranks."""
        settle(self.group.device)
        window = self.clock.window()
        entries, self._entries = self._entries, []
        losses = torch.stack([(entry.loss.detach() / entry.targets).double() for entry in entries]).cpu()
        norms = torch.stack([entry.norm.detach().double() for entry in entries]).cpu()
        seconds = torch.tensor(self.clock.take(), dtype=torch.float64)
        rest = torch.tensor([[*entry[2:-1], window] for entry in entries], dtype=torch.float64)
        local = torch.cat([losses[:, None], norms[:, None], seconds[:, None], rest], dim=1)
        gathered = self.group.gather(local).numpy()  # [world, steps, columns]
        slowest = step_seconds(gathered[:, :, 2])
        steps = [self._step(gathered[:, row], float(seconds)) for row, seconds in enumerate(slowest)]
        steps[-1] = replace(steps[-1], second_clock=float(gathered[:, -1, -1].max()))
        return steps

    def _step(self, ranks: np.ndarray, seconds: float) -> Step:
        """Reduce a step's values of all ranks, [world, columns]."""
        loss, norm, own_seconds, lr, *counted, _ = ranks.T
        self.steps += 1
        samples, real, padded, virtual = (int(column.sum()) for column in counted)
        self.samples += samples
        self.real_tokens += real
        self.padded_tokens += padded
        return Step(
            index=self.steps,
            loss=float(loss.mean()),
            grad_norm=float(norm[0]),
            lr=float(lr[0]),
            seconds=seconds,
            rank_seconds=tuple(own_seconds.tolist()),
            samples=samples,
            real_tokens=real,
            padded_tokens=padded,
            virtual_tokens=virtual,
        )
