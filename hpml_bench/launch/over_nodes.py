"""Ranks of a run over several nodes: an agent on each, started by the engine; the store they share is hosted here."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.launch import outcome
from hpml_bench.launch.nodes import KEY, LOG, merged
from hpml_bench.launch.watchdog import INTERRUPTED
from hpml_bench.records.files import OUTCOME, absolute_keeping_links, read_model
from hpml_bench.records.run import Outcome, RunError
from hpml_bench.system import child, network
from hpml_bench.system.signals import Stop
from hpml_bench.training.request import RunRequest

if TYPE_CHECKING:
    from hpml_bench.launch.meeting import Meeting

POLL_SECONDS = 0.2
START_SECONDS = 600.0
"""Seconds within which all agents must have begun."""
OTHERS_SECONDS = 10.0
"""Seconds that the engine may take to end the agents after one has failed."""
END_SECONDS = 30.0
"""Seconds that agents may take to end on request."""


class OverNodes:
    """Runs a run's ranks on several nodes."""

    def __init__(self, count: int, on_each_node: Callable[[list[str]], list[str]]) -> None:
        """Keep the number of nodes, and the engine's function that makes a command one that runs it on each, once."""
        self.count, self._on_each_node = count, on_each_node

    def __call__(self, request: RunRequest, stop: Stop) -> Outcome:
        """Run the ranks until all have ended; return the outcome."""
        from hpml_bench.launch.meeting import Meeting, NodeRequest

        key, folder = secrets.token_hex(32), request.folder
        meeting = Meeting(network.own_address(), key)
        meeting.give(
            NodeRequest(run=request.model_copy(update={"folder": absolute_keeping_links(folder)}), nodes=self.count)
        )
        try:
            self._agents(meeting, {KEY: key}, folder / LOG, stop)
        except OSError as error:
            message = f"the agents on the nodes can't be started: {error}"
            return outcome.ended_as("failed", RunError(kind=type(error).__name__, message=message))
        written = read_model(folder / OUTCOME, Outcome)
        if stop.requested and written is None:
            return outcome.ended_as("interrupted", RunError(kind="Interrupted", message=INTERRUPTED))
        cause = merged(meeting.reports(self.count), meeting.hosts(self.count), self.count, _words(folder / LOG))
        if written is not None and (cause is None or cause[0] != "timeout"):
            return written
        return outcome.ended_as(*(cause or ("failed", outcome.no_outcome())))

    def _agents(self, meeting: Meeting, variables: Mapping[str, str], log: Path, stop: Stop) -> None:
        """Run the agents, with more variables in their environment, until all have ended."""
        command = [sys.executable, *child.module("hpml_bench.launch.agent", f"{meeting.host}:{meeting.port}")]
        with log.open("wb") as printed:
            step = subprocess.Popen(  # noqa: S603 - the engine's command
                self._on_each_node(command),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                start_new_session=True,  # Ctrl-C in the terminal reaches this process alone
            )
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
