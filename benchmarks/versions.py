"""Versions of the harness beside each other: a checkout of an older one, and calls of each."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""Checkout that this file is in, as its files are now."""


class Version:
    """A version of the harness: its checkout, and a folder for what it computes."""

    def __init__(self, checkout: Path, room: Path) -> None:
        self.checkout, self.room = checkout, room
        room.mkdir(parents=True)

    def call(self, *words: str, launcher: tuple[str, ...] = ()) -> str:
        """Return what a command of the harness prints; RuntimeError where its status is above 0."""
        return self.python(*launcher, "-m", "hpml_bench", *words)

    def python(self, *words: str, variables: Mapping[str, str] | None = None) -> str:
        """Return what Python prints with this package; RuntimeError where its status is above 0."""
        usual = {
            "PYTHONPATH": str(self.checkout),
            "HPML_BENCH_CACHE": str(self.room.parent / "cache"),
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
        }
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.room,
            env={**os.environ, **usual, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            command = shlex.join([sys.executable, *words])
            said = done.stderr[-2000:] + done.stdout[-2000:]
            raise RuntimeError(f"{command} in {self.room}: {said}")
        return str(done.stdout)


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """Check a revision of this repository out into a folder, which is removed after the body."""
    worktree = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*worktree, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*worktree, "remove", "--force", str(folder)], check=True)
