"""Meeting point of the processes of a run: torch's store on one address and a port that the kernel picks.

Ranks meet in the store of this machine, or in that of the run's parent: torch's `c10d` rendezvous lets several machines
agree on who takes part, which costs time at each launch, and its `static` one needs a port that is known before, which
another process may take meanwhile.

The parent's store also holds the request for the agents, their reports and the request to end. All is text; nothing is
unpickled. Whoever reaches the store can write to it, so the request, the hosts and the reports are signed with a key
that the run's parent and agents share (HMAC, RFC 2104); unsigned ones are ignored.
"""

import hashlib
import hmac
import socket
from contextlib import suppress
from datetime import timedelta

from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)  # fmt: skip
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from hpml_bench.system import network
from hpml_bench.system.errors import UserError

BACKEND = "hpml_bench"
WAITING = 1024  # connections that may wait to be accepted: those of all ranks of a run at once
CONNECT = timedelta(seconds=60)
FOREVER = timedelta(days=30)
DIGITS = 64  # hexadecimal digits of a signature


def _store(address: str, port: int, timeout: timedelta) -> TCPStore:
    """Return the store at an address; for port 0 one that this process hosts there alone, on a port of the kernel's."""
    if port:
        return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timeout)
    # By itself a TCPStore listens on all addresses of the machine.
    listener = socket.create_server((address, 0), family=network.family_of(address), backlog=WAITING)
    port, number = listener.getsockname()[1], listener.detach()
    return TCPStore(address, port, is_master=True, wait_for_workers=False, timeout=timeout, master_listen_fd=number)


class KnownNodes(StaticTCPRendezvous):
    """Static rendezvous of known nodes; this node hosts its store, or another host does."""

    def get_backend(self) -> str:
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        store = _store(self.master_addr, self.master_port, self.timeout)
        address = RendezvousStoreInfo(self.master_addr, store.port)
        return RendezvousInfo(PrefixStore(self.run_id, store), self.rank, self.world_size, address)


def _create(parameters: RendezvousParameters) -> KnownNodes:
    host, _, port = parameters.endpoint.rpartition(":")
    number, timeout = int(parameters.config["rank"]), int(parameters.config["timeout"])
    return KnownNodes(host, int(port), number, parameters.max_nodes, parameters.run_id, timeout)


def register() -> None:
    """Make the rendezvous known to torch's launcher, as `BACKEND`."""
    rendezvous_handler_registry.register(BACKEND, _create)


class Meeting:
    """Client of the store, which this process hosts for port 0."""

    def __init__(self, host: str, key: str, port: int = 0) -> None:
        self.host, self._key = host, key.encode()
        self._store = _store(host, port, CONNECT)
        self.port = int(self._store.port)

    def give(self, request: str) -> None:
        self._write("request", request)

    def request(self) -> str:
        """Wait for the request and return it; raises UserError if somebody else has written it."""
        self._store.wait(["request"])
        text = self._read("request")
        if text is None:
            raise UserError(
                f"{self.host}:{self.port}: the request there was not written by this run's job; see who else uses the "
                "nodes' network"
            )
        return text

    def put(self, kind: str, number: int, text: str = "") -> None:
        """Leave a node's text, a `host`, a `report` or that it is `late`; does nothing where the parent has ended."""
        with suppress(DistError):
            self._write(f"{kind}/{number}", text)

    def texts(self, kind: str, count: int) -> dict[int, str]:
        """Return the texts of one kind that are there, by the node's number; none where the parent has ended."""
        with suppress(DistError):
            found = {number: self._read(f"{kind}/{number}") for number in range(count)}
            return {number: text for number, text in found.items() if text is not None}
        return {}

    def end(self) -> None:
        self._store.set("end", "")

    def await_end(self) -> None:
        """Wait for the request to end, or the parent's end; without polling, which would take time from the ranks."""
        with suppress(DistError):
            self._store.wait(["end"], FOREVER)

    def _write(self, name: str, text: str) -> None:
        self._store.set(name, self._signature(name, text.encode()).decode() + text)

    def _read(self, name: str) -> str | None:
        """Return the text under a name; None where there is none, or none signed with the key."""
        if not self._store.check([name]):
            return None
        signed = self._store.get(name)
        signature, text = signed[:DIGITS], signed[DIGITS:]
        return text.decode() if hmac.compare_digest(signature, self._signature(name, text)) else None

    def _signature(self, name: str, text: bytes) -> bytes:
        """Return the signature of a text under a name; it isn't valid under another name."""
        return hmac.new(self._key, name.encode() + b"\0" + text, hashlib.sha256).hexdigest().encode()
