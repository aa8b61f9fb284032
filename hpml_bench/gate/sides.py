"""Sides of a comparison: a git revision and the working tree, or two interpreters; and their
residents.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import distributions
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import Any, Self

from hpml_bench.gate.records import PROTOCOL, Mode, Side
from hpml_bench.suite import registry
from hpml_bench.system import child, environment
from hpml_bench.system.cache import cache_folder, locked, new_entry
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest, shortened

MODULE = "hpml_bench.gate.resident"
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps")
INSTALL_SECONDS = 600

Plugins = Collection[tuple[registry.Kind, str]]  # kind and name of each plug-in


class Incomparable(Exception):  # noqa: N818 - a finding: the verdict is INCOMPARABLE
    """The two sides can't be compared; the reason, in one sentence."""


class OutOfTime(UserError):  # noqa: N818 - what it says is its name
    """The time given is up: a side didn't answer before, or a pair can't be completed."""


@dataclass(frozen=True)
class Installation:
    """An interpreter, and the folder (if any) in front of its installed packages: one, whatever
    it is called.
    """

    label: str = field(compare=False)
    python: str
    path: Path | None = None
    revision: str | None = field(default=None, compare=False)
    dirty: bool = field(default=False, compare=False)  # see `Side`

    def side(self, described: Mapping[str, Any]) -> Side:
        return Side(
            label=self.label,
            revision=self.revision,
            dirty=self.dirty,
            python=self.python,
            versions=versions(described),
        )

    def variables(self) -> dict[str, str]:
        """Return the environment in which its processes start: allocator and threads are the
        same for both sides.
        """
        variables = {
            **environment.PROCESS_ENVIRONMENT,
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
        }
        variables.pop("PYTHONPATH", None)
        return variables if self.path is None else variables | {"PYTHONPATH": str(self.path)}


@dataclass(frozen=True)
class ComparedSides:
    """The two sides of a comparison."""

    mode: Mode
    reference: Installation
    candidate: Installation

    @property
    def both(self) -> tuple[Installation, Installation]:
        return self.reference, self.candidate


def versions(described: Mapping[str, Any]) -> dict[str, str]:
    return {name: version for name, version in described.get("packages", {}).items() if version}


class ResidentProcess:
    """A resident of an installation, alive between `with` and its end, and killed at the
    deadline.
    """

    def __init__(self, installation: Installation, deadline: float | None = None) -> None:
        """`deadline`: of `time.monotonic`."""
        self.installation, self._deadline = installation, deadline

    def __enter__(self) -> Self:
        """Start it; its greeting is read before its first answer."""
        self._stack = ExitStack()
        self._log = self._stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hpml-bench-side-"))
        try:
            # -P: no module of the working folder precedes the installed ones; a session of its own,
            # to be ended with what it started
            self._process = subprocess.Popen(  # noqa: S603
                [self.installation.python, "-P", "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=self.installation.variables(),
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            self._stack.close()
            raise UserError(
                f"{self.installation.python}: can't be started ({error.strerror})"
            ) from None
        self.pid, self._greeted = self._process.pid, False
        self._timer = (
            None
            if self._deadline is None
            else Timer(max(0.0, self._deadline - monotonic()), self._kill)
        )
        if self._timer:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._timer:
                self._timer.cancel()
                self._timer.join()
            self._kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    with suppress(
                        BrokenPipeError
                    ):  # a request to a dead process is flushed once more
                        pipe.close()
        finally:
            self._stack.close()

    def _kill(self) -> None:
        if self._process.returncode is None:  # else its number may be another's
            self._kill_group()
            self._process.kill()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def call(self, what: str, **arguments: Any) -> Any:
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

        `Incomparable` where there is no resident of our protocol, `OutOfTime` at the deadline, any
        other `UserError` where it answers with an error, or died.
        """
        label = self.installation.label
        if not self._greeted:
            protocol = self._line()["protocol"]
            if protocol != PROTOCOL:
                raise Incomparable(
                    f"{label} speaks protocol {protocol} of the gate, this one {PROTOCOL}"
                )
            self._greeted = True
        answer = self._line()
        if "error" in answer:
            detail = f"\n{self._last_words()}" if answer.get("bug") else ""
            raise UserError(f"{label}: {answer['error']}{detail}")
        return answer["result"]

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101
        label, line = self.installation.label, self._process.stdout.readline()
        if line.endswith("\n"):  # a whole one: a side that is killed may have written half
            answer: dict[str, Any] = json.loads(line)
            return answer
        if self._deadline is not None and monotonic() >= self._deadline:
            raise OutOfTime(
                f"{label}: did not answer before the time was up; give --max-minutes more"
            )
        status, words = self._process.wait(), self._last_words() or "it printed nothing"
        # also what it started: its group keeps its number until the process is waited for
        self._kill_group()
        if re.search(r"No module named '?hpml_bench(\.gate(\.resident)?)?\b(?!\.)", words):
            why = (
                f"it is older than the gate, or hpml-bench is not installed in "
                f"{self.installation.python}"
            )
            raise Incomparable(f"{label} has no {MODULE}: {why}")
        raise UserError(f"{label}: its process ended with status {status}: {words}")

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return shortened(lines[-1], 500) if lines else ""


def against_environment(python: str) -> ComparedSides:
    """Compare this interpreter and what is installed for it with another one, the reference,
    which must exist.
    """
    interpreter = shutil.which(python)
    if interpreter is None:
        raise UserError(
            f"--against-env {python}: there is no such interpreter; give the path of another python"
        )
    other = str(
        Path(interpreter).absolute()
    )  # not resolved: a virtual environment is known by its link
    return ComparedSides(
        "environment", Installation(python, other), Installation("this interpreter", sys.executable)
    )


def against_revision(revision: str, folder: Path, plugins: Plugins) -> ComparedSides:
    """Install a revision of the project around `folder`, and its working tree as it is, changes
    included.

    A `UserError` where that can't be, or the check, which runs these plug-ins, would run none of
    it.
    """
    top = Path(_git(folder, "rev-parse", "--show-toplevel"))
    try:
        commit = _git(top, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except UserError:
        raise UserError(
            f"--against {revision}: there is no such commit in {top}; name a branch, tag or commit "
            "that git log knows, and in a shallow clone fetch it first: git fetch --unshallow, or "
            "fetch-depth: 0 in the checkout action"
        ) from None
    names = _git(
        top, "rev-parse", "HEAD", "HEAD^{tree}", f"{commit}^{{tree}}", "--git-path", "objects"
    )
    head, before, then, objects = names.split("\n")
    with tempfile.TemporaryDirectory(prefix="hpml-bench-tree-") as aside:
        # the working tree as a tree of git's, without what it ignores; its index and new objects
        # are put aside
        variables = {"GIT_INDEX_FILE": f"{aside}/index", "GIT_OBJECT_DIRECTORY": aside}
        quoted = json.dumps(str(top / objects), ensure_ascii=False)  # a path may have colons
        variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = quoted
        _git(top, "read-tree", "HEAD", **variables)
        _git(top, "add", "--all", **variables)
        now = _git(top, "write-tree", **variables)
        reference = _installation(revision, top, then, plugins, variables)
        candidate = _installation("working tree", top, now, plugins, variables)
    candidate = replace(candidate, revision=head, dirty=now != before)
    return ComparedSides("revision", replace(reference, revision=commit), candidate)


def _git(folder: Path, *arguments: str, **variables: str) -> str:
    command, given = ["git", "-C", str(folder), *arguments], os.environ | variables
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, check=False, env=given, errors="surrogateescape"
        )
    except FileNotFoundError:
        raise UserError(
            "--against: git is not installed; install it, or compare with --against-env"
        ) from None
    if done.returncode:
        said = done.stderr.strip() or f"git {arguments[0]} ended with {done.returncode}"
        named = re.search(r"^(?:error|fatal): (.*)", said, re.MULTILINE)
        reason = named[1] if named else said.splitlines()[-1]
        raise UserError(f"--against: {folder}: {reason}")
    return done.stdout.strip()


def _installation(
    label: str, top: Path, tree: str, plugins: Plugins, variables: Mapping[str, str]
) -> Installation:
    """Return the installation of a tree of git's in a cached folder, without its dependencies."""
    # Both sides are installed in this one way, to paths of equal length. The key of the cache is
    # the tree, whose name tells its content, and the interpreter, so that a revision is installed
    # once.
    target = cache_folder() / "revisions" / digest([tree, sys.executable, sys.version], 24)
    with locked(target), tempfile.TemporaryDirectory(prefix="hpml-bench-source-") as name:
        if not target.is_dir():
            source = Path(name)
            _git(top, "read-tree", tree, **variables)
            _git(top, "checkout-index", "--all", f"--prefix={source}/", **variables)
            if not any((source / project).is_file() for project in ("pyproject.toml", "setup.py")):
                raise UserError(
                    f"{label}: there is no pyproject.toml or setup.py at the top: no project that "
                    f"pip can install"
                )
            with new_entry(target) as fresh:
                _pip(
                    child.pip_command("install", *PIP_OPTIONS, "--target", str(fresh), str(source)),
                    label,
                )
    _check_part(label, target, plugins)
    return Installation(label, sys.executable, target)


def _check_part(label: str, path: Path, plugins: Plugins) -> None:
    """Refuse an installed project of which every check would pass: no harness, and no plug-in
    that the check runs.
    """
    if (path / "hpml_bench").is_dir():
        return
    points = [
        point for package in distributions(path=[str(path)]) for point in package.entry_points
    ]
    groups = {f"hpml_bench.{kind}": kind for kind in registry.ONE}
    own = {(groups[point.group], point.name) for point in points if point.group in groups}
    if not any(plugin in plugins and not registry.is_built_in(*plugin) for plugin in own):
        named = (
            ", ".join(f"{registry.ONE[kind]} {name}" for kind, name in sorted(own))
            or "no plug-in for it"
        )
        raise UserError(
            f"{label}: this check runs nothing of the project ({named}), so that it would pass "
            "whatever changed; check hpml-bench itself, or a plug-in for it with its methods as "
            "--methods or a suite that uses what it has"
        )


def _pip(command: Sequence[str], label: str) -> None:
    try:
        status, output = child.run_pip(command, INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        late = (
            f"{label}: pip took over {INSTALL_SECONDS:g} s to install it; see what its build "
            f"waits for"
        )
        raise UserError(late) from None
    if status:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        errors = (
            [line for line in lines if line.lower().startswith("error")]
            or lines
            or ["it printed nothing"]
        )
        raise UserError(f"{label}: pip can't install it: {shortened(errors[0], 500)}")
