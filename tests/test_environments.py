"""Every test is run by README's command or by an environment that continuous integration runs after it."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_IN_CI = {"cluster_slow", "cuda", "fit"}
"""Markers of tests of many minutes, which are left out on purpose."""


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
