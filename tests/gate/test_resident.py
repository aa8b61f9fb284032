"""A resident: it trains as the loop does, never outlives its parent, and takes out time that
others had the core.
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from residents import asked, fake, gone

from helpers.waiting import until
from hpml_bench.gate.machine import Stopwatch
from hpml_bench.gate.records import PROTOCOL
from hpml_bench.gate.sides import Incomparable, Installation, OutOfTime, ResidentProcess
from hpml_bench.gate.workload import TimedMethod
from hpml_bench.plugins.group import Group
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError
from hpml_bench.training.clock import CpuClock, StepEntry, StepLog

pytestmark = pytest.mark.serial

INSTALLED = Installation("installed", sys.executable)
WAITS_COUNTED = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no such count"
)
DATA = bytes(1 << 20)


def residents_below(pid: int) -> list[psutil.Process]:
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child for child in children if "hpml_bench.gate.resident" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def test_it_trains_and_takes_a_delay_that_is_no_more_than_asked() -> None:
    """Steps take time, and busy work calibrated to half a step makes them about half as long
    again.
    """
    # What it can't do is said in its own words, with the side's name.
    request = asked("lora")
    settings = request.settings.model_dump(mode="json")
    methods = [method.model_dump(mode="json") for method in request.methods]
    with ResidentProcess(INSTALLED) as resident:
        with pytest.raises(UserError, match=r"installed: .*Settings"):
            resident.call("prepare", settings={"nonsense": 1})
        prepared = resident.call("prepare", settings=settings)
        resident.call("load", settings=settings, prepared=prepared, methods=methods)
        assert resident.call("warm_up", core=max(os.sched_getaffinity(0)))["lora"] > 0
        assert len(psutil.Process(resident.pid).cpu_affinity()) == 1
        assert set(resident.call("calibrate")) == {"matrix_product", "memory_copy", "all_reduce"}
        delay = resident.call("delay", share=0.5, seconds={})
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for slowed in (False, True, True, False) * 6:
            resident.call("delay", share=0.5, seconds=delay if slowed else {"lora": 0})
            wall, waited = resident.call("run", method="lora", steps=1)
            assert wall > waited >= 0
            seconds[slowed].append(wall - waited)
        ratio = sorted(seconds[True])[6] / sorted(seconds[False])[6]
        assert 1.25 < ratio < 1.8


def test_it_is_born_with_the_allocator_s_variables_and_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides get the same environment; a PYTHONPATH of the user's doesn't reach into it."""
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    variables = Installation("a", sys.executable, tmp_path).variables()
    assert environment.PROCESS_ENVIRONMENT.keys() <= variables.keys()
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["PYTHONPATH"] == str(tmp_path)
    assert "PYTHONPATH" not in INSTALLED.variables()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_check_that_is_ended_midway_leaves_nothing_running(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Status 130, one line, no traceback, no resident; of the trial only that it was begun."""
    command = [sys.executable, "-m", "hpml_bench", "check", "--self-test", "--out", str(tmp_path)]
    check = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert until(lambda: len(residents_below(check.pid)) == 2)
        left = residents_below(check.pid)
        check.send_signal(number)
        _, said = check.communicate(timeout=30)
    finally:
        check.kill()
    assert check.returncode == 130
    assert said.strip() == "hpml-bench: interrupted"
    assert until(lambda: all(gone(side.pid) for side in left))
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {"begun.jsonl"}


def test_it_dies_with_a_parent_that_is_killed() -> None:
    """SIGKILL gives the parent no time to end it: the kernel does."""
    script = (
        "import sys, time; from hpml_bench.gate.sides import *\n"
        "with ResidentProcess(Installation('x', sys.executable)) as side:\n"
        "    side.call('describe'); print(side.pid, flush=True)\n"
        "    time.sleep(99)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    child.suspend()  # so that it can't see the end of its input
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert until(lambda: gone(child.pid))


def test_versions_without_this_resident_are_incomparable(tmp_path: Path) -> None:
    """An older version, another protocol, an interpreter without the harness: a sentence says
    which side, and why.
    """
    (tmp_path / "old" / "hpml_bench").mkdir(parents=True)
    (tmp_path / "old" / "hpml_bench" / "__init__.py").touch()
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    for side, sentence in (
        (Installation("v0", sys.executable, tmp_path / "old"), r"v0 has no .*older than the gate"),
        (
            fake(tmp_path / "new", protocol=PROTOCOL + 1, label="v9"),
            f"v9 speaks protocol {PROTOCOL + 1}",
        ),
        (Installation("bare", str(bare)), "not installed in"),
    ):
        with ResidentProcess(side) as resident, pytest.raises(Incomparable, match=sentence):
            resident.call("describe")


@pytest.mark.parametrize(
    ("code", "wait", "sentence"),
    [
        ("raise SystemExit('no good')", False, r"broken: .*status 1: no good"),
        ("raise SystemExit('no good')", True, r"broken: .*status 1: no good"),
        ("import hpml_bench_missing_module", False, "No module named 'hpml_bench_missing_module'"),
    ],
)
def test_a_side_that_dies_is_told_with_its_last_words(
    code: str, wait: bool, sentence: str, tmp_path: Path
) -> None:
    """An error of that side, not a hang, also where it died before a request could be written to
    it.
    """
    # A module that its code lacks is no older version: a broken candidate would be INCOMPARABLE,
    # and the check green.
    broken = fake(tmp_path, label="broken")
    (tmp_path / "hpml_bench" / "gate" / "resident.py").write_text(code)
    with ResidentProcess(broken) as resident:
        process = psutil.Process(resident.pid)
        if wait:
            assert until(lambda: gone(process.pid))
        with pytest.raises(UserError, match=sentence):
            resident.call("describe")


@pytest.mark.parametrize("request_name", ["hang", "stop_midway"])
def test_an_answer_is_not_waited_for_beyond_the_deadline(request_name: str, tmp_path: Path) -> None:
    """A side that hangs, in half a line too, is named when the time is up, and ends with its
    handle.
    """
    began = time.monotonic()
    with ResidentProcess(fake(tmp_path, label="hung"), began + 1.5) as resident:
        process = psutil.Process(resident.pid)
        with pytest.raises(OutOfTime, match="hung: did not"):
            resident.call(request_name)
    assert time.monotonic() - began < 60
    assert not process.is_running()


@pytest.mark.parametrize("dies", [False, True])
def test_what_a_side_started_ends_with_it(dies: bool, tmp_path: Path) -> None:
    """A side's own children are of its group, and end where it dies by itself too."""
    side = fake(tmp_path)
    resident, note = tmp_path / "hpml_bench" / "gate" / "resident.py", tmp_path / "pid"
    resident.write_text(
        "import subprocess\nchild = subprocess.Popen(['sleep', '99'], stdout=subprocess.DEVNULL)\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\n" + resident.read_text()
    )
    with ResidentProcess(side) as process, suppress(UserError):
        process.call("describe")
        child = psutil.Process(int(note.read_text()))
        assert not gone(child.pid)
        if dies:
            process.call("unknown to it")
    assert until(lambda: gone(child.pid))


# The clock of timed work


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


@WAITS_COUNTED
def test_time_that_another_process_had_the_core_is_taken_out(core: int) -> None:
    """Beside a busy process the wall clock says about twice the work; what is left is about the
    work.
    """
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


@WAITS_COUNTED
def test_sleep_and_own_threads_are_not_taken_out(core: int) -> None:
    """A step that waits by its own choice is slow, and a version that gives its own core more to
    do is slower by it.
    """
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


@WAITS_COUNTED
def test_seconds_are_the_loops_own() -> None:
    """Three steps of 20 ms are 60 ms: meeting, reading the log, and a step that nobody timed are
    in none.
    """

    class Alone(Group):
        def gather(self, local: torch.Tensor) -> torch.Tensor:
            time.sleep(0.3)
            return local[None]

        def barrier(self) -> None:
            time.sleep(0.3)

    def step(_: int, indices: np.ndarray) -> None:
        time.sleep(0.02)
        log.add(StepEntry(torch.tensor(1.0), torch.tensor(1.0), 0.1, len(indices), 0, 0, 0))

    group = Alone(0, 1, torch.device("cpu"))
    log = StepLog(group, CpuClock())
    job: Any = object.__new__(TimedMethod)
    job.batches, job.trainer, job._index = (
        [np.arange(4)] * 2,
        SimpleNamespace(group=group, log=log, step=step),
        0,
    )
    began = time.perf_counter()
    job.step(job.batches[0])
    time.sleep(0.3)
    seconds, waited = job.run(3)
    others = 0.02 + 0.3 + 0.3 + 0.3  # the step, the sleep, the meeting and the gathering
    assert 0.06 <= seconds < time.perf_counter() - began - others
    assert 0 <= waited <= seconds
    assert job.trainer.log.steps == 4
