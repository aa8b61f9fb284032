"""Packages that the metadata names: which there are, by extra, which are installed, and what pip
installs them with.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "hpml-bench"


def requirements() -> dict[str, list[Requirement]]:
    """Return extra, or "" -> packages that the metadata names; PackageNotFoundError where we
    aren't installed.
    """
    from packaging.requirements import Requirement

    found: dict[str, list[Requirement]] = {}
    for need in map(Requirement, metadata(PACKAGE).get_all("Requires-Dist", [])):
        extra = re.search(r"extra == \"(\w+)\"", str(need.marker or ""))
        found.setdefault(extra[1] if extra else "", []).append(need)
    return found


def installed(package: str) -> str | None:
    """Return the installed version of a package; None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def silence_bitsandbytes() -> None:
    """Let bitsandbytes report errors only: PEFT imports it where it is installed, and it then
    warns of kernels that it doesn't find, and at each product that it casts its input.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def lacks(need: Requirement) -> bool:
    """Return whether a package is missing or too old; a nightly or local build counts as its
    release.
    """
    from packaging.version import InvalidVersion, Version

    found = installed(need.name)
    with suppress(InvalidVersion):
        return found is None or not need.specifier.contains(Version(found).base_version)
    return False


def install_extras(*extras: str) -> str:
    """Return the command that installs what these extras need."""
    # It names their packages: `hpml-bench` is on no package index, where anyone could publish that
    # name.
    try:
        known = requirements()
    except PackageNotFoundError:
        return f"pip install '.[{','.join(extras)}]' in the clone"
    return " ".join(
        [
            "pip install",
            *(f"'{need.name}{need.specifier}'" for extra in extras for need in known[extra]),
        ]
    )
