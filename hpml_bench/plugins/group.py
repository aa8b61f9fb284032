"""Process group of a run as one rank sees it: its rank, and collective operations. Tensors only.

Nothing is unpickled.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist


def settle(device: torch.device) -> None:
    """Wait until a GPU has done all its work; on the CPU there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Group:
    """This rank's place in the process group."""

    rank: int
    world: int
    device: torch.device
    nodes: int = 1  # number of nodes, all with the same number of ranks

    @property
    def first_here(self) -> bool:
        """Whether this is the first rank of its node, which measures for all ranks of the node."""
        return self.rank % (self.world // self.nodes) == 0

    @property
    def main(self) -> bool:
        """Whether this rank writes files."""
        return self.rank == 0

    def gather(self, local: torch.Tensor) -> torch.Tensor:
        """Return the stacked tensors of all ranks, [world, *local.shape], on the CPU; all have
        one shape and type.
        """
        local = local.cpu().contiguous()
        gathered = [torch.empty_like(local) for _ in range(self.world)]
        dist.all_gather(gathered, local)
        return torch.stack(gathered)

    def gather_rows(self, local: torch.Tensor, count: int, what: str) -> np.ndarray:
        """Return the lines of all ranks, [count, width], in the order of their `count` rows, by
        `gather`.

        A line of `local` [share, width] begins with its row's index, which is negative where the
        line is unused. A row that is missing or there twice is a RuntimeError; `what` says what was
        not done with it.
        """
        lines: np.ndarray = self.gather(local).flatten(0, 1).numpy()
        lines = lines[lines[:, 0] >= 0]
        lines = lines[np.argsort(lines[:, 0], kind="stable")]
        if not np.array_equal(lines[:, 0], np.arange(count)):
            raise RuntimeError(f"the {what} exactly once each")
        return lines

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the ranks of each machine run the body one after another; one that raises lets the
        next go on.
        """
        local_rank, local_world = (
            int(os.environ["LOCAL_RANK"]),
            int(os.environ.get("LOCAL_WORLD_SIZE", self.world)),
        )
        for _ in range(local_rank):
            self.barrier()
        try:
            yield
        finally:
            for _ in range(local_world - local_rank):
                self.barrier()

    def barrier(self) -> None:
        """Wait until all ranks have called this and their devices have done their work."""
        settle(self.device)
        dist.all_reduce(torch.zeros(1))  # dist.barrier would take NCCL
