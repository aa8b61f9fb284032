"""Types that the installed PEFT lacks."""

from __future__ import annotations

from enum import Enum

import peft as library
import pytest
from packaging.version import Version

from hpml_bench.builtin.methods.peft import SINCE
from hpml_bench.suite.options import validate_options
from hpml_bench.system.errors import UserError

OLDEST = "0.18.0"


@pytest.mark.parametrize("kind", SINCE)
def test_a_type_of_a_later_version_is_told_as_such(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence names the installed version, the version that brought the type, and the types that there are."""
    old = {member.name: member.value for member in library.PeftType if member.value not in SINCE}
    monkeypatch.setattr(library, "PeftType", Enum("PeftType", old))
    monkeypatch.setattr(library, "__version__", OLDEST)
    sentence = rf"^suite: .*PEFT {OLDEST} has no type {kind}, which came with PEFT {SINCE[kind]} \(allowed: .*LORA"
    with pytest.raises(UserError, match=sentence):
        validate_options("methods", "peft", {"type": kind.lower()}, "suite")


def test_the_installed_version_has_the_types_of_its_age() -> None:
    """Each type is there from the version on that is said to have brought it, and not before."""
    there = {member.value for member in library.PeftType}
    installed = Version(library.__version__)
    assert {kind for kind in SINCE if kind in there} == {kind for kind in SINCE if installed >= Version(SINCE[kind])}
