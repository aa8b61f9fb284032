"""Run over several nodes: an agent on each, started by the engine, and the run's parent, which hosts their store.

`python -m hpml_bench.launch.agent HOST:PORT` runs a node's ranks under a watchdog of its own, reports to the parent's
store how they ended, and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.launch import fork_server, launcher
from hpml_bench.launch.nodes import KEY, LOG, Nodes, Report, merged
from hpml_bench.launch.watchdog import INTERRUPTED
from hpml_bench.records.files import OUTCOME, absolute_keeping_links, read_model
from hpml_bench.records.run import Outcome, RunError
from hpml_bench.system import child, job, network, processes, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.training.request import RunRequest

if TYPE_CHECKING:
    from hpml_bench.launch.meeting import Meeting

AGENT_POLL_SECONDS = 0.05
REPORT_SECONDS = 5.0
"""Seconds that an agent whose ranks failed waits for the others' reports: its end makes the engine end theirs."""
FOLDER_SECONDS = 10.0
"""Seconds that a file of another host may take to appear here: NFS clients cache a folder's content."""
LEAVE_SECONDS = 25.0  # seconds after which an agent that was asked to end does so, whatever it waits for
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
        meeting.give(request.model_copy(update={"folder": absolute_keeping_links(folder)}))
        try:
            self._agents(meeting, {KEY: key}, folder / LOG, stop)
        except OSError as error:
            message = f"the agents on the nodes can't be started: {error}"
            return launcher.ended_as("failed", RunError(kind=type(error).__name__, message=message))
        written = read_model(folder / OUTCOME, Outcome)
        if stop.requested and written is None:
            return launcher.ended_as("interrupted", RunError(kind="Interrupted", message=INTERRUPTED))
        cause = merged(meeting.reports(self.count), meeting.hosts(self.count), self.count, _words(folder / LOG))
        if written is not None and (cause is None or cause[0] != "timeout"):
            return written
        return launcher.ended_as(*(cause or ("failed", launcher.no_outcome())))

    def _agents(self, meeting: Meeting, variables: Mapping[str, str], log: Path, stop: Stop) -> None:
        words = (f"{meeting.host}:{meeting.port}", str(self.count))
        command = [sys.executable, *child.module("hpml_bench.launch.agent", *words)]
        with log.open("wb") as printed:
            # in a session of its own: Ctrl-C in the terminal reaches this process alone
            step = subprocess.Popen(  # noqa: S603 - the engine's command
                self._on_each_node(command), stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT,
                env={**os.environ, **variables}, start_new_session=True,
            )  # fmt: skip
        try:
            self._await(step, meeting, stop)
        finally:
            if step.poll() is None:
                os.killpg(step.pid, signal.SIGKILL)
                step.wait()

    def _await(self, step: subprocess.Popen[bytes], meeting: Meeting, stop: Stop) -> None:
        """Wait for the agents; ask them to end after a signal, a late start, or a failure that leaves some running."""
        began, failed_at, asked_at = time.monotonic(), float("inf"), float("inf")
        while step.poll() is None:
            now = time.monotonic()
            if failed_at > now and any(not report.well for report in meeting.reports(self.count)):
                failed_at = now
            late = now - began > START_SECONDS and len(meeting.hosts(self.count)) < self.count
            if asked_at > now and (stop.requested or late or now - failed_at > OTHERS_SECONDS):
                meeting.end()
                asked_at = now
            if now - asked_at > END_SECONDS:
                return
            time.sleep(POLL_SECONDS)


def _words(log: Path) -> str:
    """Return an agent's own message, else the first line with the word error, else the last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("hpml-bench:")]
    return next(iter([*own, *(line for line in lines if "error" in line.lower()), *lines[-1:]]), "")[:300]


def main(address: str, count: int) -> int:
    """Run this node's ranks, of a run over `count` nodes, and return the exit status."""
    host, _, port = address.rpartition(":")
    key = os.environ.pop(KEY, "")  # before anything inherits it
    with suppress(OSError, KeyError):
        Path(os.environ["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    fork_server.start_fork_server()  # first: it ends with this process, whatever ends it, and the ranks with it
    from hpml_bench.launch.meeting import Meeting

    meeting, number = Meeting(host, key, int(port)), job.node_number()
    with stoppable() as stop, stop.deferred():
        parent = (Meeting(host, key, int(port)), stop)
        threading.Thread(target=_exit_with_parent, args=parent, name="parent", daemon=True).start()
        report = _run(meeting, number, count, stop)
    processes.end_fork_server()
    return 0 if report.well else 1


def _run(meeting: Meeting, number: int, count: int, stop: Stop) -> Report:
    request, name = meeting.request(), socket.gethostname()
    check_folder(request.folder)
    # until the fork server has imported everything, which takes longer than a launch and is no part of it
    first = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    with temporary.as_temporary():
        first.start()
    first.join()
    meeting.arrive(number, name)
    _wait(lambda: len(meeting.hosts(count)) == count or stop.requested)
    with tempfile.TemporaryDirectory(dir=temporary.folder()) as beats:
        nodes = Nodes(count, number, meeting.host, meeting.port, run_id="run")
        report = _ended(meeting, request, nodes, name, stop, Path(beats))
    meeting.report(report)
    if not report.decisive:
        _wait(lambda: len(meeting.reports(count)) == count, REPORT_SECONDS)
    return report


def check_folder(folder: Path) -> None:
    """Raise UserError on a folder without the file that the run's parent wrote there before it started the agents."""
    _wait((folder / LOG).is_file, FOLDER_SECONDS)
    if not (folder / LOG).is_file():
        raise UserError(
            f"{folder}: on {socket.gethostname()} this is not the folder of the run; give an --out that all nodes "
            "share, under one path"
        )


def _ended(meeting: Meeting, run: RunRequest, nodes: Nodes, name: str, stop: Stop, beats: Path) -> Report:
    def late() -> None:
        """Wait for the other nodes: when the first one kills its ranks, theirs fail and can't report where they are."""
        meeting.late(nodes.number)
        _wait(lambda: meeting.all_late(nodes.count), REPORT_SECONDS)

    evidence = launcher.watched(run, stop, nodes, beats, late)
    if evidence.well:
        return Report(node=nodes.number, host=name)
    ranks = nodes.ranks(run.spec.settings.world_size or 1)
    status, error = evidence.verdict or launcher.cause(run.folder, evidence, ranks)
    return Report(node=nodes.number, host=name, status=status, error=error)


def _exit_with_parent(meeting: Meeting, stop: Stop) -> None:
    """When the parent says stop or is gone: ask the ranks to end, then exit hard (a wait in C++ ignores signals)."""
    meeting.await_end()
    stop.requested = True
    time.sleep(LEAVE_SECONDS)
    os._exit(1)


def _wait(condition: Callable[[], bool], seconds: float = float("inf")) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(AGENT_POLL_SECONDS)


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
