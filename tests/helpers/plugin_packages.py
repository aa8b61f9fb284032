"""Plug-ins of another package: a module and its entry point, installed for one test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpml_bench import registry
from hpml_bench.config import options


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: registry.Kind, **sources: str) -> None:
    """Make modules of these names and sources, and register each under its name as a plug-in of the kind."""
    place = folder / f"foreign-{kind}"
    info = place / f"foreign_{kind}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: foreign-{kind}\nVersion: 1\n")
    lines = [f"{name} = foreign_{kind}_{name}" for name in sources]
    (info / "entry_points.txt").write_text("\n".join([f"[hpml_bench.{kind}]", *lines, ""]))
    for name, source in sources.items():
        (place / f"foreign_{kind}_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(place))
    for name in sources:
        monkeypatch.delitem(sys.modules, f"foreign_{kind}_{name}", raising=False)
    forget()


def forget() -> None:
    """Let the registry look anew; call it when the plug-ins are gone."""
    for cached in (registry._foreign, registry.names, options._defaults):
        cached.cache_clear()
