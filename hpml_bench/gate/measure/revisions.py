"""Installations of the compared sides: a git revision and the working tree, or two interpreters."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

from hpml_bench import registry
from hpml_bench.errors import UserError
from hpml_bench.gate.measure.sides import ComparedSides, Installation
from hpml_bench.gate.records import Side
from hpml_bench.system import pip
from hpml_bench.system.cache import cache_folder, locked, new_entry
from hpml_bench.system.hashing import digest

OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps")
INSTALL_SECONDS = 600
WORKING_TREE = "working tree"
Plugins = Collection[tuple[registry.Kind, str]]
"""Kind and name of each plug-in."""


def against_revision(revision: str, folder: Path, plugins: Plugins) -> ComparedSides:
    """Install a revision of the project in `folder` and its working tree as it is, changes included.

    Args:
        revision: a name that git knows of a commit.
        folder: any folder of the repository.
        plugins: kind and name of the plug-ins that the check runs.

    Raises:
        UserError: there is no git, repository, commit or project, pip can't install it, or the check would run none of
            it.

    """
    top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
    commit = _commit(top, revision)
    head = _git(top, "rev-parse", "HEAD").decode().strip()
    dirty = bool(_git(top, "status", "--porcelain"))
    with _archived(top, commit) as source:
        reference = Installation(revision, sys.executable, _installed(source, revision))
    _check_part(reference, plugins)
    with _copied(top) as source:
        candidate = Installation(WORKING_TREE, sys.executable, _installed(source, WORKING_TREE))
    _check_part(candidate, plugins)
    note = ("the working tree was measured as it is, with changes that are in no commit",) if dirty else ()
    sides = (
        Side(label=revision, revision=commit, python=sys.executable),
        Side(label=WORKING_TREE, revision=head, dirty=dirty, python=sys.executable),
    )
    return ComparedSides("revision", reference, candidate, sides, note)


def against_environment(python: str) -> ComparedSides:
    """Compare this interpreter and what is installed for it with another one, the reference.

    Raises:
        UserError: there is no such interpreter.

    """
    interpreter = shutil.which(python)
    if interpreter is None:
        raise UserError(f"--against-env {python}: there is no such interpreter; give the path of another python")
    other = str(Path(interpreter).absolute())  # not resolved: a virtual environment is known by its link
    return ComparedSides(
        "environment",
        Installation(python, other),
        Installation("this interpreter", sys.executable),
        (Side(label=python, python=other), Side(label="this interpreter", python=sys.executable)),
    )


def _git(folder: Path, *arguments: str) -> bytes:
    """Return what git prints.

    Raises:
        UserError: git is missing, or fails.

    """
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        raise UserError("--against: git is not installed; install it, or compare with --against-env") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1].removeprefix("fatal: ") if lines else f"git {arguments[0]} ended with {done.returncode}"
        raise UserError(f"--against: {folder}: {reason}")
    return done.stdout


def _commit(top: Path, revision: str) -> str:
    """Return the commit's name.

    Raises:
        UserError: there is none, with what to do in a shallow clone.

    """
    try:
        return _git(top, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    except UserError:
        shallow = _git(top, "rev-parse", "--is-shallow-repository").strip() == b"true"
    advice = (
        "the clone is shallow: fetch it with git fetch --unshallow, or fetch-depth: 0 in the checkout action"
        if shallow
        else "name a branch, tag or commit that git log knows"
    )
    raise UserError(f"--against {revision}: there is no such commit in {top}; {advice}") from None


@contextmanager
def _archived(top: Path, commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hpml-bench-source-") as name:
        with tarfile.open(fileobj=io.BytesIO(_git(top, "archive", "--format=tar", commit))) as archive:
            archive.extractall(name, filter="data")
        yield Path(name)


@contextmanager
def _copied(top: Path) -> Iterator[Path]:
    """Yield a copy of the files that git tracks or would: what is ignored stays out."""
    names = _git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0")
    with tempfile.TemporaryDirectory(prefix="hpml-bench-source-") as target:
        for name in sorted(set(filter(None, names))):
            source = top / os.fsdecode(name)
            if source.is_file():  # neither deleted nor a submodule
                copy = Path(target) / os.fsdecode(name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)
        yield Path(target)


def _installed(source: Path, label: str) -> Path:
    """Return a cached folder into which this source is installed, without its dependencies.

    Both sides are installed in this one way, to paths of equal length. The key of the cache is the content of all files
    and the interpreter, so that a revision is installed once.
    """
    if not any((source / name).is_file() for name in ("pyproject.toml", "setup.py")):
        raise UserError(f"{label}: there is no pyproject.toml or setup.py at the top: no project that pip can install")
    files = sorted(path for path in source.rglob("*") if path.is_file())
    content = [[str(path.relative_to(source)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
    target = cache_folder() / "revisions" / digest([content, sys.executable, sys.version], 24)
    with locked(target):
        if not target.is_dir():
            with new_entry(target) as fresh:
                _pip(pip.command("install", *OPTIONS, "--target", str(fresh), str(source)), label)
    return target


def _check_part(side: Installation, plugins: Plugins) -> None:
    """Refuse an installed project that is neither the harness nor has a plug-in that the check runs.

    Raises:
        UserError: every check of it would pass; names its plug-ins.

    """
    assert side.path is not None  # noqa: S101 - it was installed into a folder
    if (side.path / "hpml_bench").is_dir():
        return
    points = [point for package in distributions(path=[str(side.path)]) for point in package.entry_points]
    groups = {f"hpml_bench.{kind}": kind for kind in registry.ONE}
    own = {(groups[point.group], point.name) for point in points if point.group in groups}
    if not own:
        raise UserError(
            f"{side.label}: what pip installs of it has no package hpml_bench and no entry point in a group of "
            "hpml_bench, so that nothing of it would be run and every check would pass; check hpml-bench itself or a "
            "plugin of it"
        )
    if not any(plugin in plugins and not registry.is_built_in(*plugin) for plugin in own):
        named = ", ".join(f"{registry.ONE[kind]} {name}" for kind, name in sorted(own))
        raise UserError(
            f"{side.label}: this check runs nothing of the project ({named}), so that it would pass whatever changed; "
            "name its methods with --methods, or a suite that uses what it has"
        )


def _pip(command: Sequence[str], label: str) -> None:
    """Run pip.

    Raises:
        UserError: it fails, with its first error, or it takes too long.

    """
    try:
        status, output = pip.run(command, INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{label}: pip took over {INSTALL_SECONDS:g} s to install it; see what its build waits for"
        ) from None
    if status:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error")] or lines or ["it printed nothing"]
        raise UserError(f"{label}: pip can't install it: {errors[0][:500]}")
