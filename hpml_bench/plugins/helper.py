"""The helper process of a tracker: carries out orders, JSON lines from stdin, in a session; writes errors to stdout."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, Protocol

import psutil

from hpml_bench.system.processes import kill

LAST_SECONDS = 30  # seconds that what is left may take after the last order, also where the parent died before


class Session(Protocol):
    """Carries out the orders of `plugins.publishing`, a method for each, one after another, with a service's library.

    They are `open` (begin a run), `log` (the values of one step), `tables` (the report's, and its page where the
    service takes files) and `close` (end the run with its final values), which take the order.
    """

    def end(self) -> None:
        """End a run that is still open, as a failed one, and the library."""


def carry_out(begin: Callable[[], Session]) -> NoReturn:
    """Carry out the orders in the session that `begin` makes."""
    orders, errors = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # neither the library's output nor its own service may hold our pipes
        os.dup2(nothing, stream)
    signal.signal(signal.SIGALRM, _too_long)
    status = 0
    try:
        session = begin()
        for line in orders:
            order = json.loads(line)
            getattr(session, order["do"])(order)
        signal.alarm(LAST_SECONDS)
        session.end()
    except BaseException as error:  # also a SystemExit of the library
        status = 1
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        with suppress(OSError):
            print(" ".join(text.split()), file=errors, flush=True)
    children = psutil.Process().children(recursive=True)
    kill(children)  # the library's own service, which would go on retrying
    psutil.wait_procs(children, timeout=5)
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os._exit(status)  # its exit hooks may wait without end for data that can't be sent


def _too_long(*_: object) -> NoReturn:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(5)
    raise TimeoutError("what is left could not be sent in time")
