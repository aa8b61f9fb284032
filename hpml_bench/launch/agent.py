"""Run over several nodes: an agent on each, started by the engine, and the run's parent, which
hosts their store.

`python -m hpml_bench.launch.agent HOST:PORT` runs a node's ranks under a watchdog of its own,
reports to the parent's store how they ended, and ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.launch import fork_server, launcher
from hpml_bench.launch.launcher import End, Nodes
from hpml_bench.launch.watchdog import INTERRUPTED
from hpml_bench.records.files import OUTCOME
from hpml_bench.records.run import Outcome, RunError
from hpml_bench.suite.base import Frozen
from hpml_bench.system import child, descriptors, environment, network, processes, temporary
from hpml_bench.system.errors import UserError, lost_peer
from hpml_bench.system.files import absolute_keeping_links, end_of, read_model
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.system.text import shortened
from hpml_bench.training.request import RunRequest

if TYPE_CHECKING:
    from hpml_bench.launch.meeting import Meeting

# file for the output of a run's agents and their starter, in the run's folder, which all nodes see
LOG = "agents.log"
# variable of a run's key for its agents; all users of a node could read an argument
KEY = "HPML_BENCH_MEETING_KEY"
AGENT_POLL_SECONDS = 0.05
REPORT_SECONDS = 5.0
"""Seconds that an agent whose ranks failed waits for the others' reports: its end makes the
engine end theirs.
"""
# seconds that another host's file may take to appear here: NFS clients cache a folder's content
FOLDER_SECONDS = 10.0
LEAVE_SECONDS = (
    25.0  # seconds after which an agent that was asked to end does so, whatever it waits for
)
POLL_SECONDS = 0.2
START_SECONDS = 600.0  # seconds within which all agents must have begun
OTHERS_SECONDS = 10.0  # seconds that the engine may take to end the agents after one has failed
END_SECONDS = 30.0  # seconds that agents may take to end on request


class OverNodes:
    """Runs a run's ranks on several nodes."""

    def __init__(self, count: int, on_each_node: Callable[[list[str]], list[str]]) -> None:
        self.count, self._on_each_node = count, on_each_node

    def __call__(self, request: RunRequest, stop: Stop) -> Outcome:
        from hpml_bench.launch.meeting import Meeting

        key, folder = secrets.token_hex(32), request.folder
        meeting = Meeting(network.own_address(), key)
        meeting.give(
            request.model_copy(update={"folder": absolute_keeping_links(folder)}).model_dump_json()
        )
        try:
            self._agents(meeting, {KEY: key}, folder / LOG, stop)
        except OSError as error:
            message = f"the agents on the nodes can't be started: {error}"
            return launcher.ended_as("failed", RunError(kind=type(error).__name__, message=message))
        if stop.requested and read_model(folder / OUTCOME, Outcome) is None:
            return launcher.ended_as(
                "interrupted", RunError(kind="Interrupted", message=INTERRUPTED)
            )
        lines = [line.strip() for line in end_of(folder / LOG).splitlines() if line.strip()]
        telling = [
            line for line in lines if line.startswith("hpml-bench:")
        ]  # an agent's own message
        telling += [*(line for line in lines if "error" in line.lower()), *lines[-1:], ""]
        cause = shortened(telling[0], 300)
        end = merged(self._reports(meeting), meeting.texts("host", self.count), self.count, cause)
        return launcher.outcome_of(folder, end)

    def _reports(self, meeting: Meeting) -> list[Report]:
        return [
            Report.model_validate_json(text)
            for text in meeting.texts("report", self.count).values()
        ]

    def _agents(
        self, meeting: Meeting, variables: Mapping[str, str], log: Path, stop: Stop
    ) -> None:
        """Run the agents; ask them to end after a signal, a late start, or a failure that leaves
        some running.
        """
        words = (f"{meeting.host}:{meeting.port}", str(self.count))
        command = [sys.executable, *child.module("hpml_bench.launch.agent", *words)]
        with log.open("wb") as printed:
            # in a session of its own: Ctrl-C in the terminal reaches this process alone
            step = subprocess.Popen(  # noqa: S603 - the engine's command
                self._on_each_node(command),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        began, failed_at, asked_at = time.monotonic(), float("inf"), float("inf")
        try:
            while step.poll() is None:
                now = time.monotonic()
                if failed_at > now and any(report.end for report in self._reports(meeting)):
                    failed_at = now
                late = (
                    now - began > START_SECONDS
                    and len(meeting.texts("host", self.count)) < self.count
                )
                if asked_at > now and (stop.requested or late or now - failed_at > OTHERS_SECONDS):
                    meeting.end()
                    asked_at = now
                if now - asked_at > END_SECONDS:
                    return
                time.sleep(POLL_SECONDS)
        finally:
            if step.poll() is None:
                os.killpg(step.pid, signal.SIGKILL)
                step.wait()


def main(address: str, count: int) -> int:
    """Run this node's ranks, of a run over `count` nodes, and return the exit status."""
    host, _, port = address.rpartition(":")
    key = os.environ.pop(KEY, "")  # before anything inherits it
    with suppress(OSError, KeyError):
        Path(os.environ["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    # first: it ends with this process, whatever ends it, and the ranks with it
    fork_server.start_fork_server()
    from hpml_bench.launch.meeting import Meeting

    meeting, number = Meeting(host, key, int(port)), environment.node_number()
    with stoppable() as stop, stop.deferred():
        parent = (Meeting(host, key, int(port)), stop)
        threading.Thread(target=_exit_with_parent, args=parent, name="parent", daemon=True).start()
        well = _run(meeting, number, count, stop)
    processes.end_fork_server()
    return 0 if well else 1


def _run(meeting: Meeting, number: int, count: int, stop: Stop) -> bool:
    """Run this node's ranks as the parent asks, and report how they ended; return whether well."""
    request, name = RunRequest.model_validate_json(meeting.request()), socket.gethostname()
    check_folder(request.folder)
    descriptors.allow(request.spec.settings.world_size or 1)
    # until the fork server has imported everything, which takes longer than a launch and is no part
    # of it
    fork_server.run(os.getpid, ())
    meeting.put("host", number, name)
    _wait(lambda: len(meeting.texts("host", count)) == count or stop.requested)

    def late() -> None:
        """Wait for the other nodes: when the first one kills its ranks, theirs fail and can't
        report where they are.
        """
        meeting.put("late", number)
        _wait(lambda: len(meeting.texts("late", count)) == count, REPORT_SECONDS)

    nodes = Nodes(count, number, meeting.host, meeting.port)
    with tempfile.TemporaryDirectory(dir=temporary.folder()) as beats:
        end = launcher.watched(request, stop, nodes, Path(beats), late)
    meeting.put("report", number, Report(node=number, host=name, end=end).model_dump_json())
    if end and priority_of(end) not in {CausePriority.KILLED, CausePriority.OWN}:
        # another node's report may show the cause better
        _wait(lambda: len(meeting.texts("report", count)) == count, REPORT_SECONDS)
    return end is None


def check_folder(folder: Path) -> None:
    """Raise UserError on a folder without the file that the run's parent wrote there before it
    started the agents.
    """
    _wait((folder / LOG).is_file, FOLDER_SECONDS)
    if not (folder / LOG).is_file():
        raise UserError(
            f"{folder}: on {socket.gethostname()} this is not the folder of the run; give an --out "
            "that all nodes share, under one path"
        )


def _exit_with_parent(meeting: Meeting, stop: Stop) -> None:
    """When the parent says stop or is gone: ask the ranks to end, then exit hard (a wait in C++
    ignores signals).
    """
    meeting.await_end()
    stop.requested = True
    time.sleep(LEAVE_SECONDS)
    os._exit(1)


def _wait(condition: Callable[[], bool], seconds: float = float("inf")) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(AGENT_POLL_SECONDS)


# Reports of the agents, and the one cause of a failure


class CausePriority(IntEnum):
    """Priority of a node's failure as the run's cause, from the cause itself to mere
    consequences.
    """

    KILLED = 0  # a rank, or the fork server, was ended by a signal
    WATCHED = 1  # the watchdog ended it: a stall or a time limit
    OWN = 2  # a rank failed by itself
    LOST = 3  # there is no report
    PEER = 4  # a rank, or the launcher, lost its peers
    ASKED = 5  # the ranks were ended on request


class Report(Frozen):
    """End of a node's ranks; None where they ended well."""

    node: int
    host: str
    end: End | None = None


def priority_of(end: End) -> CausePriority:
    status, error = end
    if status == "interrupted":
        return CausePriority.ASKED
    if status == "killed" or error.kind in {"SIGKILL", "ForkServer"}:
        return CausePriority.KILLED
    if status == "timeout":
        return CausePriority.WATCHED
    return (
        CausePriority.PEER
        if error.kind.startswith("Dist") or lost_peer(error.message)
        else CausePriority.OWN
    )


def merged(
    reports: Sequence[Report], hosts: Mapping[int, str], count: int, words: str = ""
) -> End | None:
    """Return status and cause of a run from what its nodes reported; None where all ended well.

    `hosts`: host of each node whose agent had begun; `words`: message of the agents' starter.
    """
    bad = [
        (priority_of(report.end), report.node, report.host, report.end)
        for report in reports
        if report.end
    ]
    for number in sorted(set(range(count)) - {report.node for report in reports}):
        name = (
            f"node {number} ({hosts[number]})"
            if number in hosts
            else f"node {number}, whose agent had not begun"
        )
        message = f"no report from {name}: its agent or the node was lost" + (
            f" ({words})" if words else ""
        )
        bad.append(
            (CausePriority.LOST, number, "", ("killed", RunError(kind="NoReport", message=message)))
        )
    if not bad:
        return None
    priority, node, host, (status, error) = min(bad, key=lambda one: one[:2])
    if priority is CausePriority.ASKED:
        message = "the agents on the nodes were asked to end, and not by this job"
        return "killed", RunError(kind="Step", message=message)
    if (
        priority is CausePriority.WATCHED
    ):  # one error for the nodes whose watchdogs ended their ranks, with all stacks
        stalled = [(f"node {at} ({of})", own) for kind, at, of, (_, own) in bad if kind is priority]
        return status, RunError(
            kind=error.kind,
            message="; ".join(f"{name}: {own.message}" for name, own in stalled),
            rank=min((own.rank for _, own in stalled if own.rank is not None), default=None),
            traceback="\n\n".join(
                f"{name}, {own.traceback}" for name, own in stalled if own.traceback
            )
            or None,
        )
    place = "" if priority is CausePriority.LOST else f" (on node {node}, {host})"
    return status, error.model_copy(update={"message": f"{error.message}{place}"})


if __name__ == "__main__":
    try:
        code = main(sys.argv[1], int(sys.argv[2]))
    except UserError as error:
        print(f"hpml-bench: {error}", file=sys.stderr)
        code = 2
    temporary.remove()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread waits in C++
