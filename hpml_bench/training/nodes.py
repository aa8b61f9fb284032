"""Nodes of a run's ranks: hosts, hardware and interconnect, gathered from every rank as tensors."""

from __future__ import annotations

import os
import socket
from collections import Counter

import torch

from hpml_bench.plugins.group import Group
from hpml_bench.system import environment, network
from hpml_bench.system.text import digest

LENGTH = 256
"""Most bytes of a rank's text."""


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
    """Return the texts of all ranks."""
    row = torch.zeros(LENGTH, dtype=torch.uint8)
    own = list(text.encode()[:LENGTH])
    row[: len(own)] = torch.tensor(own, dtype=torch.uint8)
    return [bytes(line.tolist()).rstrip(b"\0").decode(errors="replace") for line in group.gather(row)]
