"""Process group: start, gather, end. gloo on CPU, nccl on GPU; tensors only, nothing is unpickled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from hpml_bench.config.settings import Settings

COLLECTIVE_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Group:
    """This rank's place in the process group."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this rank writes files."""
        return self.rank == 0

    def gather(self, local: torch.Tensor) -> torch.Tensor:
        """Return the stacked tensors of all ranks, shape [world, *local.shape]; all must have one shape and type."""
        local = local.to(self.device).contiguous()
        everyone = [torch.empty_like(local) for _ in range(self.world)]
        dist.all_gather(everyone, local)
        return torch.stack(everyone).cpu()

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)


@contextmanager
def process_group(settings: Settings) -> Iterator[Group]:
    """Join the group that the launcher (ours or torchrun) described in the environment; leave it at the end."""
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    cuda = settings.device == "cuda"
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    elif int(os.environ.get("LOCAL_WORLD_SIZE", world)) == world:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: no host name is looked up
    dist.init_process_group("nccl" if cuda else "gloo", timeout=COLLECTIVE_TIMEOUT, device_id=device if cuda else None)
    try:
        yield Group(rank, world, device)
    finally:
        dist.destroy_process_group()
