"""The package's own source: what would run or unpickle what others wrote isn't called anywhere."""

import ast
import re
from pathlib import Path

import pytest

import hpml_bench

CODE_FREE = r"\bAuto(?:Config|Model|ModelForCausalLM|Tokenizer)\.from_pretrained\("
WITHIN = r"(?:[^()]|\([^()]*\))*"  # arguments of one call, which may hold calls that hold none
DANGERS = re.compile(
    "|".join(
        [
            (
                r"\b(?:import|from) (?:.*, "
                r")?(?:pickle|dill|cloudpickle|marshal|shelve|jsonpickle|xmlrpc|telnetlib)\b"
            ),
            r"(?<![\w.])(?:eval|exec|compile|__import__)\b",
            r"\bos\.(?:system|popen)\b",
            r"\bread_pickle\b",
            r"_object(?:_list|s)?\b",
            r"\byaml\.(?!safe_)\w*load",
            # by a bare name, or by another one, they would not be seen
            (
                r"\bfrom (?:os|torch|torch\.serialization|numpy|yaml) import "
                r".*(?:\*|\b(?:\w*load\w*|system|popen)\b)"
            ),
            r"\bimport (?:os|torch|yaml) as\b",
            r"\b(?:shell|trust_remote_code|allow_pickle)=(?!False)",
            rf"\btorch\.load\b(?!\({WITHIN}weights_only=True)",
            rf"{CODE_FREE}(?!{WITHIN}trust_remote_code=False)",
            rf"{CODE_FREE}(?!{WITHIN}local_files_only=True)",
            rf"\bAutoModel\.from_pretrained\((?!{WITHIN}use_safetensors=True)",
        ]
    )
)
"""What could run or unpickle what others wrote, in a statement on one line."""


class WithoutTexts(ast.NodeTransformer):
    """Empties the texts of a source."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node


def dangers(source: str) -> list[str]:
    statements = ast.unparse(WithoutTexts().visit(ast.parse(source))).splitlines()
    return [line for line in statements if DANGERS.search(line)]


def test_nothing_unpickles_or_evaluates() -> None:
    """No pickle, no evaluation, no remote code, no shell, no collective that unpickles what
    arrives on a port.
    """
    sources = Path(hpml_bench.__path__[0]).rglob("*.py")
    found = {path: dangers(path.read_text(encoding="utf-8")) for path in sources}
    assert len(found) > 100
    assert {path: seen for path, seen in found.items() if seen} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill as d",
        "import os as o",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "pd.read_pickle(p)",
        "dist.all_gather_object(a, b)",
        "from torch import distributed as d\nd.broadcast_object_list(a)",
        "yaml.load(t, Loader=L)",
        "eval('1')",
        "f = exec",
        "subprocess.run(c, shell=True)",
        "load_dataset('x', trust_remote_code=True)",
        "load_dataset('x', trust_remote_code=asked)",
        "AutoModel.from_pretrained(p, trust_remote_code=False, local_files_only=True)",
        "AutoConfig.from_pretrained(p)",
        "from torch import load",
        "from torch.serialization import load as read",
        "from torch import *",
        "from yaml import unsafe_load",
        "from os import path, system",
        "from pandas import read_pickle",
        "load = yaml.load",
        "f(yaml.unsafe_load)",
        "f = dist.all_gather_object",
        "import os, pickle",
        "import json, marshal as m",
        "torch.load(p), torch.load(q, weights_only=True)",
        (
            "a(AutoConfig.from_pretrained(p), AutoConfig.from_pretrained(q, "
            "trust_remote_code=False, local_files_only=True))"
        ),
    ],
)
def test_the_reader_of_sources_sees_dangers(source: str) -> None:
    """The test's own eyes."""
    assert dangers(source)
