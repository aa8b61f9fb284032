"""Commands that install missing packages name the packages themselves."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import hpml_bench
from hpml_bench.system import packages


def test_an_extra_is_installed_by_the_names_and_lower_bounds_of_its_packages() -> None:
    """The command is right in a clone and for a wheel, and names nothing that a stranger could publish."""
    assert re.fullmatch(r"pip install 'gguf>=[\d.]+' 'optuna>=[\d.]+'", packages.install_extras("gguf", "tune"))


def test_without_metadata_the_command_is_for_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that runs from a clone which pip hasn't installed knows no packages of an extra."""

    def missing() -> None:
        raise PackageNotFoundError(packages.PACKAGE)

    monkeypatch.setattr(packages, "requirements", missing)
    assert packages.install_extras("quant") == "pip install '.[quant]' in the clone"


def test_no_text_of_the_package_installs_a_name_that_no_index_has() -> None:
    """`pip install hpml-bench[...]` would install whatever a stranger publishes under that name."""
    sources = Path(hpml_bench.__file__).parent.rglob("*.py")
    assert not [source for source in sources if re.search(r"pip install '?hpml-bench", source.read_text())]
