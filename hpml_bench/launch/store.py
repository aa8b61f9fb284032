"""Stores of torch that listen on one address of this machine; by itself a TCPStore listens on all of them."""

from __future__ import annotations

import socket
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

WAITING = 1024
"""Connections that may wait to be accepted: those of all ranks of a run at once."""


def hosted(address: str, timeout: timedelta) -> TCPStore:
    """Return a store that this process hosts, on a port that the kernel picks; `timeout` limits the wait for a key."""
    listener = socket.create_server((address, 0), backlog=WAITING)
    port = listener.getsockname()[1]
    return TCPStore(
        address, port, is_master=True, wait_for_workers=False, timeout=timeout, master_listen_fd=listener.detach()
    )


def joined(address: str, port: int, timeout: timedelta) -> TCPStore:
    """Return a store that another process hosts."""
    return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timeout)
