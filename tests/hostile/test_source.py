"""The package's own source: what would run or unpickle what others wrote isn't called anywhere.

Ruff sees pickles, evaluation, unsafe YAML and shells; here is what it doesn't.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpml_bench

ROOT = Path(hpml_bench.__path__[0])
WAIVED = re.compile(r"noqa:.*\bS(102|30[1-7]|506|60[245])\b")
"""A comment that would silence Ruff."""
LOADS = {"torch.load", "torch.serialization.load", "numpy.load", "torch.*"}
"""Imported by a bare name, or under another one, they would not be seen."""
CODE_FREE = {"AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"}


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an expression, as far as it is names."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source: str) -> Iterator[str]:
    """Yield what in a source could run or unpickle what others wrote."""
    yield from WAIVED.findall(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield from {f"{node.module}.{alias.name}" for alias in node.names} & LOADS
        if isinstance(node, ast.Import):
            yield from (f"torch as {alias.asname}" for alias in node.names if alias.name == "torch" and alias.asname)
        name = dotted(node)
        if name.endswith(("_object", "_object_list", "_objects")) or name in {"exec", "__import__"}:
            yield name
        if isinstance(node, ast.keyword) and node.arg in {"trust_remote_code", "allow_pickle"}:
            yield from [node.arg] if ast.unparse(node.value) != "False" else []
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            name = dotted(node.func)
            kind, _, method = name.partition(".")
            wanted = {"weights_only": "True"} if name == "torch.load" else {}
            if kind in CODE_FREE and method == "from_pretrained":
                wanted = {"trust_remote_code": "False", "local_files_only": "True"}
                wanted |= {"use_safetensors": "True"} if kind == "AutoModel" else {}
            yield from (f"{name} without {key}={value}" for key, value in wanted.items() if given.get(key) != value)


def test_nothing_unpickles_or_evaluates() -> None:
    """No pickle, no evaluation, no remote code, no shell, no collective that unpickles what arrives on a port."""
    found = {path: list(dangers(path.read_text(encoding="utf-8"))) for path in ROOT.rglob("*.py")}
    assert {path: seen for path, seen in found.items() if seen} == {}


@pytest.mark.parametrize("source", [
    "pickle.loads(x)  # noqa: S301",
    "torch.load(p)",
    "torch.load(p, weights_only=False)",
    "np.load(p, allow_pickle=True)",
    "dist.all_gather_object(a, b)",
    "from torch import distributed as d\nd.broadcast_object_list(a)",
    "f = exec",
    "load_dataset('x', trust_remote_code=asked)",
    "AutoModel.from_pretrained(p, trust_remote_code=False, local_files_only=True)",
    "AutoConfig.from_pretrained(p)",
    "from torch.serialization import load as read",
    "from torch import *",
    "import torch as t",
])  # fmt: skip
def test_the_reader_of_sources_sees_dangers(source: str) -> None:
    """The test's own eyes."""
    assert list(dangers(source))
