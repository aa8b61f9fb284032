"""The gate's folders: imports run one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hpml_bench import gate

ROOT = Path(gate.__path__[0])
ALLOWED = {
    "records": set(),
    "measure": {"records"},
    "decide": {"records"},
    "render": {"records", "decide"},
    "trials": {"records"},
    "resident": {"records", "measure"},
    "check": {"records", "measure", "decide"},
    "baseline": {"records", "measure", "decide", "check"},
    "selftest": {"records", "measure", "decide", "check", "trials"},
}
"""Module or folder -> those of the gate that it imports, at the top or in functions."""


def imported(path: Path) -> set[str]:
    """Return what of the gate a file imports, by the first name below it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[2] for name in names if name.startswith("hpml_bench.gate.")}
    return found & ALLOWED.keys()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_folder_may(path: Path) -> None:
    """Records, measure, decide, render, and the commands' modules last."""
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":
        assert imported(path) == set()
    else:
        assert imported(path) <= ALLOWED[own] | {own}
