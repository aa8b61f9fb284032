"""Rendezvous of ranks on one machine: a store on a port that the kernel picks.

torch's `c10d` rendezvous lets several machines agree on who takes part, which costs time at each launch. Its `static`
rendezvous needs a port that is known before, which another process may take meanwhile.
"""

from __future__ import annotations

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

BACKEND = "hpml_bench"
HOST = "localhost"


class OneMachine(StaticTCPRendezvous):
    """The static rendezvous of one node, its store on a free port."""

    def get_backend(self) -> str:
        """Return the name of the backend."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Return the store, and where ranks find it."""
        store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=self.timeout)
        return RendezvousInfo(PrefixStore(self.run_id, store), 0, 1, RendezvousStoreInfo(HOST, store.port))


def _create(parameters: RendezvousParameters) -> OneMachine:
    timeout = int(parameters.config["timeout"])
    return OneMachine(HOST, 0, rank=0, world_size=1, run_id=parameters.run_id, timeout=timeout)


def register() -> str:
    """Register it with torch's launcher, and return its name there."""
    rendezvous_handler_registry.register(BACKEND, _create)
    return BACKEND
