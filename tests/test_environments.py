"""Every test is run by README's command or by an environment that continuous integration runs after it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_IN_CI = {"cluster_slow", "cuda", "fit"}
"""Markers of tests of many minutes, which are left out on purpose."""
LIMITS = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
"""Variables that limit a processor's instructions, each with the least, which every processor has."""


@pytest.fixture(scope="module")
def tox() -> ConfigParser:
    """The environments."""
    found = ConfigParser(interpolation=None)
    found.read(ROOT / "tox.ini", encoding="utf-8")
    return found


def test_what_is_left_out_here_is_run_by_continuous_integration(tox: ConfigParser, pytestconfig: pytest.Config) -> None:
    """Each marker that --here leaves out is in a call of `ci`, or of an environment whose calls `ci` does."""
    commands = tox["testenv:ci"]["commands"]
    for name in re.findall(r"\{\[testenv:([\w-]+)\]commands\}", commands):
        commands += "\n" + tox[f"testenv:{name}"]["commands"]
    called = {
        name
        for expression in re.findall(r'^pytest .*-m "([^"]+)"', commands, re.MULTILINE)
        for name in re.findall(r"\w+", re.sub(r"not \w+", "", expression))
    }
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests/conftest.py"))
    assert set(conftest.APART) - NOT_IN_CI <= called


def test_serial_tests_are_run_in_every_environment(tox: ConfigParser) -> None:
    """An environment that leaves them out of one call has another for them."""
    for name, environment in tox.items():
        commands = environment.get("commands", "")
        if re.search(r"not \(?serial", commands):
            assert re.search(r"(?<!not )(?<!not \()serial", commands), name


def test_continuous_integration_runs_both() -> None:
    """README's command, word for word, then `ci`; with CI set, so that no skip passes for a test."""
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    (command,) = re.findall(
        r"^    (python3 -m venv .*pip install tox.*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert command in script.replace("install -q", "install")
    assert re.search(r"^export CI=1", script, re.MULTILINE)
    after = script.partition("tox -e tests ")[2]
    for key in ("commands", "commands_pre", "pass_env"):
        assert f"-x 'testenv:tests.{key}={{[testenv:ci]{key}}}'" in after, "all of ci in the tests' environment"


def test_limits_of_a_processors_instructions_are_passed_on_in_every_environment() -> None:
    """By what tox makes of its file; an environment with a list of its own adds to the common one."""
    shown = ConfigParser(interpolation=None)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("TOX")}
    command = [sys.executable, "-m", "tox", "config", "-e", "ALL", "-k", "pass_env"]
    done = subprocess.run(command, cwd=ROOT, env=outside | LIMITS, check=True, capture_output=True, text=True)
    shown.read_string(done.stdout)
    runs = {name for name in shown.sections() if re.match(r"testenv:\w", name)}  # .pkg, which builds the wheel, doesn't
    assert {"testenv:tests", "testenv:ci", "testenv:gate", "testenv:lowest", "testenv:py312"} <= runs
    for name in runs:
        assert set(LIMITS) <= set(shown[name]["pass_env"].split()), name
