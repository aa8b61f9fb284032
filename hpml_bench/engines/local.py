"""This machine: runs beside each other, each on GPUs or cores of its own (`run-all --parallel N`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpml_bench.errors import UserError
from hpml_bench.plugins.engine import Batch, Engine, Live
from hpml_bench.records.plan import LOGS, Job, Plan, ended_here
from hpml_bench.system import environment, gpus
from hpml_bench.system import job as jobs
from hpml_bench.system.parent_death import die_with_parent
from hpml_bench.system.text import utc_now

STOP_SECONDS = 30.0
"""For so long a job that was asked to end is waited for before it is killed."""
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Slot:
    """The part of this machine that one job at a time has."""

    number: int
    cores: tuple[int, ...]
    cards: tuple[str, ...]
    """As CUDA_VISIBLE_DEVICES names them."""


class Local(Engine):
    """Processes of this machine, which end with this one."""

    title = "this machine"
    outlives = False

    def check(self) -> None:
        """Refuse more slots than there are cores, or a slot with other than whole GPUs.

        Raises:
            UserError: says how many there can be.

        """
        self._slots = slots(self.profile.parallel, self.profile.gpus_per_node, self.profile.cpus_per_node)
        self._free = list(self._slots)
        self._waiting: list[tuple[Batch, int]] = []
        self._running: dict[int, tuple[Slot, subprocess.Popen[bytes]]] = {}

    def submit(self, batch: Batch) -> str:
        """Begin as many jobs as there are slots; `wait` begins the others."""
        self._waiting += [(batch, unit) for unit in batch.units]
        self._begin()
        return str(os.getpid())

    def live(self, plan: Plan) -> tuple[Live, ...]:
        """Return the jobs that wait or run."""
        self._begin()
        waiting = [Live(f"unit {unit}", unit, "WAITING", running=False) for _, unit in self._waiting]
        return (*(Live(f"unit {unit}", unit, "RUNNING", running=True) for unit in self._running), *waiting)

    def wait(self, seconds: float) -> None:
        """Wait a while, or until a job has ended."""
        deadline = time.monotonic() + seconds
        before = len(self._running)
        while time.monotonic() < deadline:
            self._begin()
            if len(self._running) < before:
                return
            time.sleep(LOOK_SECONDS)

    def stop(self, plan: Plan) -> int:
        """Ask the jobs of this process to end, and kill those that don't."""
        count = len(self._waiting) + len(self._running)
        self._waiting.clear()
        running = [process for _, process in self._running.values()]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        return count

    def dead(self, owner: Job) -> bool:
        """Tell whether the owner was a process of this host, and has ended."""
        return ended_here(owner)

    def _begin(self) -> None:
        """Free the slots of jobs that have ended, and begin others in free ones."""
        for unit, (slot, process) in list(self._running.items()):
            if process.poll() is not None:
                del self._running[unit]
                self._free.append(slot)
        while self._free and self._waiting:
            batch, unit = self._waiting.pop(0)
            slot = self._free.pop(0)
            self._running[unit] = slot, self._process(batch, unit, slot)

    def _process(self, batch: Batch, unit: int, slot: Slot) -> subprocess.Popen[bytes]:
        variables = {**os.environ, **self.profile.env, jobs.ENGINE: "local", jobs.JOB: f"{os.getpid()}-{unit}",
                     jobs.QUEUED: utc_now(), jobs.EXCLUSIVE: str(int(len(self._slots) == 1))}  # fmt: skip
        if slot.cards:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(slot.cards)
        folder = batch.folder / LOGS
        folder.mkdir(exist_ok=True)
        with (folder / f"unit-{unit}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *self.command(batch, unit)],
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal reaches this process alone, which asks them to end
                preexec_fn=_placed(slot),  # noqa: PLW1509 - before any thread of ours is started
            )


def slots(count: int, cards_each: int | None, cores_each: int | None) -> list[Slot]:
    """Return equal parts of this machine's GPUs and cores.

    Raises:
        UserError: there are fewer GPUs or cores than that takes.

    """
    cores, cards = sorted(os.sched_getaffinity(0))[: environment.cores()], gpus.visible_gpus()
    each = cores_each or len(cores) // count
    if each < 1 or each * count > len(cores):
        raise UserError(f"--parallel {count}: this machine has {len(cores)} cores; at most {len(cores)} runs fit")
    per_slot = (len(cards) // count if cards_each is None else cards_each) if cards else 0
    if cards and (per_slot < 1 or per_slot * count > len(cards)):
        raise UserError(f"--parallel {count}: {len(cards)} GPU(s) are visible; at most {len(cards)} runs fit")
    names = _card_names(len(cards))
    return [
        Slot(n, tuple(cores[n * each : (n + 1) * each]), tuple(names[n * per_slot : (n + 1) * per_slot]))
        for n in range(count)
    ]


def _card_names(count: int) -> list[str]:
    """Return the GPUs that are visible here, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:count] if given else [str(number) for number in range(count)]


def _placed(slot: Slot) -> Callable[[], None]:
    """Return what a job does before its command: stay on its cores, and end with its parent."""

    def place() -> None:
        os.sched_setaffinity(0, slot.cores)
        die_with_parent()

    return place
