"""The clocks: laps follow each other without gaps, on a CPU and by CUDA's events."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
import torch

from hpml_bench.training import clock
from hpml_bench.training.clock import Clock, CpuClock, CudaClock

pytestmark = pytest.mark.serial


class Event:
    """Stands in for CUDA's: recorded at the next full second of a stream."""

    stream: itertools.count[int]

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = next(self.stream)

    def elapsed_time(self, end: Event) -> float:
        return 1000.0 * (end.at - self.at)


@pytest.fixture(params=["cpu", "cuda"])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Clock]:
    """A clock of either kind, for which a second goes by at each reading."""
    seconds = itertools.count()
    monkeypatch.setattr(Event, "stream", seconds, raising=False)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    return CpuClock if request.param == "cpu" else CudaClock


def test_laps_follow_each_other(made: Callable[[], Clock]) -> None:
    """One reading a lap, from the making or the last start; what goes before a start is in none; each is taken once."""
    clock = made()
    for _ in range(3):
        clock.lap()
    clock.start()
    clock.lap()
    assert clock.take() == [1.0] * 4
    assert clock.take() == []
    clock.lap()
    assert clock.take() == [1.0]


def test_the_second_clock_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on as time does, and doesn't read the first one's; without the raw clock it is the monotonic one."""
    monkeypatch.setattr(time, "perf_counter", None)
    before = clock.second_clock()
    time.sleep(0.02)
    assert 0.019 <= clock.second_clock() - before < 2  # by which sleep() is timed, NTP may slow by 500 ppm
    monkeypatch.delattr(time, "CLOCK_MONOTONIC_RAW", raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: 42.0)
    assert clock.second_clock() == 42.0


@pytest.mark.parametrize("moment", ["start", "lap"])
def test_both_clocks_are_read_at_one_moment(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process ran between the two readings, they are read again: the clocks agree on the lap."""
    now, other = [100.0], [0]

    def reading() -> float:
        read = now[0]
        if other[0]:  # another process has the core after this reading
            other[0] -= 1
            now[0] += 0.005
        return read

    monkeypatch.setattr(time, "perf_counter", reading)
    monkeypatch.setattr(clock, "second_clock", reading)
    made = CpuClock()
    other[0] = moment == "start"
    made.start()
    now[0] += 1
    other[0] = moment == "lap"
    made.lap()
    assert made.window() == pytest.approx(made.take()[0], abs=1e-9)
