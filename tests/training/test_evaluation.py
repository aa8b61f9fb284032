"""An evaluation keeps its results on the device until the last batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import tiny
from hpml_bench.data.rows import Batch, Rows
from hpml_bench.tasks.sequence_classification import SequenceClassification
from hpml_bench.training import evaluation
from hpml_bench.training.distributed import Group

ELSEWHERE = torch.device("meta")


class Copies(TorchDispatchMode):
    """Counts the copies between the host and a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and note it."""
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.count[func._schema.name] += 1
        return result


class Plain(torch.nn.Module):
    """A classifier [B, L] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, input_ids: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return input_ids.float().mean(1, keepdim=True) * self.weight


def test_batches_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the batches themselves nothing is copied between host and device for each: one batch or twelve."""
    rows = Rows(Path(tiny.prepared(tmp_path).data) / "test", 0)
    model: Any = Plain().to(ELSEWHERE)
    task = SequenceClassification(None, tuple("abc"))

    def to(batch: Batch, device: torch.device) -> Batch:
        parts = (batch.input_ids, batch.attention_mask, batch.labels)
        ids, mask, labels = (torch.empty(part.shape, dtype=part.dtype, device=device) for part in parts)
        return Batch(ids, mask, labels, batch.real_tokens)

    monkeypatch.setattr(Batch, "to", to)
    counts = []
    for size in (96, 8):
        settings = tiny.settings(eval_batch=size, world_size=1)
        with Copies() as copies:
            evaluation._answer(model, task, rows, settings, Group(0, 1, ELSEWHERE))
        counts.append(copies.count)
    assert counts[0] == counts[1]
    assert 0 < sum(counts[0].values()) <= 3
