"""Agent of a run on one of its nodes: `python -m hpml_bench.launch.agent HOST:PORT`, started once on each node.

It runs the node's ranks under a watchdog of its own, reports to the parent's store how they ended, and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.launch import fork_server, launcher, outcome
from hpml_bench.launch.nodes import KEY, LOG, Nodes, Report
from hpml_bench.system import job, processes, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.signals import Stop, stoppable

if TYPE_CHECKING:
    from hpml_bench.launch.meeting import Meeting, NodeRequest

POLL_SECONDS = 0.05
OTHERS_SECONDS = 5.0
"""Seconds that an agent whose ranks failed waits for the others' reports: its end makes the engine end theirs."""
FOLDER_SECONDS = 10.0
"""Seconds that a file of another host may take to appear here: NFS clients cache a folder's content."""
LEAVE_SECONDS = 15.0
"""Seconds after which an agent that was asked to end does so, whatever it waits for."""


def main(address: str) -> int:
    """Run this node's ranks and return the exit status."""
    host, _, port = address.rpartition(":")
    key = os.environ.pop(KEY, "")  # before anything inherits it
    with suppress(OSError, KeyError):
        Path(os.environ["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    fork_server.start_fork_server()  # first: it ends with this process, whatever ends it, and the ranks with it
    from hpml_bench.launch.meeting import Meeting

    meeting, number = Meeting(host, key, int(port)), job.node_number()
    with stoppable() as stop, stop.deferred():
        threading.Thread(target=_leash, args=(Meeting(host, key, int(port)), stop), name="leash", daemon=True).start()
        report = _run(meeting, number, stop)
    processes.end_fork_server()
    return 0 if report.well else 1


def _run(meeting: Meeting, number: int, stop: Stop) -> Report:
    """Run the ranks when all nodes are there, and report."""
    request, name = meeting.request(), socket.gethostname()
    check_folder(request.run.folder)
    _await_fork_server()
    meeting.arrive(number, name)
    _wait(lambda: len(meeting.hosts(request.nodes)) == request.nodes or stop.requested)
    with tempfile.TemporaryDirectory(dir=temporary.folder()) as beats:
        report = _ended(meeting, request, number, name, stop, Path(beats))
    meeting.report(report)
    if not report.decisive:
        _wait(lambda: len(meeting.reports(request.nodes)) == request.nodes, OTHERS_SECONDS)
    return report


def check_folder(folder: Path) -> None:
    """Raise UserError on a folder without the file that the run's parent wrote there before it started the agents."""
    _wait((folder / LOG).is_file, FOLDER_SECONDS)
    if not (folder / LOG).is_file():
        raise UserError(
            f"{folder}: on {socket.gethostname()} this is not the folder of the run; give an --out that all nodes "
            "share, under one path"
        )


def _await_fork_server() -> None:
    """Wait until the fork server has imported everything, which takes longer than a launch and is no part of it."""
    first = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    with temporary.as_temporary():
        first.start()
    first.join()


def _ended(meeting: Meeting, request: NodeRequest, number: int, name: str, stop: Stop, beats: Path) -> Report:
    """Run the ranks of this node and return how they ended."""
    nodes, run = Nodes(request.nodes, number, meeting.host, meeting.port, run_id="run"), request.run

    def late() -> None:
        """Wait for the other nodes: when the first one kills its ranks, theirs fail and can't report where they are."""
        meeting.late(number)
        _wait(lambda: meeting.all_late(request.nodes), OTHERS_SECONDS)

    evidence = launcher.watched(run, stop, nodes, beats, late)
    if evidence.well:
        return Report(node=number, host=name)
    ranks = nodes.ranks(run.spec.settings.world_size or 1)
    status, error = evidence.verdict or outcome.cause(run.folder, evidence, ranks)
    return Report(node=number, host=name, status=status, error=error)


def _leash(meeting: Meeting, stop: Stop) -> None:
    """End the ranks when the parent asks for it or has ended; a wait in C++ ignores signals, so end this process."""
    meeting.await_end()
    stop.requested = True
    time.sleep(LEAVE_SECONDS)
    os._exit(1)


def _wait(condition: Callable[[], bool], seconds: float = float("inf")) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1])
    except UserError as error:
        print(f"hpml-bench: {error}", file=sys.stderr)
        code = 2
    temporary.remove()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread waits in C++
