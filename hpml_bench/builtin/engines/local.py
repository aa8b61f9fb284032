"""This machine: runs side by side, each on GPUs or cores of its own (`run-all --parallel N`)."""

import itertools
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpml_bench.plugins.engine import Engine, EngineJob, JobBatch
from hpml_bench.records.jobs import LOGS, JobPlan
from hpml_bench.suite.profile import Profile
from hpml_bench.system import child, environment, gpus
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import utc_now

CORES = Path("/sys/devices/system/cpu")
STOP_SECONDS = 30.0  # seconds to wait for a job signalled to end before it is killed


@dataclass(frozen=True)
class Slot:
    """Part of this machine for one job at a time."""

    cores: tuple[int, ...]
    cards: tuple[str, ...]  # GPUs, as CUDA_VISIBLE_DEVICES names them


_NUMBERS = (
    itertools.count()
)  # of this process's jobs: a unit has one in each round, and one for each attempt


class Local(Engine):
    """Processes of this machine, which end with this one."""

    title = "this machine"
    outlives = False

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self._free: list[Slot] = []
        self._waiting: list[
            tuple[JobBatch, int, str]
        ] = []  # batches, units, and times of submission
        self._running: dict[int, tuple[Slot, subprocess.Popen[bytes]]] = {}

    @property
    def device_request(self) -> tuple[object, ...]:
        return *super().device_request, self.profile.parallel

    def check(self) -> None:
        """Divide this machine into slots; refuse too few cores or GPUs, and keys that don't
        apply here.
        """
        if "parallel" not in self.profile.model_fields_set:
            most = min(self.profile.parallel, environment.cores())
            self.profile = self.profile.model_copy(update={"parallel": most})
        profile = self.profile
        if profile.nodes > 1 or profile.memory_per_node or profile.time:
            raise UserError(
                "engine local: one machine has no nodes, memory_per_node or time of a job; leave "
                "them out"
            )
        self._free = slots(profile.parallel, profile.gpus_per_node, profile.cpus_per_node)

    def submit(self, batch: JobBatch) -> str:
        self._waiting += [(batch, unit, utc_now()) for unit in batch.units]
        self._begin()
        return ""

    def live(self, plan: JobPlan) -> tuple[EngineJob, ...]:
        self._begin()
        waiting = [
            EngineJob(f"unit {unit}", unit, "WAITING", running=False)
            for _, unit, _ in self._waiting
        ]
        return (
            *(EngineJob(f"unit {unit}", unit, "RUNNING", running=True) for unit in self._running),
            *waiting,
        )

    def wait(self, seconds: float) -> None:
        deadline, before = time.monotonic() + seconds, len(self._running) + len(self._waiting)
        while time.monotonic() < deadline and len(self._running) + len(self._waiting) == before:
            time.sleep(0.2)
            self._begin()

    def stop(self, plan: JobPlan, names: Sequence[str] = ()) -> int:
        count = len(self._waiting) + len(self._running)
        self._waiting.clear()
        child.end([process for _, process in self._running.values()], STOP_SECONDS)
        self._running.clear()
        return count

    def _begin(self) -> None:
        for unit in [
            unit for unit, (_, process) in self._running.items() if process.poll() is not None
        ]:
            self._free.append(self._running.pop(unit)[0])
        while self._free and self._waiting:
            slot, (batch, unit, queued), profile = (
                self._free.pop(0),
                self._waiting.pop(0),
                self.profile,
            )
            variables = profile.env | {
                environment.ENGINE: "local",
                environment.QUEUED: queued,
                environment.JOB: f"{os.getpid()}-{unit}-{next(_NUMBERS)}",
                environment.EXCLUSIVE: str(int(profile.parallel == 1)),
                "CUDA_VISIBLE_DEVICES": ",".join(slot.cards),
            }
            log, command = (
                batch.folder / LOGS / f"unit-{unit}.log",
                profile.command(self.command(batch, unit)),
            )
            place = (
                partial(os.sched_setaffinity, 0, slot.cores)
                if hasattr(os, "sched_setaffinity")
                else None
            )
            process = child.start(command, variables, log, profile.setup, profile.scratch, place)
            self._running[unit] = slot, process


def slots(count: int, cards_each: int | None, cores_each: int | None) -> list[Slot]:
    """Return `count` parts of this machine's GPUs and cores, or refuse with a UserError where
    these are too few.
    """
    # Where it isn't said how many each part gets, the parts are equal, with at least one GPU each
    # where there are any.
    together: dict[str, list[int]] = {}  # the cores that are hardware threads of one physical core
    for core in sorted(environment.affinity()):
        siblings = CORES / f"cpu{core}" / "topology" / "thread_siblings_list"
        together.setdefault(siblings.read_text() if siblings.exists() else str(core), []).append(
            core
        )
    physical = [*together.values()]
    cards = [str(gpu["uuid"] or gpu["index"]) for gpu in gpus.shareable_gpus()]
    own_cores = _each(count, cores_each, environment.cores(), "CPU cores")
    if count * own_cores <= len(physical):
        cores = [threads[0] for threads in physical]
    else:
        cores = [core for threads in physical for core in threads]
        threads_each = max(map(len, physical))
        if cores_each is None and own_cores > threads_each:
            own_cores -= own_cores % threads_each  # whole physical cores
    otherwise = "; for runs without GPUs, CUDA_VISIBLE_DEVICES= before"
    gpus_wanted = bool(cards_each or (cards_each is None and cards))
    own_cards = _each(count, cards_each, len(cards), "GPUs", otherwise) if gpus_wanted else 0
    return [
        Slot(
            tuple(cores[i * own_cores : (i + 1) * own_cores]),
            tuple(cards[i * own_cards : (i + 1) * own_cards]),
        )
        for i in range(count)
    ]


def _each(count: int, requested: int | None, available: int, what: str, otherwise: str = "") -> int:
    """Return how many of the `available` things each of `count` slots gets."""
    each = available // count if requested is None else requested
    if each < 1 or each * count > available:
        most = available // (requested or 1)
        hint = f"; give --parallel {most}{otherwise}" if most else ""
        raise UserError(
            f"{count} runs side by side need {count * (requested or 1)} {what}, and {available} "
            f"may be used here{hint}"
        )
    return each
