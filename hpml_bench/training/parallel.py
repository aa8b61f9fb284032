"""Wrapping of a model for several processes: DDP. Another strategy is another function here."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn.parallel import DistributedDataParallel

from hpml_bench.plugins.group import Group
from hpml_bench.plugins.model import TaskModel

Wrap = Callable[[TaskModel, Group], DistributedDataParallel]


def wrap(model: TaskModel, group: Group) -> DistributedDataParallel:
    return DistributedDataParallel(
        model,
        device_ids=[group.device.index] if group.device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
