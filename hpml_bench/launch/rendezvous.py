"""Rendezvous of a run's ranks: a store on a port that the kernel picks, of this machine or of the run's parent.

torch's `c10d` rendezvous lets several machines agree on who takes part, which costs time at each launch. Its `static`
rendezvous needs a port that is known before, which another process may take meanwhile.
"""

from __future__ import annotations

import uuid
from typing import Any

from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from hpml_bench.launch import store as stores
from hpml_bench.launch.nodes import Nodes

BACKEND = "hpml_bench"


class KnownNodes(StaticTCPRendezvous):
    """Static rendezvous of known nodes; this node hosts its store, or another host does."""

    def get_backend(self) -> str:
        """Return the name of the backend."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Return the store, and its address for the ranks."""
        if self.master_port == 0:
            store = stores.hosted(self.master_addr, self.timeout)
        else:
            store = stores.joined(self.master_addr, self.master_port, self.timeout)
        address = RendezvousStoreInfo(self.master_addr, store.port)
        return RendezvousInfo(PrefixStore(self.run_id, store), self.rank, self.world_size, address)


def _create(parameters: RendezvousParameters) -> KnownNodes:
    host, _, port = parameters.endpoint.rpartition(":")
    number, timeout = int(parameters.config["rank"]), int(parameters.config["timeout"])
    return KnownNodes(host, int(port), number, parameters.max_nodes, parameters.run_id, timeout)


def arguments(nodes: Nodes) -> dict[str, Any]:
    """Register the rendezvous with torch's launcher, and return the arguments of LaunchConfig that select it."""
    rendezvous_handler_registry.register(BACKEND, _create)
    return {
        "min_nodes": nodes.count,
        "max_nodes": nodes.count,
        "run_id": nodes.run_id or uuid.uuid4().hex,  # a second launch under the same name hangs
        "rdzv_backend": BACKEND,
        "rdzv_endpoint": f"{nodes.host}:{nodes.port}",
        "rdzv_configs": {"rank": nodes.number},
    }
