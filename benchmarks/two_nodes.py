"""A Slurm of two nodes on this machine (tests/slurm/slurm.sh): its commands, and what can befall
its nodes.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "tests" / "slurm" / "slurm.sh"
NODES = ("n1", "n2")
PATIENCE = 180.0
"""Seconds after which is given up what is waited for; on an idle machine it takes less than 30,
real limits apart.
"""


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {seconds:.0f} s: {what}")
        time.sleep(0.05)


class TwoNodes:
    """The cluster: Slurm's commands, and what can befall its nodes."""

    def __init__(self, number: int) -> None:
        self._variables = {"SLURM_NUMBER": str(number)}

    def up(self) -> str | None:
        """Start it; return why it can't be had, None where it is up."""
        done = self._script("up")
        return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def down(self) -> None:
        self.do("down")

    def exports(self) -> dict[str, str]:
        return dict(re.findall(r"^export (\w+)=(.*)$", self._script("env").stdout, re.MULTILINE))

    def do(self, *words: str) -> str:
        return told(self._script(*words))

    @staticmethod
    def jobs() -> dict[str, tuple[str, str]]:
        """Return job -> its state and its node, of those that Slurm has not ended."""
        lines = slurm("squeue", "--array", "--noheader", "--format=%i %T %N").splitlines()
        return {name: (state, "".join(node)) for name, state, *node in map(str.split, lines)}

    def mark_down(self, node: str) -> None:
        """Tell the controller that a node is down, as it finds out by itself after
        SlurmdTimeout.
        """
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def restore(self) -> None:
        """End all jobs, and begin nodes anew that are not idle then."""
        self.do("comments")
        if self.jobs():
            slurm("scancel", "--me")
        for node in NODES:
            self._script("link", node, "up")
        deadline = time.monotonic() + 10
        while (self.jobs() or self.unwell()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for node in self.unwell():
            self.do("back", node)
        until(lambda: not self.jobs() and not self.unwell(), "all nodes are idle")

    def unwell(self) -> set[str]:
        """Return the nodes that are not idle, or not really."""
        lines = slurm(
            "sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %T"
        ).splitlines()
        ill = {name for name, state in map(str.split, lines) if state != "idle"}
        return ill | {
            node
            for node in NODES
            if self._script("in", node, "pgrep", "-x", "slurmd-wlm|slurmd").returncode
        }

    def _script(self, *words: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **self._variables}
        return subprocess.run(
            [SCRIPT, *words],
            capture_output=True,
            text=True,
            env=variables,
            timeout=300,
            check=False,
        )


def slurm(*command: str) -> str:
    return told(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False))


def told(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed; RuntimeError where it ended with a status above 0."""
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, done.args))}: {done.stderr}")
    return done.stdout
