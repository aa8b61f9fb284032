"""Packages: versions against the bounds in the metadata, extras, the files of quickstart."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import NamedTuple

from hpml_bench.doctor.check import Found

PACKAGE = "hpml-bench"
PURPOSES = {
    "gguf": "models in GGUF files",
    "quant": "qlora, quantization and adamw_8bit",
    "ray": "jobs by Ray",
    "rouge": "the scorer rouge_l",
    "tune": "the command tune",
}
"""What each extra is for; the metadata says which there are, and what they need. Others are for developers."""
DISPENSABLE = frozenset({"junitparser", "wandb"})
"""Dependencies that quickstart runs without."""
_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:>=\s*([\d.]+))?[^;]*(?:;.*\bextra\s*==\s*['\"](\w+)['\"])?")


class Requirement(NamedTuple):
    """A package that the metadata names, with its lower bound."""

    package: str
    least: str
    extra: str
    """The extra that needs it; empty for a dependency."""

    @property
    def installed(self) -> str | None:
        """The installed version; None where it is missing."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def __str__(self) -> str:
        """Return package, version and bound as a finding shows them."""
        return f"{self.package} {self.installed or 'is missing'} ({self.least} or newer)"


def python() -> Found:
    """Compare Python with the versions that the tests use, which the metadata lists."""
    tested = re.findall(r"Python :: (3\.\d+)$", "\n".join(metadata(PACKAGE).get_all("Classifier", [])), re.MULTILINE)
    found = f"Python {platform.python_version()}, {PACKAGE} {version(PACKAGE)}"
    if tested and ".".join(platform.python_version_tuple()[:2]) not in tested:
        return Found("warn", found, f"the tests use Python {tested[0]} to {tested[-1]}: take one of these")
    return Found("ok", found)


def dependencies() -> Found:
    """Compare the versions of dependencies with the lower bounds."""
    needed = [need for need in requirements() if not need.extra]
    missing = [need for need in needed if need.installed is None]
    old = [need for need in needed if need.installed is not None and _older(need)]
    if missing or old:
        bad = any(need.package not in DISPENSABLE for need in missing)
        found = ", ".join(map(str, [*missing, *old]))
        return Found("fail" if bad else "warn", found, "pip install --upgrade . in the clone")
    return Found("ok", f"all {len(needed)} are installed, at or above the lowest versions that the tests pass with")


def extras() -> Found:
    """Say which extras are missing or too old, and what they are for."""
    known = [need for need in requirements() if need.extra in PURPOSES]
    lacking = sorted({need.extra for need in known if need.installed is None or _older(need)})
    if not lacking:
        return Found("ok", f"all are installed: {', '.join(PURPOSES)}")
    found = ", ".join(f"{extra} (for {PURPOSES[extra]})" for extra in lacking)
    return Found(
        "warn", f"not installed: {found}", f"if you need them: pip install '.[{','.join(lacking)}]' in the clone"
    )


def quickstart() -> Found:
    """Read the suite quickstart, resolve its settings for this machine, and look for its embedded model."""
    from hpml_bench.data.sources import fetch, weight_files
    from hpml_bench.suite.devices import resolve_suite
    from hpml_bench.suite.suite import load_suite

    settings = resolve_suite(load_suite("quickstart")).settings
    weight_files(fetch(settings.backbone).folder_or_file)
    return Found("ok", f"the suite and its model are complete; {settings.world_size} processes on {settings.device}")


def requirements() -> list[Requirement]:
    """Return the packages that the metadata of hpml-bench names; PackageNotFoundError where it isn't installed."""
    found = map(_REQUIREMENT.match, metadata(PACKAGE).get_all("Requires-Dist", []))
    return [Requirement(*match.groups("")) for match in found if match]


def _older(need: Requirement) -> bool:
    return _numbers(need.installed or "") < _numbers(need.least)


def _numbers(release: str) -> list[int]:
    """Return the numbers of a release such as 2.9.1+cpu, without trailing zeros."""
    numbers = [int(part) for part in re.split(r"[^\d.]", release)[0].split(".") if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers
