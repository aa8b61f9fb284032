"""Ray: the units as tasks of a running cluster, or of one that is started on this machine.

A task starts `hpml-bench work` as a process of its own, since Ray reuses its workers, which isolate
nothing. The kernel kills that process when the worker ends (ray-project/ray#42861: Ray leaves
children of a killed worker alive). Ray's own retries are off: a lost task is submitted anew under
another name, so that work which a lost node goes on with is never taken for it.
"""

import importlib.util
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from hpml_bench.plugins.engine import Engine, EngineJob, JobBatch
from hpml_bench.records.jobs import LOGS, Job, JobPlan, ended_here
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.profile import Profile
from hpml_bench.system import child
from hpml_bench.system import environment as jobs
from hpml_bench.system.errors import UserError
from hpml_bench.system.packages import install_extras
from hpml_bench.system.signals import SIGNALS
from hpml_bench.system.text import utc_now

STOP_SECONDS = 30.0  # seconds to wait for a job signalled to end before it is killed


class RayOptions(Frozen):
    """Address of the cluster, and further resources of a task."""

    address: str | None = None
    """Address of the cluster, as in ray.init; empty: RAY_ADDRESS, or without it a cluster of
    this machine alone.
    """
    resources: dict[str, float] = Field(default_factory=dict)
    """Custom resources of each task."""


class Ray(Engine):
    """Tasks of a Ray cluster, which end with this process."""

    title = "Ray"
    Options: ClassVar[type[Frozen]] = RayOptions
    outlives = False

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self._waiting: list[tuple[JobBatch, int | None, Any]] = []
        self._running: dict[Any, tuple[int | None, str]] = {}
        self._names: set[str] = set()
        self._prepared: Any = None

    @classmethod
    def lacks(cls) -> str | None:
        missing = importlib.util.find_spec("ray") is None
        return f"Ray needs one more package; {install_extras('ray')}" if missing else None

    def check(self) -> None:
        """Connect to the cluster, and refuse one without a node that has the resources of a job."""
        super().check()
        import ray

        if not _connected():
            os.environ.setdefault(
                "RAY_USAGE_STATS_ENABLED", "0"
            )  # a cluster that is started here reports to nobody
            own_handlers = {
                number: signal.getsignal(number) for number in SIGNALS
            }  # Ray replaces one of them
            address = self.options.address or os.environ.get("RAY_ADDRESS") or "local"
            here = {"include_dashboard": False} if address == "local" else {}
            try:
                if match := re.fullmatch(r"(?:ray://)?\[?([^\]/]+)\]?:(\d{1,5})", address):
                    # Ray would try for minutes
                    socket.create_connection((match[1], int(match[2])), timeout=10).close()
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"Ray's cluster at {address} can't be reached: {str(error).splitlines()[0]}"
                ) from None
            finally:
                for number, handler in own_handlers.items():
                    signal.signal(number, handler)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._need, self._alone = resources_of_task(self.profile, nodes)

    def submit(self, batch: JobBatch) -> str:
        after = self._prepared if batch.prepared else None
        if batch.kind == "prepare":
            self._prepared = self._begin(batch, None, None)
            return "prepare"
        self._waiting += [(batch, unit, after) for unit in batch.units]
        self._more()
        return ""

    def live(self, plan: JobPlan) -> tuple[EngineJob, ...]:
        self._more()
        found = [
            EngineJob(name, unit, "SUBMITTED", running=True)
            for unit, name in self._running.values()
        ]
        return (
            *found,
            *(
                EngineJob(f"unit {unit}", unit, "WAITING", running=False)
                for _, unit, _ in self._waiting
            ),
        )

    def wait(self, seconds: float) -> None:
        import ray

        if self._running:
            ray.wait(list(self._running), num_returns=1, timeout=seconds, fetch_local=False)
        else:
            time.sleep(seconds)

    def stop(self, plan: JobPlan, names: Sequence[str] = ()) -> int:
        """Cancel the jobs, and kill the workers of those that don't end."""
        import ray

        count, tasks = len(self._waiting) + len(self._running), list(self._running)
        self._waiting.clear()
        for force in (False, True):
            for task in tasks:
                ray.cancel(task, force=force)
            if tasks:
                _, tasks = ray.wait(
                    tasks, num_returns=len(tasks), timeout=STOP_SECONDS + 5, fetch_local=False
                )
        self._more()
        return count

    def dead(self, owner: Job) -> bool:
        """Return whether a task of this process has ended, or an owner's process is gone from
        its node.
        """
        if owner.job in self._names:
            return all(name != owner.job for _, name in self._running.values())
        return _connected() and _gone(owner)

    def _more(self) -> None:
        if self._running:
            import ray

            ended, _ = ray.wait(
                list(self._running), num_returns=len(self._running), timeout=0, fetch_local=False
            )
            for task in ended:
                del self._running[task]
        while self._waiting and len(self._running) < self.profile.parallel:
            self._begin(*self._waiting.pop(0))

    def _begin(self, batch: JobBatch, unit: int | None, after: Any) -> Any:
        import ray

        name = f"ray-{secrets.token_hex(4)}-{'prepare' if unit is None else unit}"
        log = batch.folder / LOGS / f"{'prepare' if unit is None else f'unit-{unit}'}.log"
        words = self.command(batch, -1 if unit is None else unit)
        title, more = f"hpml-bench:{batch.plan.suite.name}", self.options.resources or None
        remote = ray.remote(do).options(name=title, **self._need, resources=more, max_retries=0)
        variables = {
            key: value for key, value in os.environ.items() if key.startswith("HPML_BENCH_")
        }
        variables |= self.profile.env | (
            {} if self._alone else {jobs.CORES: f"{self._need['num_cpus']:.0f}"}
        )
        alone = str(int(self._alone))
        variables |= {
            jobs.ENGINE: "ray",
            jobs.JOB: name,
            jobs.QUEUED: utc_now(),
            jobs.EXCLUSIVE: alone,
        }
        task = remote.remote(
            words, variables, str(log), self.profile.model_dump(mode="json"), after
        )
        self._running[task] = unit, name
        self._names.add(name)
        return task


def resources_of_task(
    profile: Profile, nodes: list[dict[str, float]]
) -> tuple[dict[str, Any], bool]:
    """Return a task's resources of one node, by Ray's options, and whether they are all cores of
    any node.

    They are those of the profile, else the fewest cores and GPUs of any node with a core.
    """
    usable = [node for node in nodes if node.get("CPU", 0) >= 1]
    least = {
        kind: min((node.get(kind, 0) for node in usable), default=0) for kind in ("CPU", "GPU")
    }
    whole = profile.exclusive or profile.cpus_per_node is None
    cpus = least["CPU"] if whole else float(profile.cpus_per_node or 0)
    gpus = least["GPU"] if profile.gpus_per_node is None else float(profile.gpus_per_node)
    match = re.fullmatch(r"(\d+)([KMGT]?)", profile.memory_per_node or "")
    shift = {"K": 10, "G": 30, "T": 40}  # M, and no letter, are megabytes, as Slurm reads them
    memory = None if match is None else int(match[1]) << shift.get(match[2], 20)
    requested = {"CPU": cpus, "GPU": gpus, "memory": memory or 0}
    if not any(
        all(node.get(kind, 0) >= number for kind, number in requested.items()) for node in usable
    ):
        shown = (
            ", ".join(f"{number:.0f} {kind}" for kind, number in requested.items() if number)
            or "a CPU"
        )
        raise UserError(
            f"no node of Ray's cluster has the resources of a job ({shown}); request less in the "
            f"profile, or add nodes"
        )
    need = {"num_cpus": cpus, "num_gpus": gpus, "memory": memory}
    return need, whole and len({node["CPU"] for node in usable}) == 1


def do(
    words: list[str],
    variables: dict[str, str],
    log: str,
    profile: dict[str, Any],
    after: int | None,
) -> int:
    """Do a job in a process of its own, as a task on a node; return its exit status, or a failed
    job's before it.
    """
    if after:
        return after
    where = Profile.model_validate(profile)
    if where.seconds is not None:
        variables = {**variables, jobs.UNTIL: str(int(time.time() + where.seconds))}
    process = child.start(where.command(words), variables, Path(log), where.setup, where.scratch)
    deadline = time.monotonic() + where.seconds - where.warned if where.seconds else None
    try:
        while process.poll() is None and (deadline is None or time.monotonic() < deadline):
            time.sleep(0.2)  # Ray's cancellation is seen between Python's instructions only
        if process.poll() is None:
            child.end([process], where.warned)
    except BaseException:  # it was cancelled
        child.end([process], STOP_SECONDS)
        raise
    return process.returncode


def _connected() -> bool:
    """Return whether this process is connected to a cluster; loads nothing."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _gone(owner: Job) -> bool:
    """Return whether an owner's process has ended, checked on its node; a node that Ray has lost
    counts as ended.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["NodeManagerHostname"] == owner.host]
    living = [node for node in nodes if node["Alive"]]
    if not living:
        return bool(nodes)
    strategy = NodeAffinitySchedulingStrategy(node_id=living[0]["NodeID"], soft=False)
    look = (
        ray.remote(ended_here)
        .options(num_cpus=0, scheduling_strategy=strategy, max_retries=0)
        .remote(owner)
    )
    try:
        return bool(ray.get(look, timeout=30))
    except ray.exceptions.RayError:
        return False
