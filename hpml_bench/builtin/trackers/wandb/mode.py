"""Mode of publishing, online, offline or off: decided before wandb is imported, in two seconds at most."""

from __future__ import annotations

import netrc
import os
import socket
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from hpml_bench.system.errors import UserError

Mode = Literal["online", "offline", "off"]

CHOICES = ("auto", "online", "offline", "off")
CONNECT_SECONDS = 2.0
SERVERS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""Two names of one service; which of them `wandb login` writes into netrc depends on wandb's version."""


def choose_mode(asked: str) -> Mode:
    """Return how to publish: `auto` is online where there are a key and a route, else offline.

    `auto` follows WANDB_MODE; any other value of `--wandb` overrides it.

    Raises:
        UserError: `online` was requested without a key or a route, or `asked` is none of the choices.

    """
    if asked not in CHOICES:
        raise UserError(f"--wandb is {asked!r}; allowed are {', '.join(CHOICES)}")
    wished = os.environ.get("WANDB_MODE", "").lower() if asked == "auto" else asked
    if wished in {"off", "disabled"}:
        return "off"
    if wished in {"offline", "dryrun"}:
        return "offline"
    missing = obstacle()
    if missing is None:
        return "online"
    if asked == "online":
        raise UserError(f"--wandb online: {missing}; or use --wandb offline")
    return "offline"


def server_host() -> str:
    """Return the name of the server to publish to."""
    return urlsplit(os.environ.get("WANDB_BASE_URL") or SERVERS[0]).hostname or ""


def obstacle() -> str | None:
    """Return the reason why nothing can be sent; None if there are a key and a route."""
    chosen = os.environ.get("WANDB_BASE_URL")
    servers = (chosen,) if chosen else SERVERS
    try:
        parts = urlsplit(servers[0])
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        host, port = None, 0
    if host is None or parts.scheme not in {"http", "https"}:
        return "WANDB_BASE_URL is not an http(s) address; correct or unset it"
    if not os.environ.get("WANDB_API_KEY") and not any(_in_netrc(urlsplit(server).netloc) for server in servers):
        return f"there is no API key for {host}; set WANDB_API_KEY or run `wandb login`"
    if not _reachable(*_gateway(parts.scheme, host, port)):
        return f"{host}:{port} can't be reached within {CONNECT_SECONDS:g} s; check the network"
    return None


def _in_netrc(machine: str) -> bool:
    named = os.environ.get("NETRC")
    for place in (named,) if named else ("~/.netrc", "~/_netrc"):
        with suppress(OSError, netrc.NetrcParseError, ValueError, RuntimeError):
            entry = netrc.netrc(Path(place).expanduser()).authenticators(machine)
            if entry and entry[2]:
                return True
    return False


def _gateway(scheme: str, host: str, port: int) -> tuple[str, int]:
    """Return the address to connect to: the server's, or that of the proxy that the environment names for it."""
    proxy = urllib.request.getproxies().get(scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return host, port
    with suppress(ValueError):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return parts.hostname or host, parts.port or (443 if parts.scheme == "https" else 80)
    return host, port


def _reachable(host: str, port: int) -> bool:
    """Return whether a TCP connection opens in time; the limit covers a name server that doesn't answer."""
    opened = threading.Event()

    def connect() -> None:
        with suppress(OSError, ValueError), socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            opened.set()

    thread = threading.Thread(target=connect, name="wandb-route", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return opened.is_set()
