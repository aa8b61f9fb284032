"""Packages: versions, extras and quickstart's files, by the metadata."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpml_bench.data import sources
from hpml_bench.doctor import packages
from hpml_bench.doctor.check import Check, Found, look

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
NEEDS = ["numpy>=2.0", "wandb>=0.31", "gguf>=0.17.1; extra == 'gguf'", "optuna >=4.0 ; extra == \"tune\"",
         "tox>=4; extra == 'dev'"]  # fmt: skip
CLASSIFIERS = [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)] + ["Typing :: Typed"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Installed package -> version, which the test changes, under the metadata above."""
    found = {"hpml-bench": "0.1.0", "numpy": "2.1.0", "wandb": "0.31", "gguf": "0.18", "optuna": "4.0.0"}

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    lists = {"Requires-Dist": NEEDS, "Classifier": CLASSIFIERS}
    monkeypatch.setattr(packages, "version", version)
    monkeypatch.setattr(packages, "metadata", lambda _: SimpleNamespace(get_all=lambda key, _: lists[key]))
    return found


def only(check: Callable[[], Found]) -> Check:
    """Return the line of a check."""
    (line,) = look((check,))
    return line


def test_all_requirements_of_the_project_are_understood() -> None:
    """Name, lower bound and extra of each, as pyproject.toml has them: none is left out or cut."""
    lines = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    expected = {(*re.fullmatch(r"(.+)>=(.+)", line).groups(), extra) for extra in lines for line in lines[extra]}
    assert {tuple(need) for need in packages.requirements()} == expected


def test_each_extra_for_users_has_a_purpose() -> None:
    """A new one needs words, and none that is gone keeps them."""
    assert set(packages.PURPOSES) == set(PROJECT["optional-dependencies"]) - {"dev"}
    assert set(packages.DISPENSABLE) <= {need.package for need in packages.requirements() if not need.extra}


def test_versions_at_or_above_their_bounds(installed: dict[str, str]) -> None:
    """A local build counts as its release; zeros at the end count nothing."""
    installed |= {"numpy": "2", "wandb": "0.31.0+local.9"}
    assert only(packages.dependencies).state == "ok"


@pytest.mark.parametrize(("package", "version", "state", "words"), [
    ("numpy", "1.26.4", "warn", "numpy 1.26.4 (2.0 or newer)"),
    ("numpy", None, "fail", "numpy is missing (2.0 or newer)"),
    ("wandb", None, "warn", "wandb is missing (0.31 or newer)"),
])  # fmt: skip
def test_a_dependency_that_is_old_or_missing(
    package: str, version: str | None, state: str, words: str, installed: dict[str, str]
) -> None:
    """An old one may do; without one quickstart can't run, unless it is of those that it doesn't use."""
    installed.pop(package)
    installed |= {package: version} if version else {}
    line = only(packages.dependencies)
    assert (line.state, line.finding) == (state, words)
    assert "pip install" in line.advice


def test_an_extra_that_is_missing_or_old(installed: dict[str, str]) -> None:
    """By name and with its purpose; those of developers are left out."""
    assert only(packages.extras).state == "ok"
    installed.pop("gguf")
    installed["optuna"] = "3.6"
    line = only(packages.extras)
    assert line.state == "warn"
    assert line.finding == "not installed: gguf (for models in GGUF files), tune (for the command tune)"
    assert line.advice.endswith("pip install '.[gguf,tune]' in the clone")


def test_python_that_the_tests_do_not_use(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifiers say which they use."""
    monkeypatch.setattr(packages.platform, "python_version_tuple", lambda: ("3", "12", "1"))
    assert only(packages.python).state == "ok"
    monkeypatch.setattr(packages.platform, "python_version_tuple", lambda: ("3", "14", "0"))
    line = only(packages.python)
    assert line.state == "warn"
    assert "3.11 to 3.13" in line.advice


def test_a_clone_that_is_not_installed(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metadata are missing; that is said, and stops nothing."""

    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "metadata", none)
    assert [line.state for line in look((packages.python, packages.dependencies, packages.extras))] == ["warn"] * 3


def test_the_files_of_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come with the package; without the model quickstart can't run."""
    line = only(packages.quickstart)
    assert line.state == "ok"
    assert "2 processes on cpu" in line.finding
    monkeypatch.setattr(sources, "ASSETS", tmp_path)
    assert only(packages.quickstart).state == "fail"
