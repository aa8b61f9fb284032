"""Open files of runs with many ranks: the soft limit is raised as far as the hard one allows."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CHILD = """
import resource, subprocess, sys
from hpml_bench.system import descriptors, processes

server = subprocess.Popen(["sleep", "60"])
processes.fork_server = lambda: server.pid
try:
    descriptors.allow(100)
    files = [open("/dev/null") for _ in range(400)]
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    print(resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0])
finally:
    server.kill()
"""


def limited(soft: int, hard: int) -> Callable[[], None]:
    """Return what lowers the limits of a process before it executes."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_is_raised_here_and_in_the_fork_server() -> None:
    """To what the ranks need, from 256 to 4 for each and 128 beside them; ranks inherit it."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        preexec_fn=limited(256, 4096),
        check=False,
        capture_output=True,
        text=True,
    )
    assert child.stdout.split() == ["528", "528"], child.stderr


def test_a_hard_limit_that_is_too_low_is_told_before_a_run(tmp_path: Path) -> None:
    """One sentence with the files that the ranks need and what to do, and status 2; nothing is
    prepared.
    """
    settings = ["global_batch=400", "train_samples=400", "device=cpu"]
    words = ["run-all", "quickstart", "--methods", "head", "--seeds", "1", "--nproc", "400"]
    words += [word for setting in settings for word in ("--set", setting)]
    command = subprocess.run(
        [sys.executable, "-m", "hpml_bench", *words, "--out", str(tmp_path), "--wandb", "off"],
        preexec_fn=limited(1024, 1024),
        check=False,
        capture_output=True,
        text=True,
    )
    assert command.returncode == 2
    sentence = (
        "a run of 400 ranks needs 1728 open files in a process, and the hard limit is 1024; raise "
        "it (ulimit -Hn 1728 as root, or LimitNOFILE of systemd), or give fewer ranks by --nproc"
    )
    assert sentence in command.stderr
    assert "preparing" not in command.stdout
    assert not list(tmp_path.rglob("run.json"))
