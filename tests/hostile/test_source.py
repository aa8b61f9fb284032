"""The package's own source: what would run or unpickle what others wrote isn't called anywhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpml_bench

ROOT = Path(hpml_bench.__path__[0])
MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "xmlrpc", "telnetlib"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pandas.read_pickle", "pd.read_pickle"}
YAML = {"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.full_load_all"}
LOADS = {"torch.load", "torch.serialization.load", "numpy.load", "os.*", "torch.*", "yaml.*"}
"""Called by their bare name they would not be seen, as `torch.load` and the others above are."""
RENAMED = {"os", "torch", "yaml"}
CODE_FREE = {"AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"}


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an expression, as far as it is names."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> object:
    """Return the constant given for a keyword; `...` where there is none or it isn't constant."""
    value = next((word.value for word in call.keywords if word.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else ...


def dangers(source: str) -> Iterator[str]:
    """Yield what in a source could run or unpickle what others wrote."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (of.name for of in names if of.name.partition(".")[0] in MODULES)
                yield from (f"{of.name} as {of.asname}" for of in names if of.asname and of.name in RENAMED)
            case ast.ImportFrom(module=module, names=names):
                if str(module).partition(".")[0] in MODULES:
                    yield str(module)
                yield from {f"{module}.{of.name}" for of in names} & (CALLS | YAML | LOADS)
            case ast.Attribute() | ast.Name():
                name = dotted(node)
                if name in CALLS | YAML or name.endswith(("_object", "_object_list", "_objects", ".read_pickle")):
                    yield name
            case ast.keyword(arg="shell" | "trust_remote_code" | "allow_pickle", value=value):
                if not isinstance(value, ast.Constant) or value.value is not False:
                    yield str(node.arg)
            case ast.Call():
                yield from of_call(node, dotted(node.func))


def of_call(node: ast.Call, name: str) -> Iterator[str]:
    """Yield what is dangerous of a call by what it leaves out."""
    if name == "torch.load" and keyword(node, "weights_only") is not True:
        yield name
    if name.endswith(("np.load", "numpy.load")) and keyword(node, "allow_pickle") is not ...:
        yield f"{name} with allow_pickle"
    kind, _, method = name.partition(".")
    if kind in CODE_FREE and method == "from_pretrained":
        if keyword(node, "trust_remote_code") is not False or keyword(node, "local_files_only") is not True:
            yield f"{name} without trust_remote_code=False and local_files_only=True"
        if kind == "AutoModel" and keyword(node, "use_safetensors") is not True:
            yield f"{name} without use_safetensors=True"


def test_nothing_unpickles_or_evaluates() -> None:
    """No pickle, no evaluation, no remote code, no shell, no collective that unpickles what arrives on a port."""
    found = {path: list(dangers(path.read_text(encoding="utf-8"))) for path in ROOT.rglob("*.py")}
    assert {path: seen for path, seen in found.items() if seen} == {}


@pytest.mark.parametrize("source", [
    "import pickle", "from pickle import loads", "def f():\n    import dill as d", "import os as o",
    "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)", "pd.read_pickle(p)",
    "dist.all_gather_object(a, b)", "from torch import distributed as d\nd.broadcast_object_list(a)",
    "yaml.load(t, Loader=L)", "eval('1')", "f = exec", "subprocess.run(c, shell=True)",
    "load_dataset('x', trust_remote_code=True)", "load_dataset('x', trust_remote_code=asked)",
    "AutoModel.from_pretrained(p, trust_remote_code=False, local_files_only=True)", "AutoConfig.from_pretrained(p)",
    "from torch import load", "from torch.serialization import load as read", "from torch import *",
    "from yaml import unsafe_load", "from os import path, system", "from pandas import read_pickle",
])  # fmt: skip
def test_the_reader_of_sources_sees_dangers(source: str) -> None:
    """The test's own eyes."""
    assert list(dangers(source))
