"""The ranks' signs of life: where each is, and whether it works or waits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpml_bench.system import heartbeat


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


@pytest.mark.parametrize("error", [RuntimeError("/proc/self/io: file was empty"), ValueError(), OSError()], ids=repr)
def test_without_a_count_of_bytes_the_processor_s_time_tells(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kernels give none, or an empty one."""

    def io_counters(_: object) -> None:
        raise error

    monkeypatch.setattr(heartbeat.psutil.Process, "io_counters", io_counters)
    assert heartbeat._work()[1] == 0


def test_without_a_watch_nothing_beats(tmp_path: Path) -> None:
    """As under torchrun: no file is written."""
    heartbeat.beat("step 1")
    assert list(tmp_path.iterdir()) == []
