"""Network of a machine: the address by which other nodes reach it, and the interface that leads
to one of them.
"""

import os
import re
import socket
from contextlib import suppress
from pathlib import Path

import psutil

# where the ranks of a machine meet; no name, since a bare system doesn't know localhost
LOOPBACK = "127.0.0.1"
LOOPBACK_ADVICE = "ip link set lo up (as root)"
ANYWHERE = "192.0.2.1"  # an unassigned address (RFC 5737): the route to it is the default one
INFINIBAND = Path("/sys/class/infiniband")
INTERFACES = Path("/sys/class/net")
NAMED = (
    "NCCL_SOCKET_IFNAME",
    "GLOO_SOCKET_IFNAME",
)  # variables by which users name the interface of a run


def no_loopback() -> str | None:
    """Return why processes of this machine can't connect to each other; None if they can."""
    try:
        with (
            socket.create_server((LOOPBACK, 0)) as server,
            socket.create_connection(server.getsockname(), timeout=2),
        ):
            return None
    except OSError as error:
        return f"no connection to {LOOPBACK}: {error.strerror or error}"


def own_address() -> str:
    """Return the address by which other nodes reach this machine: IPv6 where it has no IPv4.

    Of the interface that NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME names, else of Slurm's or the
    host's name, else (where that is the loopback, as in Debian's /etc/hosts) the default route's.
    """
    named = _named()
    if named is not None and (found := _addresses().get(named)):
        return found
    for name in filter(None, (os.environ.get("SLURMD_NODENAME"), socket.gethostname())):
        with suppress(OSError):
            if not (address := socket.gethostbyname(name)).startswith("127."):
                return address
    # a bridge, such as Docker's, leads to nothing but this machine's containers
    own = (
        address
        for name, address in _addresses().items()
        if not (INTERFACES / name / "bridge").exists()
    )
    outside = (
        a for a in (_source(ANYWHERE), *own) if a and not a.startswith("127.") and a != "::1"
    )
    return next(outside, LOOPBACK)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def interface_to(host: str) -> str | None:
    """Return the interface that leads to a host, or has its address; None if there is none."""
    source = _source(host)
    return next((name for name, address in _addresses().items() if address == source), None)


def interconnect(hosts: list[str]) -> str:
    """Return the network between a run's nodes, such as `mlx5_0 200 Gb/sec (4X HDR)` or `eth0
    10000 Mb/s`.
    """
    # InfiniBand's devices, else the interface that the user named, or that leads to the first of
    # the other hosts
    devices = []
    for port in sorted(INFINIBAND.glob("*/ports/*")):
        with suppress(OSError):
            if "ACTIVE" in (port / "state").read_text():
                devices.append(f"{port.parts[-3]} {(port / 'rate').read_text().strip()}")
    if devices:
        return ", ".join(devices)
    leading = [name for host in hosts if (name := interface_to(host)) not in {None, "lo"}]
    name = _named() or next(iter(leading), "lo")
    stats = psutil.net_if_stats().get(str(name))
    return f"{name} {stats.speed} Mb/s" if stats is not None and stats.speed else str(name)


def _named() -> str | None:
    """Return the interface that a variable names: as in NCCL by a prefix, or after `=` by its
    whole name.
    """
    for variable in NAMED:
        first = os.environ.get(variable, "").partition(",")[0]
        if match := re.fullmatch(r"=?([\w.@-]+)", first):
            start = match[1]
            names = sorted(
                n
                for n in _addresses()
                if n == start or (n.startswith(start) and not first.startswith("="))
            )
            if names:
                return start if start in names else names[0]
    return None


def _addresses() -> dict[str, str]:
    """Return interface -> its first IPv4 address, or where it has none its first IPv6 one beyond
    the link.
    """
    found = {}
    for name, addresses in psutil.net_if_addrs().items():
        usable = {
            a.family: a.address for a in addresses[::-1] if not a.address.lower().startswith("fe80")
        }
        if own := usable.get(socket.AF_INET) or usable.get(socket.AF_INET6):
            found[name] = own
    return found


def _source(host: str) -> str | None:
    """Return the source address of packets to a host; nothing is sent."""
    with suppress(OSError), socket.socket(family_of(host), socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])
    return None
