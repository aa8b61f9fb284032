"""Methods, tasks, data sets, probes and sections found by name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from helpers import plugin_packages
from hpml_bench.suite import registry
from hpml_bench.system.errors import UserError

METHOD = "from hpml_bench.plugins.method import Method\nclass A(Method):\n    "
BUILD = "\n    def build(self, backbone): return backbone\n"


@pytest.fixture
def forget() -> Iterator[None]:
    yield
    plugin_packages.forget()


def test_a_file_of_ours_is_found_by_its_name() -> None:
    """What lies in the folder is registered, sorted, and comes as its module; an unknown name lists the known."""
    names = registry.names("methods")
    assert {"lora", "prompt_tuning", "adapter", "full", "head", "peft"} <= set(names)
    assert list(names) == sorted(names)
    assert registry.get("methods", "head").__name__ == "hpml_bench.builtin.methods.head"
    with pytest.raises(UserError, match=r"there is no data set 'nothing'; registered are .*text_files"):
        registry.get("datasets", "nothing")


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(("source", "says"), [
    ("import no_such_module_here", "can't be imported: No module named 'no_such"),
    ("raise RuntimeError('needs a licence')", "can't be imported: needs a licence"),
    ("", "foreign_methods_third defines 0 classes"),
    (f"{METHOD}pass\nclass B(Method):\n    pass\n", "foreign_methods_third defines 2 classes"),
    (f"{METHOD}lr = 1.0{BUILD}", r"A lacks title \(docs/adding\.md\)"),
    (f"{METHOD}title, lr = 'A', 1.0\n", r"A lacks build \(docs/adding\.md\)"),
    (f"{METHOD}lr = 1.0\n", r"A lacks build, title \(docs/adding\.md\)"),
])  # fmt: skip
def test_a_module_that_is_no_plug_in_is_told(
    source: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name: what it raises when it is imported, how many classes it has, or what its class lacks."""
    plugin_packages.install(monkeypatch, tmp_path, "methods", third=source)
    with pytest.raises(UserError, match=f"method 'third'.*{says}"):
        registry.plugin("methods", "third")


@pytest.mark.usefixtures("forget")
def test_an_entry_point_is_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a function is told, with where it points."""
    odd = EntryPoint(name="odd", value="os:getcwd", group="hpml_bench.probes")
    monkeypatch.setattr(registry, "entry_points", lambda group: [odd] if group == "hpml_bench.probes" else [])
    plugin_packages.forget()
    with pytest.raises(UserError, match="the probe 'odd' of os:getcwd is not a module"):
        registry.get("probes", "odd")
