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
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

from hpml_bench.gate.measure.sides import ComparedSides, Installation
from hpml_bench.suite import registry
from hpml_bench.system import child
from hpml_bench.system.cache import cache_folder, locked, new_entry
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest

OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps")
INSTALL_SECONDS = 600
Plugins = Collection[tuple[registry.Kind, str]]
"""Kind and name of each plug-in."""


def against_revision(revision: str, folder: Path, plugins: Plugins) -> ComparedSides:
    """Install a revision of the project around `folder`, and its working tree as it is, changes included.

    A `UserError` where there is no git, repository, commit or project, pip can't install it, or the check, which runs
    these plug-ins, would run none of it.
    """
    top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
    commit = _commit(top, revision)
    head = _git(top, "rev-parse", "HEAD").decode().strip()
    dirty = bool(_git(top, "status", "--porcelain"))
    note = ("the working tree was measured as it is, with changes that are in no commit",) if dirty else ()
    reference = _installation(revision, lambda target: _extract(top, commit, target), plugins)
    candidate = _installation("working tree", lambda target: _copy(top, target), plugins)
    return ComparedSides(
        "revision", replace(reference, revision=commit), replace(candidate, revision=head, dirty=dirty), note
    )


def against_environment(python: str) -> ComparedSides:
    """Compare this interpreter and what is installed for it with another one, the reference, which must exist."""
    interpreter = shutil.which(python)
    if interpreter is None:
        raise UserError(f"--against-env {python}: there is no such interpreter; give the path of another python")
    other = str(Path(interpreter).absolute())  # not resolved: a virtual environment is known by its link
    return ComparedSides("environment", Installation(python, other), Installation("this interpreter", sys.executable))


def _git(folder: Path, *arguments: str) -> bytes:
    """Return what git prints."""
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
    """Return the commit's name; where there is none, say what to do in a shallow clone."""
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


def _extract(top: Path, commit: str, target: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(_git(top, "archive", "--format=tar", commit))) as archive:
        archive.extractall(target, filter="data")


def _copy(top: Path, target: Path) -> None:
    """Copy the files that git tracks or would: what is ignored stays out."""
    names = _git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0")
    for name in sorted(set(filter(None, names))):
        source, copy = top / os.fsdecode(name), target / os.fsdecode(name)
        if source.is_file():  # neither deleted nor a submodule
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def _installation(label: str, write_source: Callable[[Path], None], plugins: Plugins) -> Installation:
    """Return the installation of a source in a cached folder, without its dependencies.

    Both sides are installed in this one way, to paths of equal length. The key of the cache is the content of all files
    and the interpreter, so that a revision is installed once.
    """
    with tempfile.TemporaryDirectory(prefix="hpml-bench-source-") as name:
        write_source(source := Path(name))
        if not any((source / project).is_file() for project in ("pyproject.toml", "setup.py")):
            reason = "there is no pyproject.toml or setup.py at the top: no project that pip can install"
            raise UserError(f"{label}: {reason}")
        files = sorted(path for path in source.rglob("*") if path.is_file())
        content = [[str(path.relative_to(source)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
        target = cache_folder() / "revisions" / digest([content, sys.executable, sys.version], 24)
        with locked(target):
            if not target.is_dir():
                with new_entry(target) as fresh:
                    _pip(child.pip_command("install", *OPTIONS, "--target", str(fresh), str(source)), label)
    _check_part(label, target, plugins)
    return Installation(label, sys.executable, target)


def _check_part(label: str, path: Path, plugins: Plugins) -> None:
    """Refuse an installed project of which every check would pass: no harness, and no plug-in that the check runs."""
    if (path / "hpml_bench").is_dir():
        return
    points = [point for package in distributions(path=[str(path)]) for point in package.entry_points]
    groups = {f"hpml_bench.{kind}": kind for kind in registry.ONE}
    own = {(groups[point.group], point.name) for point in points if point.group in groups}
    if not own:
        raise UserError(
            f"{label}: what pip installs of it has no package hpml_bench and no entry point in a group of "
            "hpml_bench, so that nothing of it would be run and every check would pass; check hpml-bench itself or a "
            "plugin of it"
        )
    if not any(plugin in plugins and not registry.is_built_in(*plugin) for plugin in own):
        named = ", ".join(f"{registry.ONE[kind]} {name}" for kind, name in sorted(own))
        raise UserError(
            f"{label}: this check runs nothing of the project ({named}), so that it would pass whatever changed; "
            "name its methods with --methods, or a suite that uses what it has"
        )


def _pip(command: Sequence[str], label: str) -> None:
    """Run pip; where it fails, raise a UserError with its first error."""
    try:
        status, output = child.run_pip(command, INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{label}: pip took over {INSTALL_SECONDS:g} s to install it; see what its build waits for"
        ) from None
    if status:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error")] or lines or ["it printed nothing"]
        raise UserError(f"{label}: pip can't install it: {errors[0][:500]}")
