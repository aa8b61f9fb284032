"""Plug-ins of another package: modules and their entry points, written for tests."""

import os
import sys
from pathlib import Path

import pytest

from hpml_bench.suite import registry


def write(folder: Path, kind: registry.Kind, **sources: str) -> Path:
    """Write a package whose modules have these sources, each registered under its name; return
    its folder.
    """
    place = folder / f"foreign-{kind}"
    info = place / f"foreign_{kind}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: foreign-{kind}\nVersion: 1\n")
    lines = [f"{name} = foreign_{kind}_{name}" for name in sources]
    (info / "entry_points.txt").write_text("\n".join([f"[hpml_bench.{kind}]", *lines, ""]))
    for name, source in sources.items():
        (place / f"foreign_{kind}_{name}.py").write_text(source)
    return place


def on_path(folder: Path) -> str:
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def install(
    monkeypatch: pytest.MonkeyPatch, folder: Path, kind: registry.Kind, **sources: str
) -> None:
    """Write such a package, and let this process find its plug-ins; call `forget` when they are
    gone.
    """
    monkeypatch.syspath_prepend(str(write(folder, kind, **sources)))
    for name in sources:
        monkeypatch.delitem(sys.modules, f"foreign_{kind}_{name}", raising=False)
    forget()


def forget() -> None:
    for cached in (registry._foreign, registry.names, registry._defaults):
        cached.cache_clear()
