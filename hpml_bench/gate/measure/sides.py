"""Sides of a comparison: their installations, and their residents as the parent sees them."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Self

from hpml_bench.gate.records import PROTOCOL, Mode, Side
from hpml_bench.suite.settings import Settings
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError

MODULE = "hpml_bench.gate.resident"

Key = tuple[str, str]


def versions(described: Mapping[str, Any]) -> dict[str, str]:
    """Return the packages' versions from a result of `environment.describe`."""
    return {name: version for name, version in described.get("packages", {}).items() if version}


class Incomparable(Exception):  # noqa: N818 - a finding: the verdict is INCOMPARABLE
    """The two sides can't be compared; the reason, in one sentence."""


class OutOfTime(UserError):  # noqa: N818 - what it says is its name
    """The time given is up: a side didn't answer before, or a pair can't be completed."""


@dataclass(frozen=True)
class Installation:
    """An interpreter, and the folder (if any) in front of its installed packages."""

    label: str
    python: str
    path: Path | None = None
    revision: str | None = None
    dirty: bool = False
    """See `Side`."""

    @property
    def key(self) -> Key:
        """Identity of the installation, whatever its label."""
        return self.python, str(self.path)

    def side(self, described: Mapping[str, Any]) -> Side:
        """Return its record, with the packages' versions from a result of `environment.describe`."""
        return Side(
            label=self.label, revision=self.revision, dirty=self.dirty, python=self.python, versions=versions(described)
        )

    def variables(self) -> dict[str, str]:
        """Return the environment in which its processes start: allocator and threads are the same for both sides."""
        variables = {**environment.PROCESS_ENVIRONMENT, **os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        variables.pop("PYTHONPATH", None)
        if self.path is not None:
            variables["PYTHONPATH"] = str(self.path)
        return variables


@dataclass(frozen=True)
class ComparedSides:
    """The two sides of a comparison."""

    mode: Mode
    reference: Installation
    candidate: Installation
    notes: tuple[str, ...] = ()


def settings_message(settings: Settings) -> dict[str, Any]:
    """Return settings in the form that both sides read.

    Defaults are left out: they are each side's own, and a key that a version doesn't know is refused; but `max_length`,
    whose default follows the task in some versions.
    """
    return settings.model_dump(mode="json", exclude_defaults=True) | {"max_length": settings.max_length}


class ResidentProcess:
    """A resident of an installation, alive between `with` and its end."""

    def __init__(self, installation: Installation, deadline: float | None = None) -> None:
        self.installation = installation
        self._deadline = deadline  # of `time.monotonic`; an answer is not waited for any longer

    def __enter__(self) -> Self:
        """Start it; its greeting is read before its first answer."""
        self._stack = ExitStack()
        self._log = self._stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hpml-bench-side-"))
        try:
            self._process = subprocess.Popen(  # noqa: S603
                # -P: no module of the working folder precedes the installed ones
                [self.installation.python, "-P", "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=self.installation.variables(),
                cwd=folder,
                start_new_session=True,  # a group of its own, to be ended with what it started
            )
        except OSError as error:
            self._stack.close()
            raise UserError(f"{self.installation.python}: can't be started ({error.strerror})") from None
        self.pid = self._process.pid
        self._greeted = False
        self._unread = b""
        return self

    def __exit__(self, *_: object) -> None:
        """End it and its children, and wait for its end."""
        try:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    with suppress(BrokenPipeError):  # a request to a dead process is flushed once more
                        pipe.close()
        finally:
            self._stack.close()

    def call(self, what: str, **arguments: Any) -> Any:
        """Send a request and wait for its result."""
        self.send(what, **arguments)
        return self.receive()

    def send(self, what: str, **arguments: Any) -> None:
        """Send a request, so that both sides can work on theirs at once."""
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):  # `receive` says why
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()

    def receive(self) -> Any:
        """Wait for the result of the request sent.

        `Incomparable` where there is no resident of our protocol in that installation, `OutOfTime` where the deadline
        came before the answer, any other `UserError` where it answers with an error, or died.
        """
        if not self._greeted:
            self._greet()
        answer = self._line()
        if "error" in answer:
            detail = f"\n{self._last_words()}" if answer.get("bug") else ""
            raise UserError(f"{self.installation.label}: {answer['error']}{detail}")
        return answer["result"]

    def _greet(self) -> None:
        try:
            protocol = self._line()["protocol"]
        except UserError:
            if re.search(r"No module named '?hpml_bench(\.gate(\.resident)?)?\b(?!\.)", self._last_words()):
                raise Incomparable(
                    f"{self.installation.label} has no {MODULE}: it is older than the gate, or hpml-bench is not "
                    f"installed in {self.installation.python}"
                ) from None
            raise
        if protocol != PROTOCOL:
            raise Incomparable(f"{self.installation.label} speaks protocol {protocol} of the gate, this one {PROTOCOL}")
        self._greeted = True

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            self._unread += self._read()
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read(self) -> bytes:
        """Return its output as soon as there is some."""
        assert self._process.stdout is not None  # noqa: S101
        poll = select.poll()  # without a file's buffer, whose content poll doesn't see
        poll.register(self._process.stdout, select.POLLIN)
        left = None if self._deadline is None else max(0.0, self._deadline - monotonic()) * 1000
        if not poll.poll(left):
            label = self.installation.label
            raise OutOfTime(f"{label}: did not answer before the time was up; give --max-minutes more")
        output = os.read(self._process.stdout.fileno(), 65536)
        if not output:
            status = self._process.wait()
            raise UserError(
                f"{self.installation.label}: its process ended with status {status}: "
                f"{self._last_words() or 'it printed nothing'}"
            )
        return output

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1][:500] if lines else ""
