"""The GitHub action: what it runs, and that nothing from a pull request is run by it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$RUNNER_TEMP/arguments"
exit "${FAKE_STATUS:-0}"
"""


def bash(step: str, folder: Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a step's script as the runner does, with its variables."""
    environment = {"PATH": os.environ["PATH"], "RUNNER_TEMP": str(folder), "GITHUB_OUTPUT": str(folder / "output")}
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEPS[step]["run"]]
    return subprocess.run(
        command, env=environment | variables, cwd=cwd or folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """Return a runner's folder in which hpml-bench writes down its arguments."""
    binary = tmp_path / "hpml-bench" / "bin" / "hpml-bench"
    binary.parent.mkdir(parents=True)
    binary.write_text(FAKE)
    binary.chmod(0o755)
    return tmp_path


def checked(runner: Path, **changes: str) -> list[str]:
    """Run the check's step with default inputs and these changes; return the arguments that hpml-bench got."""
    defaults = {
        "AGAINST": "main", "SUITE": "quickstart", "METHODS": "", "MAX_MINUTES": "10", "STRICT": "false",
        "COUNTS_ONLY": "false", "OUT": "out",
    }  # fmt: skip
    bash("Check", runner, **defaults | changes)
    return (runner / "arguments").read_text().splitlines()


def git(folder: Path, *arguments: str) -> str:
    """Run git in a repository of the test's own."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def check_command() -> click.Command:
    """Return the command that the action calls."""
    from hpml_bench.cli import main

    command = main.get_command(click.Context(main), "check")
    assert command is not None
    return command


def test_every_option_is_one_of_the_command() -> None:
    """What the script passes is what `hpml-bench check` takes."""
    passed = {*re.findall(r"--[a-z-]+(?= |\))", STEPS["Check"]["run"])}
    known = {option for parameter in check_command().params for option in parameter.opts}
    assert passed
    assert passed <= known


def test_defaults_are_passed(runner: Path) -> None:
    """The suite comes last, after `--`; no option that wasn't asked for."""
    assert checked(runner) == [
        "check", "--against", "main", "--max-minutes", "10", "--json", "out/check.json", "--junit", "out/check.xml",
        "--markdown", "out/check.md", "--html", "out/check.html", "--", "quickstart",
    ]  # fmt: skip


def test_inputs_become_options(runner: Path) -> None:
    """Methods, strictness and the gates without noise alone."""
    found = checked(runner, METHODS="lora,adapter", STRICT="true", COUNTS_ONLY="true")
    assert found[found.index("--methods") + 1] == "lora,adapter"
    assert {"--strict", "--counts-only"} <= {*found}


@pytest.mark.parametrize("status", ["0", "1", "2", "3"])
def test_the_status_is_handed_on(runner: Path, status: str) -> None:
    """As the step's own, and as output for later steps."""
    done = bash("Check", runner, AGAINST="main", SUITE="s", METHODS="", MAX_MINUTES="1", STRICT="", COUNTS_ONLY="",
                OUT="out", FAKE_STATUS=status)  # fmt: skip
    assert done.returncode == int(status)
    assert (runner / "output").read_text() == f"status={status}\n"


def test_inputs_are_never_run(runner: Path) -> None:
    """Shell in an input stays one argument; no script has an expression in it that the runner would put text into."""
    evil = '"; touch pwned; echo $(touch pwned) `touch pwned`'
    found = checked(runner, METHODS=evil, SUITE=evil, AGAINST=evil, OUT="o")
    assert found.count(evil) == 3
    assert not (runner / "pwned").exists()
    assert not [name for name, step in STEPS.items() if "${{" in step["run"]]


def test_every_input_is_used_and_described() -> None:
    """Each is handed to a step through its environment."""
    used = {*re.findall(r"inputs\.([a-z-]+)", str([step.get("env") for step in STEPS.values()]))}
    assert used == {*ACTION["inputs"]}
    assert all(described["description"] and "default" in described for described in ACTION["inputs"].values())


def test_the_pull_requests_base_is_the_reference(tmp_path: Path) -> None:
    """Without the input; one that the checkout has is not fetched."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "base")
    base = git(tmp_path, "rev-parse", "HEAD")
    done = bash("Find the commit to compare with", tmp_path, AGAINST="", BASE=base)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output").read_text() == f"against={base}\n"


def test_a_shallow_checkout_gets_the_commit(tmp_path: Path) -> None:
    """A branch of the origin that isn't there yet is fetched, one commit deep."""
    origin, clone, folder = (tmp_path / name for name in ("origin", "clone", "runner"))
    origin.mkdir()
    folder.mkdir()
    git(origin, "init", "-q", "-b", "main")
    git(origin, "commit", "-q", "--allow-empty", "-m", "first")
    first = git(origin, "rev-parse", "HEAD")
    git(origin, "branch", "stable")
    git(origin, "commit", "-q", "--allow-empty", "-m", "second")
    git(tmp_path, "clone", "-q", "--depth=1", origin.as_uri(), str(clone))
    done = bash("Find the commit to compare with", folder, clone, AGAINST="stable", BASE="")
    assert done.returncode == 0, done.stderr
    assert (folder / "output").read_text() == f"against={first}\n"


@pytest.mark.parametrize("against", ["", "--upload-pack=touch pwned", "a b", "a\nstatus=0"])
def test_what_is_no_ref_is_refused(tmp_path: Path, against: str) -> None:
    """With status 2, a sentence, and nothing written into the outputs."""
    done = bash("Find the commit to compare with", tmp_path, AGAINST=against, BASE="")
    assert done.returncode == 2
    assert "::error title=hpml-bench check::" in done.stdout
    assert not (tmp_path / "output").exists()


def test_rights_are_read_only_and_actions_pinned() -> None:
    """The workflow runs on `pull_request` with read rights, and others' actions are named by commit."""
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert [*WORKFLOW[True]] == ["pull_request"], "YAML reads the key `on` as true"
    uses = [step["uses"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step]
    assert "./" in uses
    assert all(re.fullmatch(r"\./|[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in uses)
    assert not [step for step in STEPS.values() if "uses" in step]
    given = next(step["with"] for step in WORKFLOW["jobs"]["check"]["steps"] if step.get("uses") == "./")
    assert {*given} <= {*ACTION["inputs"]}
