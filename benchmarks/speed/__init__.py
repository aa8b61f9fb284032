"""Measurements of `benchmarks/performance.py`, a file for each kind; the table's lines, and
contenders' processes.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any, Literal, Self, cast

from hpml_bench.system.environment import PROCESS_ENVIRONMENT, cores

HEADER = "| measured | figure (spread) | target | |\n|---|---|---|---|"
RANK = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "0",
}
"""Environment of a rank that is alone."""


@dataclass(frozen=True)
class Target:
    """A figure, what it should be, and the measurements behind it: a line of the table."""

    name: str  # what was measured
    figure: float
    unit: str
    target: float | None  # None: printed for comparison, nothing is asked of it
    direction: Literal["at least", "at most"]
    raw: dict[str, Any] = field(default_factory=dict)  # the single measurements, in the order taken
    spread: tuple[float, float] | None = None  # smallest and largest

    @property
    def met(self) -> bool | None:
        """Whether the figure is what it should be; None where nothing is asked."""
        if self.target is None:
            return None
        return (
            self.figure >= self.target
            if self.direction == "at least"
            else self.figure <= self.target
        )

    def row(self) -> str:
        """Return the line: figure, spread, target, met or not."""
        spread = f" ({self.spread[0]:.3g} to {self.spread[1]:.3g})" if self.spread else ""
        asked = "" if self.target is None else f"{self.direction} {self.target:g}"
        verdict = {True: "met", False: "NOT MET", None: "for comparison"}[self.met]
        return f"| {self.name} | {self.figure:.3g}{spread} {self.unit} | {asked} | {verdict} |"


def at_most(
    name: str, values: Sequence[float], unit: str, most: float | None, raw: dict[str, Any]
) -> Target:
    """Return the median of values, which should be at most so much; of several with their
    spread.
    """
    return Target(
        name,
        median(values),
        unit,
        most,
        "at most",
        raw,
        (min(values), max(values)) if values[1:] else None,
    )


def ratio(
    name: str, ratios: Sequence[float], asked: float | None, raw: dict[str, Any], unit: str = "x"
) -> Target:
    """Return the median of ratios, which should be at least so much, with their spread."""
    spread = min(ratios), max(ratios)
    return Target(
        name, median(ratios), unit, asked, "at least", {"ratios": [*ratios], **raw}, spread
    )


def faster(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[float]:
    """Return the ratios of samples/s of contenders' jobs, turn by turn."""
    return [
        a["samples_per_second"] / b["samples_per_second"] for a, b in zip(ours, theirs, strict=True)
    ]


class Process:
    """A contender in a process of its own (`speed.contender`), born with its environment, which
    waits for its turns.
    """

    def __init__(self, name: str, *, ours: bool, threads: int | None = None) -> None:
        """Keep its name; with the harness's own variables, and with all cores, or so many
        threads.
        """
        self.name, self._ours, self._threads = name, ours, threads or cores()

    def __enter__(self) -> Self:
        environment = {
            k: v
            for k, v in os.environ.items()
            if k not in PROCESS_ENVIRONMENT and k != "OMP_NUM_THREADS"
        }
        environment |= PROCESS_ENVIRONMENT if self._ours else {}
        environment |= {"OMP_NUM_THREADS": str(self._threads), **import_path(), **one_gpu()}
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "speed.contender"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def do(self, **job: Any) -> dict[str, Any]:
        """Let it do a job; return what it says, its peak memory in MB, and samples/s where
        samples were timed.
        """
        to, back = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        to.write(json.dumps({"contender": self.name, "threads": self._threads, **job}) + "\n")
        to.flush()
        if not (answer := back.readline()):
            self._log.seek(0)
            raise RuntimeError(
                f"{self.name}: {(self._log.read().strip().splitlines() or ['no message'])[-1]}"
            )
        result: dict[str, Any] = json.loads(answer)
        if "samples" in result:
            result["samples_per_second"] = result["samples"] / result["seconds"]
        rate = f"{result['samples_per_second']:.2f} samples/s, " if "samples" in result else ""
        said = " ".join([*(str(job[key]) for key in ("model", "method") if key in job), self.name])
        print(f"  {said}: {rate}peak {result['peak_mb']:,.0f} MB", file=sys.stderr, flush=True)
        return result


def import_path() -> dict[str, str]:
    """Return PYTHONPATH with this package's folder, so that a child process imports it."""
    folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, folders))}


def one_gpu() -> dict[str, str]:
    """Return the variable that leaves a process the first visible GPU: of more the Trainer makes
    a DataParallel.
    """
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]}


def memory_mb() -> float:
    """Return this process's peak memory in MB; getrusage's begins with the size of the process
    that started it.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0
