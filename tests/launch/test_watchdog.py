"""What the launcher makes of a run: peaks and hangs that its watchdog sees, and the cause among the ranks' errors."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpml_bench.launch import launcher, watchdog
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunError
from hpml_bench.system.signals import Stop


def test_the_peak_is_read_on_each_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that grows after it was first seen has its peak known two polls later, however rare other looks are."""
    monkeypatch.setattr(watchdog, "POLLS_PER_SCAN", 10**6)
    program = "input(); kept = b'x' * 200_000_000; print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        (tmp_path / "heartbeat-rank0").write_text(f"{child.pid}\t1\tstep 1\n")
        with watchdog.Watchdog(tmp_path, Limits(), Stop()) as watching:
            deadline = time.monotonic() + 30
            while 0 not in watching.peak_mb and time.monotonic() < deadline:
                time.sleep(0.01)
            before = watching.peak_mb[0]
            child.stdin.write("\n")
            child.stdin.flush()
            child.stdout.readline()
            while watching.peak_mb[0] <= before + 150 and time.monotonic() < deadline:
                time.sleep(0.01)
            child.kill()
    assert watching.peak_mb[0] > before + 150


def test_time_in_which_nobody_looked_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the clock is 1,000 s further at the next look, the machine slept; 30 s without progress have not gone by."""
    clock, slept = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + slept[0])
    with watchdog.Watchdog(tmp_path, Limits(stall=30, run_timeout=60), Stop()) as watching:
        time.sleep(3 * watchdog.POLL_SECONDS)
        slept[0] = 1000.0
        time.sleep(3 * watchdog.POLL_SECONDS)
    assert watching.verdict is None


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("oldest", [0, 1, 2])
def test_a_lost_peer_is_not_the_cause(first: int, oldest: int, tmp_path: Path) -> None:
    """Whichever rank the launcher saw end first, and whichever wrote first: the error of a rank's own is the cause."""
    lost = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
    for rank, message in enumerate((lost, "division by zero", lost)):
        path = tmp_path / f"error-rank{rank}.json"
        path.write_text(RunError(kind="Error", message=message, rank=rank).model_dump_json())
        os.utime(path, (1_000_000 + (rank - oldest) % 3,) * 2)
    failure: Any = SimpleNamespace(get_first_failure=lambda: (first, SimpleNamespace(exitcode=1)))
    ended = launcher.outcome_of(tmp_path, launcher.ExitEvidence(failure))
    assert ended.error is not None
    assert (ended.status, ended.error.rank, ended.error.message) == ("failed", 1, "division by zero")
