"""Meeting point of a run's nodes: a store in the run's parent, with the task, the reports and the request to end.

All is text; nothing is unpickled.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from hpml_bench.config.base import Frozen
from hpml_bench.config.settings import RunSpec
from hpml_bench.data.prepared import Prepared
from hpml_bench.launch.nodes import Report

CONNECT = timedelta(seconds=60)
FOREVER = timedelta(days=30)


class Task(Frozen):
    """What the agents of a run do."""

    spec: RunSpec
    prepared: Prepared
    folder: str
    nodes: int
    stall: float
    run_timeout: float | None


class Meeting:
    """The store, hosted here or elsewhere."""

    def __init__(self, host: str, port: int = 0) -> None:
        """Host it on a port that the kernel picks, or join one."""
        self.host = host
        self._store = TCPStore(host, port, is_master=port == 0, wait_for_workers=False, timeout=CONNECT)
        self.port = int(self._store.port)

    def give(self, task: Task) -> None:
        """Say what is to be done."""
        self._store.set("task", task.model_dump_json())

    def task(self) -> Task:
        """Return what is to be done."""
        return Task.model_validate_json(self._store.get("task"))

    def arrive(self, number: int, host: str) -> None:
        """Say that a node's agent is about to start its ranks."""
        self._store.set(f"host/{number}", host)

    def hosts(self, count: int) -> dict[int, str]:
        """Return number -> host, of the nodes whose agents have arrived."""
        there = [number for number in range(count) if self._store.check([f"host/{number}"])]
        return {number: self._store.get(f"host/{number}").decode() for number in there}

    def late(self, number: int) -> None:
        """Say that a node's ranks have reached a limit."""
        with suppress(DistError):
            self._store.set(f"late/{number}", "")

    def all_late(self, count: int) -> bool:
        """Whether those of all nodes have, or nobody can tell any more."""
        try:
            return bool(self._store.check([f"late/{number}" for number in range(count)]))
        except DistError:
            return True

    def report(self, report: Report) -> None:
        """Say how a node's ranks ended; where the parent has ended nobody asks."""
        with suppress(DistError):
            self._store.set(f"report/{report.node}", report.model_dump_json())

    def reports(self, count: int) -> list[Report]:
        """Return the reports that there are."""
        there = [number for number in range(count) if self._store.check([f"report/{number}"])]
        return [Report.model_validate_json(self._store.get(f"report/{number}")) for number in there]

    def end(self) -> None:
        """Ask the agents to end."""
        self._store.set("end", "")

    def await_end(self) -> None:
        """Wait until the agents are asked to end, or the parent has ended: its connections are closed then.

        It waits in one call without looks at a clock, so that it takes nothing from the ranks.
        """
        with suppress(DistError):
            self._store.wait(["end"], FOREVER)
