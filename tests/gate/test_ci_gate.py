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
    """An exported tree, a first commit, and a base from before the gate."""
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


def test_a_repository_that_git_cannot_read_is_an_error(project: Path) -> None:
    """Another user's must not pass as one that isn't there, git's advice is passed on; nor may a damaged one."""
    said = refused(gate(project, GIT_TEST_ASSUME_DIFFERENT_OWNER="1"))
    assert "dubious ownership" in said
    assert "safe.directory" in said
    (project / ".git" / "HEAD").unlink()
    assert "git can't read this repository" in refused(gate(project))


@pytest.mark.parametrize("status", [0, 1, 2])
def test_on_main_it_is_the_commit_before(project: Path, status: int) -> None:
    """With changes that are in no commit, the commit itself; the check's status is handed on."""
    assert compared_with(gate(project)) == git(project, "rev-parse", "HEAD~1")
    (project / "hpml_bench" / "new.py").touch()
    assert compared_with(gate(project)) == git(project, "rev-parse", "HEAD")
    assert gate(project, FAKE_STATUS=str(status)).returncode == status


def test_on_a_branch_it_is_where_it_left_main(project: Path) -> None:
    """What main got since counts for nothing."""
    left = git(project, "rev-parse", "HEAD")
    git(project, "switch", "-q", "-c", "branch")
    commit(project, "ours")
    git(project, "switch", "-q", "main")
    commit(project, "theirs")
    git(project, "switch", "-q", "branch")
    assert compared_with(gate(project)) == left
    assert compared_with(gate(project, GATE_BASE="branch~1")) == left


def test_clones_of_one_branch_and_shallow_ones(project: Path, tmp_path: Path) -> None:
    """Of main alone, shallow with the commit before and without it, and of a branch that knows main as the origin's."""
    main, before = git(project, "rev-parse", "HEAD"), git(project, "rev-parse", "HEAD~1")
    git(project, "branch", "branch")
    for name, options in {"one": ["--single-branch"], "two": ["--depth=2"]}.items():
        git(tmp_path, "clone", "-q", "-b", "main", *options, project.as_uri(), name)
        assert compared_with(gate(tmp_path / name)) == before
    git(tmp_path, "clone", "-q", "-b", "branch", project.as_uri(), "other")
    commit(tmp_path / "other", "ours")
    assert compared_with(gate(tmp_path / "other")) == main
    git(tmp_path, "clone", "-q", "--depth=1", project.as_uri(), "cut")
    assert "--deepen=1" in refused(gate(tmp_path / "cut"))


def test_without_main_or_a_common_commit_it_is_an_error(project: Path) -> None:
    """Neither here nor the origin's; git's status for no merge base is 1, a regression's."""
    git(project, "switch", "-q", "--orphan", "other")
    git(project, "checkout", "-q", "main", "--", ".")
    commit(project, "of its own")
    assert "no commit in common" in refused(gate(project))
    git(project, "branch", "-m", "main", "trunk")
    assert "neither main nor origin/main" in refused(gate(project))
    assert "neither nowhere nor origin/nowhere" in refused(gate(project, GATE_BASE="nowhere"))
