"""Nodes of a run: the place of one among them, what its agent reports, and the one cause of a bad end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from hpml_bench.records.run import RunError, Status
from hpml_bench.suite.base import Frozen
from hpml_bench.system.failures import lost_peer

LOG = "agents.log"
"""What the agents of a run and their starter print; in its folder, which all nodes see."""
KEY = "HPML_BENCH_MEETING_KEY"
"""Variable by which the engine hands a run's key to its agents; arguments can be read by all users of a node."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of a run as its launcher on one of them knows them; by default this machine alone."""

    count: int = 1
    number: int = 0
    """Of this node, from 0; it has the ranks `number * ranks` to `(number + 1) * ranks - 1`."""
    host: str = "127.0.0.1"
    """Where the store is by which the nodes meet; an address, since a bare system doesn't know the name localhost."""
    port: int = 0
    """0: the store is this node's own, on a port that the kernel picks."""
    run_id: str = ""
    """Of the store's keys; empty where the store is of one launch alone."""

    def ranks(self, world_size: int) -> range:
        """Return the ranks of this node."""
        each = world_size // self.count
        return range(self.number * each, (self.number + 1) * each)


ALONE = Nodes()


class Weight(IntEnum):
    """What a bad end says of the run's cause, from the cause itself to what only follows from it."""

    KILLED = 0
    """A rank, or the fork server, was ended by a signal."""
    WATCHED = 1
    """The watchdog ended it: a stall or a time limit."""
    OWN = 2
    """A rank failed by itself."""
    LOST = 3
    """There is no report."""
    PEER = 4
    """A rank, or the launcher, lost its peers."""
    ASKED = 5
    """The ranks were ended because somebody asked for it."""


class Report(Frozen):
    """How the ranks of a node ended."""

    node: int
    host: str
    status: Status | None = None
    """None: they ended well."""
    error: RunError | None = None

    @property
    def well(self) -> bool:
        """Whether its ranks ended well."""
        return self.status is None

    @property
    def weight(self) -> Weight:
        """What it says of the cause; of ranks that ended well nothing."""
        kind, message = (self.error.kind, self.error.message) if self.error else ("", "")
        if self.status == "interrupted":
            return Weight.ASKED
        if self.status == "killed" or kind == "SIGKILL":
            return Weight.KILLED
        if self.status == "timeout":
            return Weight.WATCHED
        return Weight.PEER if kind.startswith("Dist") or lost_peer(message) else Weight.OWN

    @property
    def decisive(self) -> bool:
        """Whether another node's report can't say better what happened."""
        return self.well or self.weight in {Weight.KILLED, Weight.OWN}


def merged(
    reports: Sequence[Report], hosts: Mapping[int, str], count: int, words: str = ""
) -> tuple[Status, RunError] | None:
    """Return status and cause of a run from what its nodes reported; None where all ended well.

    Args:
        reports: of the nodes that reported.
        hosts: number -> host, of the nodes whose agent had begun.
        count: how many nodes there are.
        words: what the agents' starter says of it.

    """
    bad = [report for report in reports if not report.well]
    lost = [_lost(number, hosts, words) for number in sorted(set(range(count)) - {r.node for r in reports})]
    ordered = [(report.weight, report) for report in bad] + [(Weight.LOST, report) for report in lost]
    if not ordered:
        return None
    weight, first = min(ordered, key=lambda pair: (pair[0], pair[1].node))
    assert first.status is not None and first.error is not None  # noqa: S101, PT018 - it did not end well
    if weight is Weight.ASKED:
        message = "the agents on the nodes were asked to end, and not by this job"
        return "killed", RunError(kind="Step", message=message)
    if weight is Weight.WATCHED:
        return first.status, _stalled([report for report in bad if report.weight is weight])
    place = "" if weight is Weight.LOST else f" (on node {first.node}, {first.host})"
    return first.status, first.error.model_copy(update={"message": f"{first.error.message}{place}"})


def _lost(number: int, hosts: Mapping[int, str], words: str) -> Report:
    """Return what stands for the report of a node from which there is none."""
    name = f"node {number} ({hosts[number]})" if number in hosts else f"node {number}, whose agent had not begun"
    message = f"no report from {name}: its agent or the node was lost" + (f" ({words})" if words else "")
    return Report(
        node=number, host=hosts.get(number, ""), status="killed", error=RunError(kind="NoReport", message=message)
    )


def _stalled(reports: Sequence[Report]) -> RunError:
    """Return one error of the nodes whose watchdogs ended their ranks, with the stacks of all."""
    told = [(f"node {report.node} ({report.host})", report.error) for report in reports if report.error]
    return RunError(
        kind=told[0][1].kind,
        message="; ".join(f"{node}: {error.message}" for node, error in told),
        rank=min((error.rank for _, error in told if error.rank is not None), default=None),
        traceback="\n\n".join(f"{node}, {error.traceback}" for node, error in told if error.traceback) or None,
    )
