"""Nodes of a run: the position of one among them, the report of its agent, and the one cause of a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from hpml_bench.records.run import RunError, Status
from hpml_bench.suite.base import Frozen
from hpml_bench.system.errors import lost_peer
from hpml_bench.system.network import LOOPBACK

LOG = "agents.log"  # file for the output of a run's agents and their starter, in the run's folder, which all nodes see
KEY = "HPML_BENCH_MEETING_KEY"
"""Environment variable of a run's key for its agents; all users of a node could read an argument."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of a run as its launcher on one of them knows them; by default this machine alone."""

    count: int = 1
    number: int = 0  # number of this node, from 0; it has the ranks `number * ranks` to `(number + 1) * ranks - 1`
    host: str = LOOPBACK  # address of the store by which the nodes meet
    port: int = 0  # 0: the store is this node's own, on a port that the kernel picks
    run_id: str = ""  # prefix of the store's keys; empty where the store serves one launch alone

    def ranks(self, world_size: int) -> range:
        each = world_size // self.count
        return range(self.number * each, (self.number + 1) * each)


ALONE = Nodes()


class CausePriority(IntEnum):
    """Priority of a node's failure as the run's cause, from the cause itself to mere consequences."""

    KILLED = 0  # a rank, or the fork server, was ended by a signal
    WATCHED = 1  # the watchdog ended it: a stall or a time limit
    OWN = 2  # a rank failed by itself
    LOST = 3  # there is no report
    PEER = 4  # a rank, or the launcher, lost its peers
    ASKED = 5  # the ranks were ended on request


class Report(Frozen):
    """End of a node's ranks."""

    node: int
    host: str
    status: Status | None = None  # None: they ended well
    error: RunError | None = None

    @property
    def well(self) -> bool:
        return self.status is None

    @property
    def priority(self) -> CausePriority:
        """Priority of the failure as the run's cause; meaningless for ranks that ended well."""
        kind, message = (self.error.kind, self.error.message) if self.error else ("", "")
        if self.status == "interrupted":
            return CausePriority.ASKED
        if self.status == "killed" or kind in {"SIGKILL", "ForkServer"}:
            return CausePriority.KILLED
        if self.status == "timeout":
            return CausePriority.WATCHED
        return CausePriority.PEER if kind.startswith("Dist") or lost_peer(message) else CausePriority.OWN

    @property
    def decisive(self) -> bool:
        """Whether no other node's report can show the cause better."""
        return self.well or self.priority in {CausePriority.KILLED, CausePriority.OWN}


def merged(
    reports: Sequence[Report], hosts: Mapping[int, str], count: int, words: str = ""
) -> tuple[Status, RunError] | None:
    """Return status and cause of a run from what its nodes reported; None where all ended well.

    `hosts`: host of each node whose agent had begun; `words`: message of the agents' starter.
    """
    bad = [report for report in reports if not report.well]
    lost = [_lost(number, hosts, words) for number in sorted(set(range(count)) - {r.node for r in reports})]
    ordered = [(report.priority, report) for report in bad] + [(CausePriority.LOST, report) for report in lost]
    if not ordered:
        return None
    priority, first = min(ordered, key=lambda pair: (pair[0], pair[1].node))
    assert first.status is not None and first.error is not None  # noqa: S101, PT018 - it did not end well
    if priority is CausePriority.ASKED:
        message = "the agents on the nodes were asked to end, and not by this job"
        return "killed", RunError(kind="Step", message=message)
    if priority is CausePriority.WATCHED:
        return first.status, _stalled([report for report in bad if report.priority is priority])
    place = "" if priority is CausePriority.LOST else f" (on node {first.node}, {first.host})"
    return first.status, first.error.model_copy(update={"message": f"{first.error.message}{place}"})


def _lost(number: int, hosts: Mapping[int, str], words: str) -> Report:
    """Return a substitute for the report of a node that sent none."""
    name = f"node {number} ({hosts[number]})" if number in hosts else f"node {number}, whose agent had not begun"
    message = f"no report from {name}: its agent or the node was lost" + (f" ({words})" if words else "")
    error = RunError(kind="NoReport", message=message)
    return Report(node=number, host=hosts.get(number, ""), status="killed", error=error)


def _stalled(reports: Sequence[Report]) -> RunError:
    """Return one error for the nodes whose watchdogs ended their ranks, with the stacks of all."""
    errors = [(f"node {report.node} ({report.host})", report.error) for report in reports if report.error]
    return RunError(
        kind=errors[0][1].kind,
        message="; ".join(f"{node}: {error.message}" for node, error in errors),
        rank=min((error.rank for _, error in errors if error.rank is not None), default=None),
        traceback="\n\n".join(f"{node}, {error.traceback}" for node, error in errors if error.traceback) or None,
    )
