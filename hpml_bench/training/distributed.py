"""Process group of a run: gradients by gloo on CPU and NCCL on GPU, all else by gloo.

Only tensors are sent; nothing is unpickled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]

from hpml_bench.plugins.group import Group
from hpml_bench.suite.settings import Settings
from hpml_bench.system import network

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""Backends by the run's device. A rank that waits in NCCL keeps its GPU busy, beside one that is measured alone; in
gloo it sleeps."""

DROP_SECONDS = 0.02
"""Seconds for which the interpreter's lock is released before a group is left: four switch intervals."""


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
