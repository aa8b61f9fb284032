"""Signal to which torch's agent reacts, in place of those that request the end (Ctrl-C, SIGTERM, SIGHUP)."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from hpml_bench.launch.watchdog import AGENT_SIGNAL


@contextmanager
def only_agent_signal() -> Iterator[dict[str, Any]]:
    """Let the agent handle AGENT_SIGNAL alone while the body runs; yields the arguments of LaunchConfig for that.

    It has to handle at least one. Ctrl-C, SIGTERM and SIGHUP are handled here: the agent would wait 30 s for ranks that
    hang.
    """
    from torch.distributed.launcher.api import LaunchConfig

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(AGENT_SIGNAL)
    try:
        if "signals_to_handle" in inspect.signature(LaunchConfig).parameters:
            yield {"signals_to_handle": AGENT_SIGNAL.name}
        else:
            with _torch_2_9(main):
                yield {}
    finally:
        if main:
            signal.signal(AGENT_SIGNAL, signal.SIG_IGN if before is signal.SIG_DFL else before)


@contextmanager
def _torch_2_9(main: bool) -> Iterator[None]:
    """Do by hand what `signals_to_handle` does from torch 2.10 on: torch 2.9 sets handlers of four signals, always."""
    from torch.distributed.elastic.multiprocessing import api

    if main:
        signal.signal(AGENT_SIGNAL, api._terminate_process_handler)
    without_handlers = SimpleNamespace(**{**vars(signal), "signal": lambda *_: None})
    with mock.patch.object(api, "signal", without_handlers):
        yield
