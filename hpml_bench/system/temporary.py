"""Names of temporary files that processes of several hosts and containers write beside each other."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from functools import cache
from pathlib import Path

from hpml_bench.system import processes
from hpml_bench.system.hashing import digest

PATTERN = ".*.tmp"
FOREIGN_SECONDS = 86_400
"""Age from which a temporary file counts as left over, whoever wrote it."""
_OWN = re.compile(r"\.(?P<place>[0-9a-f]{12})\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp$")


def beside(path: Path) -> Path:
    """Return a new name for a temporary file in a file's folder: with host, process namespace, process, random part."""
    return path.with_name(f".{path.name}.{host_id()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


@cache
def host_id() -> str:
    """Return the id of host, boot and PID namespace, in which process numbers are unique; hosts' names may be equal."""
    return digest([socket.gethostname(), processes.boot(), processes.namespace()], 12)


def left_over(path: Path) -> bool:
    """Return whether a temporary file is of an ended process with this `host_id`, or older than a day."""
    name = _OWN.search(path.name)
    if name is not None and name["place"] == host_id():
        return processes.identify(int(name["pid"])) is None
    try:
        return time.time() - path.lstat().st_mtime > FOREIGN_SECONDS
    except OSError:  # its process has renamed it meanwhile
        return False
