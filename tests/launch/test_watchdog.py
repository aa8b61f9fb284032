"""The watchdog of a run: its limits, requests to end, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from helpers.waiting import until
from hpml_bench.launch import watchdog
from hpml_bench.records.files import OUTCOME
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunError
from hpml_bench.system import heartbeat, processes
from hpml_bench.system.signals import Stop


class Polls:
    """Stands in for the event that a run is over: each wait is a poll, at its time and with its
    count of beats.
    """

    def __init__(
        self, folder: Path, polls: Iterable[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.done, self.now = 0, 1000.0
        self._folder, self._polls = folder, iter(polls)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def wait(self, _: float) -> bool:
        """Go on to the next poll; return whether there is none."""
        passed, count = next(self._polls, (None, 0))
        if passed is None:
            return True
        self.done, self.now = self.done + 1, self.now + passed
        (self._folder / "heartbeat-rank0").write_text(f"{os.getpid()}\t{count}\tstep {count}\n")
        return False


STALLED = [(1.0, 1)] * 60
AT_WORK = [(1.0, count // 20) for count in range(100)]


@pytest.mark.parametrize(
    ("limits", "polls", "kind", "seen"),
    [
        (Limits(stall=30), STALLED, "Stall", 32),
        (Limits(stall=30), [*AT_WORK, *[(1.0, 4)] * 60], "Stall", 112),
        (Limits(stall=30), AT_WORK, None, 100),
        (Limits(stall=0), STALLED, None, 60),
        (Limits(stall=30), [(1.0, 1), (1000.0, 1), (1.0, 1)], None, 3),
        (Limits(stall=0, run_timeout=50), AT_WORK, "RunTimeout", 51),
        (Limits(stall=30, run_timeout=50), [(1.0, 1), (1000.0, 1), (1.0, 2)], None, 3),
    ],
    ids=[
        "stalled",
        "stalled later",
        "at work",
        "no limit",
        "suspended",
        "too long",
        "suspended in time",
    ],
)
def test_a_run_is_ended_at_its_limits(
    limits: Limits,
    polls: list[tuple[float, int]],
    kind: str | None,
    seen: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After so many polls a second apart: a beat ends a stall, no limit is 0, and a suspended
    machine isn't late.
    """
    over, ended = Polls(tmp_path, polls, monkeypatch), list[str]()
    watching = watchdog.Watchdog(tmp_path, limits, Stop())
    monkeypatch.setattr(watching, "_over", over)
    monkeypatch.setattr(watching, "_end", lambda status, kind, *_: ended.append(kind))
    watching._watch()
    assert (ended, over.done) == ([kind] if kind else [], seen)


def test_the_peak_is_read_on_each_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that grows after it was first seen has its peak known two polls later, however rare
    other looks are.
    """
    monkeypatch.setattr(watchdog, "POLLS_PER_SCAN", 10**6)
    program = "input(); kept = b'x' * 200_000_000; print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True
    ) as child:
        (tmp_path / "heartbeat-rank0").write_text(f"{child.pid}\t1\tstep 1\n")
        with watchdog.Watchdog(tmp_path, Limits(), Stop()) as watching:
            until(lambda: 0 in watching.peak_mb, 30)
            before = watching.peak_mb[0]
            child.stdin.write("\n")
            child.stdin.flush()
            child.stdout.readline()
            until(lambda: watching.peak_mb[0] > before + 150, 30)
            child.kill()
    assert watching.peak_mb[0] > before + 150


@pytest.fixture
def rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A rank that hangs, stopped by a signal, as the only process of the run."""
    with subprocess.Popen(["sleep", "60"]) as child:
        monkeypatch.setattr(watchdog, "POLL_SECONDS", 0.01)
        monkeypatch.setattr(watchdog, "STACK_SECONDS", 0.1)
        own = {psutil.Process(child.pid)}
        monkeypatch.setattr(processes, "descendants", lambda: set(filter(processes.alive, own)))
        (tmp_path / "heartbeat-rank0").write_text(f"{child.pid}\t1\tstep 1\n")
        (tmp_path / "rank0.log").write_text("")
        os.kill(child.pid, signal.SIGSTOP)
        while not processes.stopped(child.pid):
            time.sleep(0.001)
        yield child
        child.kill()


@pytest.mark.parametrize("limits", [Limits(stall=0.05), Limits(stall=0, run_timeout=0.05)])
def test_a_hung_rank_is_killed_and_named(
    limits: Limits, rank: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """The verdict says where it stood, with its stack; `late` was called while it lived; no
    heartbeat is left.
    """
    lived: list[int | None] = []
    with watchdog.Watchdog(
        tmp_path, limits, Stop(), late=lambda: lived.append(rank.poll())
    ) as watching:
        assert rank.wait(60) < 0
    assert lived == [None]
    status, error = watching.verdict
    assert (status, error.rank) == ("timeout", 0)
    assert "rank 0 at step 1 (stopped)" in error.message
    assert "rank 0, step 1:" in (error.traceback or "")
    assert not list(tmp_path.glob("heartbeat-*"))


@pytest.mark.parametrize("done", [False, True])
def test_a_request_to_end_kills_the_ranks(
    done: bool, rank: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """The run is interrupted, without stacks; one whose outcome is written was done, and only
    its exit hung.
    """
    if done:
        (tmp_path / OUTCOME).write_text("{}")
    stop, late = Stop(), list[None]()
    with watchdog.Watchdog(tmp_path, Limits(), stop, late=lambda: late.append(None)) as watching:
        stop.requested = True
        assert rank.wait(60) < 0
    assert late == []
    assert (watching.verdict is None) == done
    assert done or watching.verdict == (
        "interrupted",
        RunError(kind="Interrupted", message=watchdog.INTERRUPTED),
    )


@pytest.mark.parametrize(
    ("limits", "points", "age", "asked"),
    [
        (Limits(checkpoint_steps=5), "a point", 0, True),
        (Limits(checkpoint_steps=5), "", 0, False),
        (Limits(), "a point", 0, False),
        (Limits(), "a point", 40, True),
        (Limits(checkpoint_minutes=0), "a point", 100, False),
    ],
)
def test_ranks_are_asked_to_save_first_where_that_is_worth_it(
    limits: Limits,
    points: str,
    age: int,
    asked: bool,
    rank: subprocess.Popen[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By steps, or in a run that has lasted longer than the wait; a rank that doesn't end then
    is killed.
    """
    monkeypatch.setattr(watchdog, "SAVE_SECONDS", 0.3 if asked else 60.0)
    sent: list[int] = []
    monkeypatch.setattr(
        watchdog.Watchdog, "_signal", lambda _watching, _beats, number: sent.append(number)
    )
    (tmp_path / "points.jsonl").write_text(points)
    stop = Stop()
    with watchdog.Watchdog(tmp_path, limits, stop) as watching:
        watching._began -= age
        stop.requested = True
        assert rank.wait(30) < 0
    assert sent == [heartbeat.SAVE_SIGNAL] * asked


@pytest.mark.parametrize("done", [False, True])
def test_a_request_between_the_last_poll_and_the_end_counts(
    done: bool, rank: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank may see it first, and end; a rank that is left is ended as well."""
    monkeypatch.setattr(watchdog, "POLL_SECONDS", 60)
    stop = Stop()
    with watchdog.Watchdog(tmp_path, Limits(), stop) as watching:
        stop.requested = True
        if done:
            (tmp_path / OUTCOME).write_text("{}")
    assert (watching.verdict is None) == done
    assert processes.identify(rank.pid) is None
