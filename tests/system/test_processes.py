"""Processes are ended by number and birth."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil

from hpml_bench.system import processes


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
