"""The GitHub action, of which nothing from a pull request is run, and the gate of this project:
what they compare.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from residents import git

from hpml_bench.cli import main

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOW: dict[Any, Any] = yaml.safe_load(
    (ROOT / ".github" / "workflows" / "check.yml").read_text()
)
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$RUNNER_TEMP/arguments"
exit "${FAKE_STATUS:-0}"
"""


def script(path: Path, text: str = FAKE) -> Path:
    """Write a script that runs; that of `hpml-bench` writes down its arguments, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def bash(
    step: str, folder: Path, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "RUNNER_TEMP": str(folder),
        "GITHUB_OUTPUT": str(folder / "output"),
    }
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEPS[step]["run"]]
    return subprocess.run(
        command,
        env=environment | variables,
        cwd=cwd or folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """Return a runner's folder in which hpml-bench writes down its arguments."""
    script(tmp_path / "hpml-bench" / "bin" / "hpml-bench")
    return tmp_path


INPUTS = {
    "AGAINST": "main",
    "SUITE": "quickstart",
    "METHODS": "",
    "MAX_MINUTES": "10",
    "STRICT": "false",
    "COUNTS_ONLY": "false",
    "OUT": "out",
}


def checked(runner: Path, **changes: str) -> list[str]:
    """Run the check's step with default inputs and these changes; return the arguments that
    hpml-bench got.
    """
    bash("Check", runner, **INPUTS | changes)
    return (runner / "arguments").read_text().splitlines()


def test_inputs_become_options_of_the_command(runner: Path) -> None:
    """The suite comes last, after `--`; no option that wasn't requested; methods, strictness and
    counts alone.

    What the script passes is what `hpml-bench check` takes.
    """
    passed = {*re.findall(r"--[a-z-]+(?= |\))", STEPS["Check"]["run"])}
    command = main.get_command(click.Context(main), "check")
    assert command
    known = {option for parameter in command.params for option in parameter.opts}
    assert passed
    assert passed <= known
    assert checked(runner) == [
        "check",
        "--against",
        "main",
        "--max-minutes",
        "10",
        "--json",
        "out/check.json",
        "--junit",
        "out/check.xml",
        "--markdown",
        "out/check.md",
        "--html",
        "out/check.html",
        "--",
        "quickstart",
    ]
    found = checked(runner, METHODS="lora,adapter", STRICT="true", COUNTS_ONLY="true")
    assert found[found.index("--methods") + 1] == "lora,adapter"
    assert {"--strict", "--counts-only"} <= {*found}


@pytest.mark.parametrize("status", [0, 3])
def test_the_status_is_handed_on(runner: Path, status: int) -> None:
    """As the step's own, and as output for later steps."""
    assert bash("Check", runner, **INPUTS, FAKE_STATUS=str(status)).returncode == status
    assert (runner / "output").read_text() == f"status={status}\n"
    # without a commit it never ran
    handed = "${{ steps.check.outputs.status || steps.reference.outputs.status }}"
    assert ACTION["outputs"]["status"]["value"] == handed
    assert [STEPS[name]["id"] for name in ("Check", "Find the commit to compare with")] == [
        "check",
        "reference",
    ]


def test_inputs_are_never_run(runner: Path) -> None:
    """Shell in an input stays one argument; no script has an expression in it that the runner
    would put text into.
    """
    evil = '"; touch pwned; echo $(touch pwned) `touch pwned`'
    found = checked(runner, METHODS=evil, SUITE=evil, AGAINST=evil, OUT="o")
    assert found.count(evil) == 3
    assert not (runner / "pwned").exists()
    assert not [name for name, step in STEPS.items() if "${{" in step["run"]]


def compared_with(clone: Path, folder: Path, base: str, **variables: str) -> str:
    """Run the step for a pull request against a base in a clone; return what the check is to
    compare with.
    """
    folder.mkdir()
    done = bash(
        "Find the commit to compare with",
        folder,
        clone,
        **{"AGAINST": "", "BASE": base} | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "output").read_text().removeprefix("against=").strip()


EMPTY, MERGE = "commit -q --allow-empty -m {}", "merge -q --no-ff -m {}"


@pytest.fixture
def pull_request(tmp_path: Path) -> dict[str, str]:
    """Return the commits of a pull request in the repository `origin`."""
    # A branch left main at `left`, has a commit `first`, merged `feature` into itself at `head`,
    # while main went on to `base`; `merge` is GitHub's own merge of both, and `pulled` that of the
    # branch with main by hand.
    origin = tmp_path / "origin"
    origin.mkdir()
    commits = {}
    for name, *commands in (
        ("root", "init -q -b main", EMPTY),
        ("left", EMPTY),
        ("feature", "switch -q -c feature", EMPTY),
        ("first", "switch -q -c branch main", EMPTY),
        ("head", f"{MERGE} feature"),
        ("base", "switch -q main", EMPTY),
        (
            "merge",
            "switch -q --detach main",
            f"{MERGE} branch",
            "update-ref refs/pull/7/merge HEAD",
        ),
        ("pulled", "switch -q -c pulled branch", f"{MERGE} main"),
    ):
        for command in commands:
            git(origin, *command.format(name).split())
        commits[name] = git(origin, "rev-parse", "HEAD")
    return commits


@pytest.fixture
def clone(tmp_path: Path, pull_request: dict[str, str]) -> Path:
    git(tmp_path, "clone", "-q", (tmp_path / "origin").as_uri(), "clone")
    git(tmp_path / "clone", "fetch", "-q", "origin", "refs/pull/*:refs/pull/*")
    return tmp_path / "clone"


def test_a_pull_request_is_compared_with_where_it_left(
    tmp_path: Path, clone: Path, pull_request: dict[str, str]
) -> None:
    """GitHub's own merge with its first parent; a branch, also one that ends in a merge, with no
    later main.
    """
    of_github = {"GITHUB_REF": "refs/pull/7/merge", "GITHUB_SHA": pull_request["merge"]}
    git(clone, "switch", "-q", "--detach", "refs/pull/7/merge")
    assert (
        compared_with(clone, tmp_path / "runner", pull_request["root"], **of_github)
        == pull_request["base"]
    )
    for commit, expected in (("head", "left"), ("pulled", "base"), ("first", "left")):
        git(clone, "switch", "-q", "--detach", pull_request[commit])
        assert (
            compared_with(clone, tmp_path / commit, pull_request["base"], **of_github)
            == pull_request[expected]
        )


def test_a_base_that_is_not_there_is_fetched(tmp_path: Path, pull_request: dict[str, str]) -> None:
    """With its history where the clone has its own; in a shallow one it is compared with as it
    is.
    """
    origin = (tmp_path / "origin").as_uri()
    git(tmp_path, "clone", "-q", "--single-branch", "-b", "branch", origin, "whole")
    assert (
        compared_with(tmp_path / "whole", tmp_path / "a", pull_request["base"])
        == pull_request["left"]
    )
    assert git(tmp_path / "whole", "rev-parse", "--is-shallow-repository") == "false"
    git(tmp_path, "clone", "-q", "--depth=1", "-b", "branch", origin, "shallow")
    shallow, base = tmp_path / "shallow", pull_request["base"]
    assert compared_with(shallow, tmp_path / "b", base) == base
    git(shallow, "fetch", "-q", "--depth=1", "origin", "refs/pull/7/merge")
    git(shallow, "switch", "-q", "--detach", pull_request["merge"])
    of_github = {"GITHUB_REF": "refs/pull/7/merge", "GITHUB_SHA": pull_request["merge"]}
    assert compared_with(shallow, tmp_path / "c", base, **of_github) == base


@pytest.mark.parametrize(
    ("against", "base", "told"),
    [
        ("100%25nowhere", "", "'100%2525nowhere' is not here and can't be fetched"),
        ("", "1" * 40, f"'{'1' * 40}' is not here and can't be fetched"),
        *((no_ref, "", "") for no_ref in ("", "--upload-pack=touch pwned", "a b", "a\nstatus=0")),
    ],
)
def test_what_is_no_ref_or_cannot_be_fetched_is_told(
    against: str, base: str, told: str, tmp_path: Path, clone: Path
) -> None:
    """As an annotation with what to do, and as status 2, for later steps too, with nothing else
    in the outputs.
    """
    done = bash("Find the commit to compare with", tmp_path, clone, AGAINST=against, BASE=base)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"::error title=hpml-bench check::{told}")
    assert ("fetch-depth: 0" in line) == bool(told)
    assert (tmp_path / "output").read_text() == "status=2\n"


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ("", []),
        ("list.txt", ["from-a-file"]),
        ("a>=1; python_version > '3'\n$(b) c", ["a>=1; python_version > '3'", "$(b) c"]),
    ],
)
def test_requirements_are_installed_with_it(runner: Path, given: str, lines: list[str]) -> None:
    """A file's or the input's own lines are pip's to read, and no shell's; without any nothing
    more is installed.
    """
    (runner / "list.txt").write_text("from-a-file\n")
    python = script(runner / "python", '#!/usr/bin/env bash\ncp "$3/bin/hpml-bench" "$3/bin/pip"\n')
    done = bash(
        "Install hpml-bench",
        runner,
        PYTHON=str(python),
        REQUIREMENTS=given,
        GITHUB_ACTION_PATH="/action",
    )
    assert done.returncode == 0, done.stderr
    install, _, file = (runner / "arguments").read_text().strip().partition("\n-r\n")
    assert install.splitlines() == ["install", "--quiet", "--disable-pip-version-check", "/action"]
    assert ((runner / file).read_text().splitlines() if file else []) == lines


def test_rights_are_read_only_and_actions_pinned() -> None:
    """The workflow runs on `pull_request` with read rights, and others' actions are named by
    commit.
    """
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert [*WORKFLOW[True]] == ["pull_request"], "YAML reads the key `on` as true"
    uses = [
        step["uses"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert "./" in uses
    assert all(re.fullmatch(r"\./|[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in uses)
    assert not [step for step in STEPS.values() if "uses" in step]
    given = next(
        step["with"] for step in WORKFLOW["jobs"]["check"]["steps"] if step.get("uses") == "./"
    )
    assert {*given} <= {*ACTION["inputs"]}


# This project's own gate: what it compares with, and that only a check says 1


def commit(folder: Path, name: str) -> str:
    """Commit an empty change; return its name."""
    git(folder, "commit", "-q", "--allow-empty", "-m", name)
    return git(folder, "rev-parse", "HEAD")


def gate(project: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the gate of a project where `hpml-bench` only says how it was called."""
    binary = script(
        project.parent / "bin" / "hpml-bench", '#!/bin/sh\necho "$@"\nexit "${FAKE_STATUS:-0}"\n'
    )
    # Nothing above the test's folder is a repository of it, wherever that folder lies.
    fixed = {
        "PATH": f"{binary.parent}:{os.environ['PATH']}",
        "GIT_CEILING_DIRECTORIES": str(project.parent),
    }
    command, env = [project / ".ci" / "gate"], fixed | variables
    return subprocess.run(
        command,
        env=env,
        cwd=project.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def gated_with(project: Path, **variables: str) -> str:
    """Return the commit that `hpml-bench` was given, and see that it was to compare counts
    alone, not strictly.
    """
    done = gate(project, **variables)
    assert done.returncode == 0, done.stderr
    check, against, base, counts = done.stdout.split()
    assert (check, against, counts) == ("check", "--against", "--counts-only")
    return base


def refused(project: Path, **variables: str) -> str:
    """Return the one sentence of an error, which has status 2 and isn't git's own."""
    done = gate(project, **variables)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.fullmatch("gate: .*\n", done.stderr)
    return done.stderr


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "gate", project / ".ci")
    (project / "hpml_bench" / "gate").mkdir(parents=True)
    (project / "hpml_bench" / "gate" / "resident.py").touch()
    return project


@pytest.fixture
def project(exported: Path) -> Path:
    git(exported, "init", "-q", "-b", "main")
    git(exported, "add", "-A")
    commit(exported, "first")
    commit(exported, "second")
    return exported


def test_nothing_to_compare_with_is_no_error(exported: Path) -> None:
    """An exported tree, a first commit, and a base from before the gate; a repository without a
    commit is one.
    """
    assert gate(exported).stdout == "gate: not a git repository, nothing to compare with\n"
    git(exported, "init", "-q", "-b", "main")
    assert "no commit here" in refused(exported)
    git(exported, "add", ".ci")
    commit(exported, "older")
    git(exported, "add", "-A")
    assert "is older than the gate" in gate(exported).stdout
    git(exported, "commit", "-q", "--amend", "-m", "first")
    done = gate(exported)
    assert (done.returncode, done.stdout) == (
        0,
        "gate: this is the first commit, nothing to compare with\n",
    )


def test_what_it_compares_with(project: Path, tmp_path: Path) -> None:
    """On main the commit before, with changes the commit itself, on a branch where it left; the
    status is handed on.
    """
    main, before = git(project, "rev-parse", "HEAD"), git(project, "rev-parse", "HEAD~1")
    assert gated_with(project) == before
    (project / "hpml_bench" / "new.py").touch()
    assert gated_with(project) == main
    assert gate(project, FAKE_STATUS="1").returncode == 1
    git(tmp_path, "clone", "-q", "--depth=2", "-b", "main", project.as_uri(), "two")
    assert gated_with(tmp_path / "two") == before
    git(project, "branch", "branch")
    commit(project, "theirs")
    git(tmp_path, "clone", "-q", "-b", "branch", project.as_uri(), "other")
    commit(tmp_path / "other", "ours")
    assert gated_with(tmp_path / "other") == main
    assert gated_with(tmp_path / "other", GATE_BASE="branch~1") == main


def test_what_cannot_be_compared_is_an_error(project: Path, tmp_path: Path) -> None:
    """Another user's or a damaged repository, a clone that is too shallow, and no main or common
    commit.
    """
    assert re.search(
        "dubious ownership.*safe.directory", refused(project, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    )
    git(tmp_path, "clone", "-q", "--depth=1", project.as_uri(), "cut")
    assert "--deepen=1" in refused(tmp_path / "cut")
    git(project, "switch", "-q", "--orphan", "other")
    git(project, "checkout", "-q", "main", "--", ".")
    commit(project, "of its own")
    assert "no commit in common" in refused(project)
    git(project, "branch", "-m", "main", "trunk")
    assert "neither main nor origin/main" in refused(project)
    (project / ".git" / "HEAD").unlink()
    assert "git can't read this repository" in refused(project)
