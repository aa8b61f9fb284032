"""The gate of this project's own continuous integration: what it compares with, and that only a check says 1."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

GATE = Path(__file__).parents[2] / ".ci" / "gate"
FAKE = """#!/usr/bin/env bash
echo "$@"
exit "${FAKE_STATUS:-0}"
"""


def git(folder: Path, *arguments: str) -> str:
    """Run git in a repository of the test's own."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


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
    """Return a tree with the gate in it, without git."""
    project = tmp_path / "project"
    (project / ".ci").mkdir(parents=True)
    shutil.copy(GATE, project / ".ci")
    resident = project / "hpml_bench" / "gate" / "resident.py"
    resident.parent.mkdir(parents=True)
    resident.touch()
    return project


@pytest.fixture
def project_on_main(exported: Path) -> Path:
    """Return a repository on main with two commits."""
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


def test_an_exported_tree_has_nothing_to_compare_with(exported: Path) -> None:
    """That is no error: source archives are tested too."""
    done = gate(exported)
    assert (done.returncode, done.stdout) == (0, "gate: not a git repository, nothing to compare with\n")


def test_a_repository_that_git_refuses_is_an_error(project_on_main: Path) -> None:
    """Another user's: it must not pass as one that isn't there; git's advice is passed on."""
    said = refused(gate(project_on_main, GIT_TEST_ASSUME_DIFFERENT_OWNER="1"))
    assert "dubious ownership" in said
    assert "safe.directory" in said


def test_a_damaged_repository_is_an_error(project_on_main: Path) -> None:
    """There is a .git, and git can't read it."""
    (project_on_main / ".git" / "HEAD").unlink()
    assert "git can't read this repository" in refused(gate(project_on_main))


def test_on_main_it_is_the_commit_before(project_on_main: Path) -> None:
    """With changes that are in no commit, the commit itself."""
    assert compared_with(gate(project_on_main)) == git(project_on_main, "rev-parse", "HEAD~1")
    (project_on_main / "hpml_bench" / "new.py").touch()
    assert compared_with(gate(project_on_main)) == git(project_on_main, "rev-parse", "HEAD")


def test_on_a_branch_it_is_where_it_left_main(project_on_main: Path) -> None:
    """What main got since counts for nothing."""
    left = git(project_on_main, "rev-parse", "HEAD")
    git(project_on_main, "switch", "-q", "-c", "branch")
    commit(project_on_main, "ours")
    git(project_on_main, "switch", "-q", "main")
    commit(project_on_main, "theirs")
    git(project_on_main, "switch", "-q", "branch")
    assert compared_with(gate(project_on_main)) == left
    assert compared_with(gate(project_on_main, GATE_BASE="branch~1")) == left


def test_clones_of_one_branch_and_shallow_ones(project_on_main: Path, tmp_path: Path) -> None:
    """Of main alone, shallow with the commit before, and of a branch where main is known as the origin's."""
    main, before = git(project_on_main, "rev-parse", "HEAD"), git(project_on_main, "rev-parse", "HEAD~1")
    git(project_on_main, "branch", "branch")
    for name, options in {"one": ["--single-branch"], "two": ["--depth=2"]}.items():
        git(tmp_path, "clone", "-q", "-b", "main", *options, project_on_main.as_uri(), name)
        assert compared_with(gate(tmp_path / name)) == before
    git(tmp_path, "clone", "-q", "-b", "branch", project_on_main.as_uri(), "other")
    commit(tmp_path / "other", "ours")
    assert compared_with(gate(tmp_path / "other")) == main


def test_a_shallow_clone_without_the_commit_before_is_an_error(project_on_main: Path, tmp_path: Path) -> None:
    """It isn't the first commit, though git shows no parent of it."""
    git(tmp_path, "clone", "-q", "--depth=1", project_on_main.as_uri(), "one")
    assert "--deepen=1" in refused(gate(tmp_path / "one"))


def test_the_first_commit_has_nothing_to_compare_with(project_on_main: Path) -> None:
    """Clean, it is no error; before it there is nothing to check either, which is one."""
    git(project_on_main, "reset", "-q", "--hard", "HEAD~1")
    done = gate(project_on_main)
    assert (done.returncode, done.stdout) == (0, "gate: this is the first commit, nothing to compare with\n")
    git(project_on_main, "update-ref", "-d", "HEAD")
    assert "no commit here" in refused(gate(project_on_main))


def test_without_main_it_is_an_error(project_on_main: Path) -> None:
    """Neither here nor the origin's; what to do is said."""
    git(project_on_main, "branch", "-m", "main", "trunk")
    assert "neither main nor origin/main" in refused(gate(project_on_main))
    assert "neither nowhere nor origin/nowhere" in refused(gate(project_on_main, GATE_BASE="nowhere"))


def test_without_a_common_commit_it_is_an_error(project_on_main: Path) -> None:
    """Git's status for that is 1, a regression's."""
    git(project_on_main, "switch", "-q", "--orphan", "other")
    git(project_on_main, "checkout", "-q", "main", "--", ".")
    commit(project_on_main, "of its own")
    assert "no commit in common" in refused(gate(project_on_main))


def test_a_base_older_than_the_gate_has_nothing_to_compare(project_on_main: Path) -> None:
    """It has no resident that could be asked."""
    git(project_on_main, "rm", "-q", "--cached", "-r", "hpml_bench")
    commit(project_on_main, "older")
    git(project_on_main, "add", "-A")
    commit(project_on_main, "the gate")
    done = gate(project_on_main)
    assert (done.returncode, "is older than the gate" in done.stdout) == (0, True)


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_check_s_status_is_handed_on(project_on_main: Path, status: int) -> None:
    """A regression is 1 here too."""
    assert gate(project_on_main, FAKE_STATUS=str(status)).returncode == status
