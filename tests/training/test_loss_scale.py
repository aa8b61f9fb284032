"""The loss of a step: summed by the task, divided where the log is read and where the gradient begins."""

from __future__ import annotations

import pytest
import torch

from hpml_bench.plugins.group import Group
from hpml_bench.training.clock import CpuClock, StepEntry, StepLog


class Alone(Group):
    """A process group of one rank."""

    def gather(self, local: torch.Tensor) -> torch.Tensor:
        """Return it with a first dimension for the rank."""
        return local[None]

    def barrier(self) -> None:
        """Wait for nobody."""


def test_the_log_divides_a_loss_by_its_targets_in_the_loss_s_own_precision() -> None:
    """Ten over three targets is float32's 10 / 3, as of a mean taken in the step itself; the default is one target."""
    log = StepLog(Alone(0, 1, torch.device("cpu")), CpuClock())
    log.begin_window()
    log.add(StepEntry(torch.tensor(10.0), torch.tensor(1.0), 0.1, 4, 20, 24, 0, targets=3.0))
    log.add(StepEntry(torch.tensor(10.0), torch.tensor(1.0), 0.1, 4, 20, 24, 0))
    first, second = log.reduce()
    assert first.loss == (torch.tensor(10.0) / 3).item() != pytest.approx(10 / 3, rel=1e-12)
    assert second.loss == 10.0
    assert (first.samples, first.real_tokens, first.padded_tokens, first.virtual_tokens) == (4, 20, 24, 0)
