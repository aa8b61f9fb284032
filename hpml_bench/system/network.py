"""Network of a machine: the address by which other nodes reach it, and the interface that leads to one of them."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path

import psutil

ANYWHERE = "192.0.2.1"
"""An address that is nobody's (RFC 5737): the route to it is the default one."""
INFINIBAND = Path("/sys/class/infiniband")
NAMED = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
"""Variables by which users name the interface of a run."""


def own_address() -> str:
    """Return the IPv4 address of this machine for other nodes: of the interface that the user named, else by its name.

    Its name may stand for the loopback, as Debian writes it into /etc/hosts: then it is the default route's address.
    """
    named = _named()
    if named is not None and (found := _addresses().get(named)):
        return found
    for name in filter(None, (os.environ.get("SLURMD_NODENAME"), socket.gethostname())):
        with suppress(OSError):
            if not (address := socket.gethostbyname(name)).startswith("127."):
                return address
    outside = [a for a in (_source(ANYWHERE), *_addresses().values()) if a and not a.startswith("127.")]
    return outside[0] if outside else "127.0.0.1"


def interface_to(host: str) -> str | None:
    """Return the interface from which packets leave for a host, or which has its address; None where none does."""
    source = _source(host)
    return next((name for name, address in _addresses().items() if address == source), None)


def interconnect(hosts: list[str]) -> str:
    """Return what a run's nodes are connected by, such as `mlx5_0 200 Gb/sec (4X HDR)` or `eth0 10000 Mb/s`.

    InfiniBand's devices where there are any, else the socket interface that the user named, or that leads to the first
    of the hosts which is not this machine.
    """
    devices = _infiniband()
    if devices:
        return ", ".join(devices)
    leading = [name for host in hosts if (name := interface_to(host)) not in {None, "lo"}]
    name = _named() or next(iter(leading), "lo")
    stats = psutil.net_if_stats().get(str(name))
    return f"{name} {stats.speed} Mb/s" if stats is not None and stats.speed else str(name)


def _infiniband() -> list[str]:
    """Return InfiniBand's devices with their rates, of ports that are up."""
    found = []
    for port in sorted(INFINIBAND.glob("*/ports/*")):
        with suppress(OSError):
            if "ACTIVE" in (port / "state").read_text():
                found.append(f"{port.parts[-3]} {(port / 'rate').read_text().strip()}")
    return found


def _named() -> str | None:
    """Return the interface that a variable names; NCCL takes the beginning of a name, and `=` before a whole one."""
    for variable in NAMED:
        first = os.environ.get(variable, "").partition(",")[0]
        asked = re.fullmatch(r"=?([\w.@-]+)", first)
        if asked:
            start = asked[1]
            there = sorted(n for n in _addresses() if n == start or (n.startswith(start) and not first.startswith("=")))
            if there:
                return start if start in there else there[0]
    return None


def _addresses() -> dict[str, str]:
    """Return interface -> its first IPv4 address."""
    found = {}
    for name, addresses in psutil.net_if_addrs().items():
        if own := [a.address for a in addresses if a.family == socket.AF_INET]:
            found[name] = own[0]
    return found


def _source(host: str) -> str | None:
    """Return the own address from which packets leave for a host; nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])
    return None
