"""Processes are ended by number and birth; jobs, pools, requests to end, and signs of life."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from helpers.waiting import until
from hpml_bench.system import child, heartbeat, processes
from hpml_bench.system.child import in_order
from hpml_bench.system.errors import UserError
from hpml_bench.system.signals import SIGNALS, stoppable


def test_a_number_taken_over_by_another_process_is_not_ended() -> None:
    """A process is its number and its birth; a stopped one is ended as well."""
    child = subprocess.Popen(["sleep", "60"])
    found = processes.identify(child.pid)
    other = psutil.Process(child.pid)
    other._ident = (child.pid, 0.0)  # as of one that had the number before
    processes.kill([other])
    assert child.poll() is None
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert processes.stopped(child.pid)
    processes.terminate([found])
    assert processes.identify(child.pid) is None
    assert not Path(f"/proc/{child.pid}").exists(), "it is collected, and no zombie"
    child.returncode = -signal.SIGKILL


# Jobs that are children: what is done before their command, and where their modules come from

STARTED = [sys.executable, "-c", "print('began')"]


@pytest.mark.parametrize(
    ("setup", "began"),
    [([], True), (["true"], True), (["no-such-module load cuda", "true"], False)],
)
def test_a_setup_line_that_fails_ends_the_job(
    setup: list[str], began: bool, tmp_path: Path
) -> None:
    """Else its runs would be recorded as good in an environment that nobody asked for; the log
    says at what.
    """
    log = tmp_path / "logs" / "job.log"
    status = child.start(STARTED, {}, log, setup).wait(60)
    assert (status == 0) is began
    assert ("began" in log.read_text()) is began
    assert began or "no-such-module" in log.read_text()


def test_the_setup_is_no_argument(tmp_path: Path) -> None:
    """All users of a machine can read those while its lines run; neither they nor the job get it
    as a variable.
    """
    setup = ["export MY_TOKEN=0123456789", "cat /proc/$$/cmdline; echo; env"]
    words = [
        sys.executable,
        "-c",
        "import os; print(os.environ['MY_TOKEN'], 'HPML_BENCH_SETUP' in os.environ)",
    ]
    log = tmp_path / "logs" / "job.log"
    assert child.start(words, {}, log, setup).wait(60) == 0
    arguments, _, rest = log.read_text().partition("\n")
    assert "0123456789" not in arguments
    assert "HPML_BENCH_SETUP" not in rest
    assert rest.endswith("0123456789 False\n")


@pytest.mark.parametrize("seen", [False, True])
def test_a_child_looks_for_modules_as_we_do(
    seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in the working folder stands in for a library only if it does so here."""
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").touch()
    (tmp_path / "json" / "tool.py").write_text("print('of the working folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)] if seen else ["/usr/lib"])
    words = child.module("json.tool", "--help")
    done = subprocess.run(
        [sys.executable, "-E", *words], capture_output=True, text=True, check=True
    )
    assert ("of the working folder" in done.stdout) is seen


# Forked processes do work in order, and what they can't do is done here

HERE = os.getpid()


def where(item: int) -> tuple[int, bool]:
    """Return the item, and whether it is done in another process."""
    return item, os.getpid() != HERE


def killed(item: int) -> int:
    if item == 5 and os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_results_come_in_order() -> None:
    """Of several processes, and of this one alone with fewer than two; errors are raised here."""
    for number in (3, 1, 0):
        found = list(in_order(where, range(20), number))
        assert found == [(item, number > 1) for item in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // (item - 3), range(9), 2))
    with pytest.raises(UserError, match="was killed, perhaps for lack of memory"):
        list(in_order(killed, range(9), 2))
    assert not multiprocessing.active_children()


def test_work_is_done_here_where_processes_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without semaphores, or where the second one is refused; the first is ended, since an exit
    would wait for it.
    """
    forks = iter([os.fork])

    def one_more() -> int:
        return next(forks, Mock(side_effect=BlockingIOError))()

    no_semaphores = Mock(side_effect=OSError("no semaphores"))
    for owner, name, refused in (
        (os, "fork", one_more),
        (child, "ProcessPoolExecutor", no_semaphores),
    ):
        monkeypatch.setattr(owner, name, refused)
        assert list(in_order(where, range(9), 2)) == [(item, False) for item in range(9)]
        assert until(lambda: not multiprocessing.active_children())


# Requests to end: signals in the main thread, in a run, and where they are ignored


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_to_end_is_an_interruption_where_it_arrives(number: signal.Signals) -> None:
    """Outside a run; within one, which shares its sweep's request, nothing is raised. Earlier
    handlers come back.
    """
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        os.kill(os.getpid(), number)
    assert stop.requested
    assert [signal.getsignal(each) for each in SIGNALS] == before
    with stoppable() as later, later.deferred():
        assert later is not stop
        with stoppable() as inner:  # of a run, which shares that of its sweep
            os.kill(os.getpid(), number)
        assert inner is later
        assert later.requested
        assert signal.getsignal(number) == later.handle


def test_other_threads_leave_signals_alone() -> None:
    """Only the main thread may set handlers; elsewhere a sweep runs without."""

    def sweep() -> Any:
        with stoppable():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(sweep).result() == signal.getsignal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    """Under nohup a closed terminal ends nothing: SIGHUP is ignored before a sweep, and during
    it.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


# The ranks' signs of life: where each is, and whether it works or waits


@pytest.fixture
def heart(tmp_path: Path) -> Iterator[Path]:
    """A folder into which this process beats as rank 3."""
    heartbeat.begin(tmp_path, 3)
    yield tmp_path
    os.close(heartbeat._Heart.file)
    heartbeat._Heart.file = None


def test_a_heartbeat_says_where(heart: Path) -> None:
    """The last one counts, whole, also when it is shorter than the one before; its number rises."""
    heartbeat.beat("a very long place indeed " * 20)
    (before,) = heartbeat.read(heart)
    heartbeat.beat("step 2")
    (beat,) = heartbeat.read(heart)
    assert (beat.rank, beat.pid, beat.where) == (3, os.getpid(), "step 2")
    assert beat.count == before.count + 1
    (heart / "heartbeat-rank4").write_text("torn\t")
    assert heartbeat.read(heart) == (beat,)
    heartbeat.remove(heart)
    assert heartbeat.read(heart) == ()


def test_a_process_at_work_beats_and_one_that_waits_does_not(heart: Path) -> None:
    """In a call that beats nowhere, which computes for a while and then hangs; the place stays."""

    def beats() -> int:
        (beat,) = heartbeat.read(heart)
        assert beat.where == "building"
        return beat.count

    heartbeat.beat("building")
    first = beats()
    with heartbeat.busy(every=0.1):
        deadline = time.monotonic() + 60
        while beats() == first and time.monotonic() < deadline:
            sum(range(1000))
        assert beats() > first
        time.sleep(1)
        at_rest = beats()
        time.sleep(0.5)
        assert beats() == at_rest
    ended = beats()
    sum(range(10_000_000))
    assert beats() == ended


@pytest.mark.parametrize(
    "error", [RuntimeError("/proc/self/io: file was empty"), ValueError(), OSError()], ids=repr
)
def test_without_a_count_of_bytes_the_processor_s_time_tells(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kernels give none, or an empty one."""
    monkeypatch.setattr(heartbeat.psutil.Process, "io_counters", Mock(side_effect=error))
    assert heartbeat._work()[1] == 0
