"""Requests to end: signals in the main thread, in a run, and where they are ignored."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from hpml_bench.system.signals import SIGNALS, Stop, stoppable


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_to_end_is_an_interruption_where_it_arrives(number: signal.Signals) -> None:
    """Outside a run; afterwards the handlers are those from before."""
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        os.kill(os.getpid(), number)
    assert stop.requested
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_run_sees_the_request_in_its_own_time() -> None:
    """Within a run nothing is raised: the books are kept first."""
    with stoppable() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def test_one_request_is_known_everywhere() -> None:
    """A sweep and the runs in it share it; the next sweep starts afresh."""
    with stoppable() as outer:
        with stoppable() as inner:
            assert inner is outer
        assert signal.getsignal(signal.SIGTERM) == outer.handle
    with stoppable() as later:
        assert later is not outer


def test_other_threads_leave_signals_alone() -> None:
    """Only the main thread may set handlers; elsewhere a sweep runs without."""
    found: list[Stop] = []
    before = signal.getsignal(signal.SIGINT)

    def sweep() -> None:
        with stoppable() as stop:
            found.append(stop)

    thread = threading.Thread(target=sweep)
    thread.start()
    thread.join()
    assert len(found) == 1
    assert signal.getsignal(signal.SIGINT) == before


def test_an_ignored_signal_stays_ignored() -> None:
    """Under nohup a closed terminal ends nothing: SIGHUP is ignored before a sweep, and during it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)
