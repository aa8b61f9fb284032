"""Helper process: reads orders as JSON lines from stdin until it ends; writes errors to stdout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from hpml_bench.builtin.trackers.wandb.session import Session

ORPHAN_SECONDS = 5
"""Seconds by which the helper may outlive its parent, which is dead when the orders break off."""


def main(mode: str, directory: str) -> NoReturn:
    """Carry out the orders."""
    orders, errors = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # neither wandb's output nor its own service may hold our pipes
        os.dup2(nothing, stream)
    signal.signal(signal.SIGALRM, _too_long)
    status = 0
    try:
        session = Session(mode, directory)
        patience = ORPHAN_SECONDS
        for line in orders:
            order = json.loads(line)
            if order["do"] == "end":
                patience = order["seconds"]
                break
            getattr(session, order["do"])(order)
        signal.alarm(patience)
        session.end()
    except BaseException as error:  # also a SystemExit of wandb
        status = 1
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        with suppress(OSError):
            print(" ".join(text.split()), file=errors, flush=True)
    _end_children()
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os._exit(status)  # wandb's exit hooks would wait without end for data that can't be sent


def _too_long(*_: object) -> NoReturn:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(5)
    raise TimeoutError("what is left could not be sent in time")


def _end_children() -> None:
    """End wandb's own service, which would go on retrying."""
    import psutil

    from hpml_bench.system.processes import kill

    children = psutil.Process().children(recursive=True)
    kill(children)
    psutil.wait_procs(children, timeout=5)


if __name__ == "__main__":
    main(*sys.argv[1:])
