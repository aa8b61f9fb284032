"""The clock of timed work: what is taken out is time that others had the core, and nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hpml_bench.gate.machine import Stopwatch
from hpml_bench.gate.workload import TimedMethod
from hpml_bench.plugins.group import Group
from hpml_bench.training.clock import CpuClock, StepEntry, StepLog

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no such count"),
]
DATA = bytes(1 << 20)


@pytest.fixture
def core() -> Iterator[int]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    yield max(allowed)
    os.sched_setaffinity(0, allowed)


def work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(DATA)


def test_time_that_another_process_had_the_core_is_taken_out(core: int) -> None:
    """Beside a busy process the wall clock says about twice the work; what is left is about the work."""
    other = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.3)
        watch = Stopwatch()
        work(0.4)
        wall, waited = watch.read()
    finally:
        other.kill()
        other.wait()
    assert waited > 0.15
    assert wall - waited == pytest.approx(0.4, rel=0.15)


def test_sleep_and_own_threads_are_not_taken_out(core: int) -> None:
    """A step that waits by its own choice is slow, and a version that gives its own core more to do is slower by it."""
    watch = Stopwatch()
    time.sleep(0.2)
    wall, waited = watch.read()
    assert wall - waited > 0.19
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            work(0.01)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        process, watch = time.process_time(), Stopwatch()
        work(0.3)
        wall, waited = watch.read()
        process = time.process_time() - process
    finally:
        stop.set()
        thread.join()
    assert process > 0.4  # the other thread ran too
    assert wall - waited > process - 0.05


class Alone(Group):
    """A process group of nobody else, which takes its time to gather."""

    def gather(self, local: torch.Tensor) -> torch.Tensor:
        time.sleep(0.3)
        return local[None]

    def barrier(self) -> None:
        time.sleep(0.3)


class Steps:
    """Stands in for the trainer: each step takes 20 ms."""

    def __init__(self) -> None:
        self.group = Alone(0, 1, torch.device("cpu"))
        self.log = StepLog(self.group, CpuClock())

    def step(self, _: int, indices: np.ndarray) -> None:
        time.sleep(0.02)
        self.log.add(StepEntry(torch.tensor(1.0), torch.tensor(1.0), 0.1, len(indices), 0, 0, 0))


def test_seconds_are_the_loops_own() -> None:
    """Three steps of 20 ms are 60 ms: meeting, reading the log, and a step that nobody timed are in none."""
    job = object.__new__(TimedMethod)
    job.batches, job.trainer, job._index = [np.arange(4)] * 2, Steps(), 0  # type: ignore[assignment]
    began = time.perf_counter()
    job.step(job.batches[0])
    time.sleep(0.3)
    seconds, waited = job.run(3)
    others = 0.02 + 0.3 + 0.3 + 0.3  # the step, the sleep, the meeting and the gathering
    assert 0.06 <= seconds < time.perf_counter() - began - others
    assert 0 <= waited <= seconds
    assert job.trainer.log.steps == 4
