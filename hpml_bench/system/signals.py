"""Signals that request the end, such as Ctrl-C: the first ends the current run and records it,
the second exits.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hpml_bench.system import processes, temporary

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = 130


class Stop:
    """Whether a signal has requested the end."""

    def __init__(self) -> None:
        self.requested = False
        self._held = 0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals: the body reads `requested` itself; elsewhere a signal raises
        KeyboardInterrupt.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's arguments
        again, self.requested = self.requested, True
        if not self._held:
            raise KeyboardInterrupt
        # end this process and its ranks now; records are written atomically: none is half written
        if again:
            os.write(2, b"\nhpml-bench: ended at once; the same command goes on from here\n")
            processes.kill(processes.descendants())
            processes.end_fork_server()
            temporary.remove()
            os._exit(STATUS)


_current: list[Stop] = []


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle Ctrl-C, SIGTERM and SIGHUP in the body; inside another such body, yield the outer
    one's `Stop`.
    """
    # only the main thread may set handlers; signals that are ignored stay so, as SIGHUP under nohup
    if _current:
        yield _current[0]
        return
    stop = Stop()
    main = threading.current_thread() is threading.main_thread()
    ours = (
        [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        if main
        else []
    )
    before = {number: signal.signal(number, stop.handle) for number in ours}
    _current.append(stop)
    try:
        yield stop
    finally:
        _current.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
