"""Warm commands, which tests fork instead of starting interpreters, are what cold ones are."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from helpers import warm
from helpers.waiting import until

TELLS = """
import json, os, signal, sys, threading
from pathlib import Path

import hpml_bench

numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
handlers = {number.name: str(signal.getsignal(number)) for number in numbers}
print(json.dumps({
    "arguments": sys.argv,
    "folder": os.getcwd(),
    "variable": os.environ["TOLD"],
    "shown": Path("/proc/self/cmdline").read_text().rstrip("\\0").split("\\0")[0],
    "shown variable": "TOLD=x y" in Path("/proc/self/environ").read_text().split("\\0"),
    "leads its session": os.getsid(0) == os.getpid(),
    "handlers": handlers,
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "name": __name__,
    "input": sys.stdin.read(),
    "descriptors": sorted(int(path.name) for path in Path("/proc/self/fd").iterdir()),
    "package": hpml_bench.__file__,
}))
"""
ENDS = {
    "well": "pass",
    "with a number": "raise SystemExit(7)",
    "with a sentence": "raise SystemExit('no')",
    "with an error": "raise ValueError('no')",
    "by Ctrl-C": "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "by a signal": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
    "with an exit handler": "atexit.register(print, 'handled')",
    "with a thread": "threading.Timer(0.1, print, ['late']).start()",
}


def test_a_warm_command_is_what_a_cold_one_is(tmp_path: Path) -> None:
    """Arguments, folder, environment, session, signals, descriptors, and the same package."""
    command, environment = [sys.executable, "-c", TELLS, "a", "b c"], {**os.environ, "TOLD": "x y"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    started = warm.WarmProcess(command, environment, new_session=True, folder=tmp_path)
    cold = subprocess.run(
        command,
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert json.loads(started.communicate(60)[0]) == json.loads(cold.stdout)


@pytest.mark.parametrize("program", ENDS.values(), ids=ENDS)
def test_it_ends_as_a_cold_one_does(program: str) -> None:
    """By itself, by SystemExit, an error or a signal: the same status and the same last line."""
    program = (
        f"import atexit, os, signal, threading, time, hpml_bench; print('here', flush=True); "
        f"{program}"
    )
    command = [sys.executable, "-c", program]
    cold = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    process = warm.WarmProcess(command, os.environ)
    said, _ = process.communicate(60)
    assert process.returncode == cold.returncode
    assert said.splitlines()[-1] == cold.stdout.splitlines()[-1]


def test_a_fork_server_of_this_process_ends_with_its_handle() -> None:
    """Its parent is the session's server, and yet it is watched, ended and begun anew as a child
    would be.
    """
    from hpml_bench.launch import fork_server
    from hpml_bench.system import processes

    fork_server.start_fork_server()
    first = processes.fork_server() or 0
    assert until(lambda: "forkserver" in " ".join(psutil.Process(first).cmdline()))
    assert psutil.Process(first).ppid() != os.getpid()
    os.kill(first, signal.SIGKILL)
    assert until(lambda: processes.identify(first) is None)
    fork_server.start_fork_server()
    assert processes.fork_server() != first
