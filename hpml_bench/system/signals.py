"""Ctrl-C and requests to end: the first ends what is under way and keeps the books, the second ends all at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hpml_bench.system import processes, tempdir

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = 130


class Stop:
    """Whether the end was asked for."""

    def __init__(self) -> None:
        self.asked = False
        self._held = 0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the body see `asked` in its own time; elsewhere a signal is a KeyboardInterrupt where it arrives."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's arguments
        """Take a signal."""
        again, self.asked = self.asked, True
        if not self._held:
            raise KeyboardInterrupt
        if again:
            exit_now()


def exit_now() -> None:
    """End this process and its ranks now; records are committed atomically, so that nothing is torn."""
    os.write(2, b"\nhpml-bench: ended at once; the same command goes on from here\n")
    processes.kill(processes.descendants())
    processes.end_fork_server()
    tempdir.remove()
    os._exit(STATUS)


_current: list[Stop] = []


@contextmanager
def blocked(number: signal.Signals) -> Iterator[None]:
    """Let a signal wait until the body is over; processes that the body starts are born with it blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle Ctrl-C, SIGTERM and SIGHUP while the body runs; inside another such body, it is that one's.

    Only the main thread may set handlers: elsewhere signals stay as they are. So do those that are ignored, as SIGHUP
    is under nohup.
    """
    if _current:
        yield _current[0]
        return
    stop = Stop()
    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN] if main else []
    before = {number: signal.signal(number, stop.handle) for number in ours}
    _current.append(stop)
    try:
        yield stop
    finally:
        _current.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
