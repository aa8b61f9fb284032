"""Meeting point of the processes of a run: torch's store on one address and a port that the kernel
picks.

Ranks meet in the store of this machine, or in that of the run's parent: a port that is known before
could be taken by another process meanwhile, and a store of torch's own listens on all addresses of
the machine.

The parent's store also holds the request for the agents, their reports and the request to end. All
is text; nothing is unpickled. Whoever reaches the store can write to it, so the request, the hosts
and the reports are signed with a key that the run's parent and agents share (HMAC, RFC 2104);
unsigned ones are ignored.
"""

import hashlib
import hmac
import socket
from contextlib import suppress
from datetime import timedelta

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from hpml_bench.system import network
from hpml_bench.system.errors import UserError

WAITING = 1024  # connections that may wait to be accepted: those of all ranks of a run at once
CONNECT = timedelta(seconds=60)
FOREVER = timedelta(days=30)
DIGITS = 64  # hexadecimal digits of a signature


def store(address: str, port: int = 0) -> TCPStore:
    """Return the store at an address; for port 0 one that this process hosts there alone, on a
    port of the kernel's.
    """
    if port:
        return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=CONNECT)
    listener = socket.create_server(
        (address, 0), family=network.family_of(address), backlog=WAITING
    )
    port, number = listener.getsockname()[1], listener.detach()
    return TCPStore(
        address,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=CONNECT,
        master_listen_fd=number,
    )


class Meeting:
    """Client of the store, which this process hosts for port 0."""

    def __init__(self, host: str, key: str, port: int = 0) -> None:
        self.host, self._key = host, key.encode()
        self._store = store(host, port)
        self.port = int(self._store.port)

    def give(self, request: str) -> None:
        self._write("request", request)

    def request(self) -> str:
        """Wait for the request and return it; raises UserError if somebody else has written it."""
        self._store.wait(["request"])
        text = self._read("request")
        if text is None:
            raise UserError(
                f"{self.host}:{self.port}: the request there was not written by this run's job; "
                "see who else uses the nodes' network"
            )
        return text

    def put(self, kind: str, number: int, text: str = "") -> None:
        """Leave a node's text, a `host`, a `report` or that it is `late`; does nothing where the
        parent has ended.
        """
        with suppress(DistError):
            self._write(f"{kind}/{number}", text)

    def texts(self, kind: str, count: int) -> dict[int, str]:
        """Return the texts of one kind that are there, by the node's number; none where the
        parent has ended.
        """
        with suppress(DistError):
            found = {number: self._read(f"{kind}/{number}") for number in range(count)}
            return {number: text for number, text in found.items() if text is not None}
        return {}

    def end(self) -> None:
        self._store.set("end", "")

    def await_end(self) -> None:
        """Wait for the request to end, or the parent's end; without polling, which would take
        time from the ranks.
        """
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
        return (
            text.decode() if hmac.compare_digest(signature, self._signature(name, text)) else None
        )

    def _signature(self, name: str, text: bytes) -> bytes:
        """Return the signature of a text under a name; it isn't valid under another name."""
        return (
            hmac.new(self._key, name.encode() + b"\0" + text, hashlib.sha256).hexdigest().encode()
        )
