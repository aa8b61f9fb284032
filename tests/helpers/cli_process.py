"""hpml-bench as a process of its own, as a terminal would start it, and what it leaves behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from helpers import warm
from helpers.waiting import until
from hpml_bench.system import heartbeat, processes


class Command:
    """`hpml-bench run-all SUITE --out OUT` in a session of its own, with its own folder for
    temporary files.
    """

    does: tuple[str, ...] = ("run-all", "--wandb", "off")

    def __init__(
        self,
        suite: Path,
        out: Path,
        *options: str,
        cold: bool = False,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        """Start it, warm unless `cold`; `constants` are values for constants of the package, by
        module:NAME.
        """
        self.out, self.temporary = out, out.absolute().parent / "tmp"
        self.temporary.mkdir(exist_ok=True)
        lines = [
            f"pkgutil.resolve_name({name.partition(':')[0]!r}).{name.partition(':')[2]} = {value!r}"
            for name, value in (constants or {}).items()
        ]
        program = "\n".join(["import pkgutil", *lines, "from hpml_bench.cli import main", "main()"])
        start = ["-c", program] if constants else ["-m", "hpml_bench"]
        command = [sys.executable, *start, *self.does, str(suite), "--out", str(out), *options]
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        self.process: subprocess.Popen[str] | warm.WarmProcess
        if cold:
            self.process = subprocess.Popen(
                command,
                env=environment,
                start_new_session=True,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        else:
            self.process = warm.WarmProcess(command, environment, new_session=True)
        self.family: set[psutil.Process] = set()

    def until(self, condition: Callable[[], object], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "what the test waits for did not happen"
            time.sleep(0.01)
        self.note()

    def note(self) -> None:
        try:
            self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def training(self) -> dict[int, int]:
        """Return the ranks' process numbers once both take steps, else nothing."""
        for folder in self.out.glob("*/*/"):
            beats = heartbeat.read(folder)
            if len(beats) == 2 and all("step" in beat.where for beat in beats):
                return {beat.rank: beat.pid for beat in beats}
        return {}

    def recorded(self) -> int:
        return sum(1 for _ in self.out.glob("*/*/run.json"))

    def ended(self, seconds: float = 60) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def ends(self, expected: int, seconds: float = 60) -> str:
        """Wait for its end with this status, no traceback and no process left; return what was
        said.
        """
        status, said = self.ended(seconds)
        assert status == expected, said
        assert "Traceback" not in said
        assert self.left() == []
        return said

    def left(self) -> list[psutil.Process]:
        """Return the processes of it that still live after a moment."""
        until(lambda: not any(map(processes.alive, self.family)))
        return [process for process in self.family if processes.alive(process)]
