"""Ranks of a run: their process group, GPUs and nodes.

Gradients are exchanged by gloo on CPU and NCCL on GPU, all else by gloo. Only tensors are sent; nothing is unpickled.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]

from hpml_bench.plugins.group import Group
from hpml_bench.suite.settings import Settings
from hpml_bench.system import environment, network
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest, first_line

COLLECTIVE_TIMEOUT = timedelta(hours=1)  # others wait while rank 0 saves a large model to a slow disk
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""Backends by the run's device. A rank that waits in NCCL keeps its GPU busy, beside one that is measured alone; in
gloo it sleeps."""

DROP_SECONDS = 0.02
"""Seconds for which the interpreter's lock is released before a group is left: four switch intervals."""
LENGTH = 256  # most bytes of a rank's text about its node


@contextmanager
def process_group(settings: Settings) -> Iterator[Group]:
    """Join the group that the launcher (ours or torchrun) described in the environment; leave it if the body succeeds.

    After an error the group is not left: NCCL would wait for peers, which wait for this rank. The caller that catches
    the error ends the process.
    """
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    cuda = settings.device == "cuda"
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        allocate_first(device)
    if int(os.environ.get("LOCAL_WORLD_SIZE", world)) == world:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: no host name is looked up
    elif (interface := network.interface_to(os.environ["MASTER_ADDR"])) not in {None, "lo"}:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", str(interface))  # a host's own name may stand for its loopback
    # a rank without peers needs no listening store: torch's would listen on all addresses
    alone: dict[str, Any] = {"store": HashStore(), "rank": 0, "world_size": 1} if world == 1 else {}
    dist.init_process_group(
        BACKENDS[device.type], timeout=COLLECTIVE_TIMEOUT, device_id=device if cuda else None, **alone
    )
    yield Group(rank, world, device, int(os.environ.get("GROUP_WORLD_SIZE", "1")))
    # gloo's threads need the interpreter's lock to drop their last work; destroying a group holds it and joins them
    time.sleep(DROP_SECONDS)
    dist.destroy_process_group()


# GPUs


def check_gpus(ranks: int, own: int | None = None) -> None:
    """Check by a product on each rank's GPU that torch can compute there; `own` checks this one GPU alone.

    It initialises CUDA: call it in a process that ends and has forked no rank. Raises UserError: torch was built
    without CUDA, or not for such a GPU or driver; it sees fewer GPUs than ranks; or CUDA was initialised in the process
    from which this one was forked.
    """
    if torch.cuda._is_in_bad_fork():
        raise UserError(
            "a library has initialised CUDA when it was imported in the process from which ranks are forked, and "
            "they can't use it any more; uninstall the package that does so, or use --device cpu"
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        seen = torch.cuda.device_count()
        for index in range(min(ranks, seen)) if own is None else {own} & {*range(seen)}:
            square = allocate_first(torch.device("cuda", index))
            (square @ square).sum().item()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"torch {torch.__version__} can't compute on the GPU that the driver shows: {first_line(error)}; install a "
            "torch for this GPU and driver (https://pytorch.org), or use --device cpu"
        ) from None
    if seen < ranks:
        raise UserError(f"torch sees {seen} GPU(s), but there are {ranks} ranks; use --nproc {seen}")


def allocate_first(device: torch.device) -> torch.Tensor:
    """Return ones [8, 8] on a GPU; where it refuses the expandable segments that we asked for, without them."""
    name, asked = environment.CUDA_ALLOCATOR
    try:
        return torch.ones(8, 8, device=device)
    except RuntimeError as error:
        if "operation not supported" not in str(error) or os.environ.get(name) != asked:
            raise
        os.environ[name] = environment.FIXED_SEGMENTS
        torch.cuda.memory._set_allocator_settings(environment.FIXED_SEGMENTS)
        return torch.ones(8, 8, device=device)


def release(device: torch.device) -> None:
    """Give memory that torch's allocator holds and no tensor uses back to the device; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def leave_free(share: float, device: torch.device) -> None:
    """Limit tensors to all but a share of a device's memory from now on; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1 - share, device)


def uuid(device: torch.device) -> str:
    """Return the UUID of a CUDA device, without a prefix."""
    return str(torch.cuda.get_device_properties(device).uuid)


# Nodes


def over_nodes(group: Group) -> environment.NodeLayout | None:
    """Return the layout of the ranks over nodes; None where all are on one. All ranks call it."""
    if group.nodes == 1:
        return None
    numbers, hosts = zip(
        *(text.split("\t") for text in _gathered(group, f"{os.environ['GROUP_RANK']}\t{socket.gethostname()}")),
        strict=True,
    )
    ranks = Counter(map(int, numbers))
    first = [numbers.index(str(number)) for number in sorted(ranks)]
    names = tuple(hosts[rank] for rank in first)
    between = network.interconnect(
        [os.environ.get("MASTER_ADDR", ""), *(n for n in names if n != socket.gethostname())]
    )
    hardware = _gathered(group, digest([environment.hardware(), between], 12))
    per_node = tuple(hardware[rank] for rank in first)
    return environment.NodeLayout(
        hosts=names,
        ranks_per_node=tuple(ranks[number] for number in sorted(ranks)),
        interconnect=between,
        unlike=() if len(set(per_node)) == 1 else per_node,
    )


def _gathered(group: Group, text: str) -> list[str]:
    row = torch.zeros(LENGTH, dtype=torch.uint8)
    own = list(text.encode()[:LENGTH])
    row[: len(own)] = torch.tensor(own, dtype=torch.uint8)
    return [bytes(line.tolist()).rstrip(b"\0").decode(errors="replace") for line in group.gather(row)]
