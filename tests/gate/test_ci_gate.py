"""The gate of this project's own continuous integration: what it compares with, and that only a check says 1."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from residents import git

GATE = Path(__file__).parents[2] / ".ci" / "gate"
FAKE = """#!/usr/bin/env bash
echo "$@"
exit "${FAKE_STATUS:-0}"
"""


def commit(folder: Path, name: str) -> str:
    """Commit an empty change; return its name."""
    git(folder, "commit", "-q", "--allow-empty", "-m", name)
    return git(folder, "rev-parse", "HEAD")


def gate(project: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the gate of a project where `hpml-bench` only says how it was called."""
    binary = project.parent / "bin" / "hpml-bench"
    binary.parent.mkdir(exist_ok=True)
    binary.write_text(FAKE)
    binary.chmod(0o755)
    # Nothing above the test's folder is a repository of it, wherever that folder lies.
    fixed = {"PATH": f"{binary.parent}:{os.environ['PATH']}", "GIT_CEILING_DIRECTORIES": str(project.parent)}
    command = [project / ".ci" / "gate"]
    return subprocess.run(
        command, env=fixed | variables, cwd=project.parent, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / ".ci").mkdir(parents=True)
    shutil.copy(GATE, project / ".ci")
    resident = project / "hpml_bench" / "gate" / "resident.py"
    resident.parent.mkdir(parents=True)
    resident.touch()
    return project


@pytest.fixture
def project(exported: Path) -> Path:
    git(exported, "init", "-q", "-b", "main")
    git(exported, "add", "-A")
    commit(exported, "first")
    commit(exported, "second")
    return exported


def compared_with(done: subprocess.CompletedProcess[str]) -> str:
    """Return the commit that `hpml-bench` was given, and see that it was to compare counts alone, not strictly."""
    assert done.returncode == 0, done.stderr
    check, against, base, counts = done.stdout.split()
    assert (check, against, counts) == ("check", "--against", "--counts-only")
    return base


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence of an error, which has status 2 and isn't git's own."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("gate: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_nothing_to_compare_with_is_no_error(exported: Path) -> None:
    """An exported tree, a first commit, and a base from before the gate; a repository without a commit is one."""
    assert gate(exported).stdout == "gate: not a git repository, nothing to compare with\n"
    git(exported, "init", "-q", "-b", "main")
    assert "no commit here" in refused(gate(exported))
    git(exported, "add", ".ci")
    commit(exported, "older")
    git(exported, "add", "-A")
    assert "is older than the gate" in gate(exported).stdout
    git(exported, "commit", "-q", "--amend", "-m", "first")
    done = gate(exported)
    assert (done.returncode, done.stdout) == (0, "gate: this is the first commit, nothing to compare with\n")


def test_what_it_compares_with(project: Path, tmp_path: Path) -> None:
    """On main the commit before, with changes the commit itself, on a branch where it left; the status is handed on."""
    main, before = git(project, "rev-parse", "HEAD"), git(project, "rev-parse", "HEAD~1")
    assert compared_with(gate(project)) == before
    (project / "hpml_bench" / "new.py").touch()
    assert compared_with(gate(project)) == main
    assert gate(project, FAKE_STATUS="1").returncode == 1
    git(tmp_path, "clone", "-q", "--depth=2", "-b", "main", project.as_uri(), "two")
    assert compared_with(gate(tmp_path / "two")) == before
    git(project, "branch", "branch")
    commit(project, "theirs")
    git(tmp_path, "clone", "-q", "-b", "branch", project.as_uri(), "other")
    commit(tmp_path / "other", "ours")
    assert compared_with(gate(tmp_path / "other")) == main
    assert compared_with(gate(tmp_path / "other", GATE_BASE="branch~1")) == main


def test_what_cannot_be_compared_is_an_error(project: Path, tmp_path: Path) -> None:
    """Another user's or a damaged repository, a clone that is too shallow, and no main or common commit."""
    said = refused(gate(project, GIT_TEST_ASSUME_DIFFERENT_OWNER="1"))
    assert "dubious ownership" in said
    assert "safe.directory" in said
    git(tmp_path, "clone", "-q", "--depth=1", project.as_uri(), "cut")
    assert "--deepen=1" in refused(gate(tmp_path / "cut"))
    git(project, "switch", "-q", "--orphan", "other")
    git(project, "checkout", "-q", "main", "--", ".")
    commit(project, "of its own")
    assert "no commit in common" in refused(gate(project))
    git(project, "branch", "-m", "main", "trunk")
    assert "neither main nor origin/main" in refused(gate(project))
    (project / ".git" / "HEAD").unlink()
    assert "git can't read this repository" in refused(gate(project))
