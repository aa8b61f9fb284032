"""Methods, tasks, data sets, probes and sections found by name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hpml_bench.cli.commands import list as listing
from hpml_bench.suite import registry, suite
from hpml_bench.system.errors import UserError


@pytest.fixture
def forget() -> Iterator[None]:
    """Forget what was found before and after a test that changes it."""
    for found in (registry.names, registry._foreign):
        found.cache_clear()
    yield
    for found in (registry.names, registry._foreign):
        found.cache_clear()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Put a distribution on the path that registers a method `third` at `target`."""
    info = folder / "third_party-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[hpml_bench.methods]\nthird = {target}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_a_file_of_ours_is_found_by_its_name() -> None:
    """What lies in the folder is registered, sorted, and comes as its module."""
    names = registry.names("methods")
    assert {"lora", "prompt_tuning", "adapter", "full", "head", "peft"} <= set(names)
    assert list(names) == sorted(names)
    assert registry.get("methods", "head").__name__ == "hpml_bench.builtin.methods.head"


@pytest.mark.usefixtures("forget")
def test_another_packages_method_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point makes a module of another package a method: listed, and usable in a suite."""
    (tmp_path / "third_module.py").write_text(
        "from hpml_bench.suite.base import Frozen\n"
        "from hpml_bench.plugins.method import Method\n"
        "class Third(Method):\n"
        "    title = 'Third'\n"
        "    lr = 0.5\n"
        "    class Options(Frozen):\n"
        "        n: int = 3\n"
        "    def build(self, backbone):\n"
        "        return backbone\n"
    )
    install(tmp_path, monkeypatch, "third_module")
    assert "third" in registry.names("methods")
    assert registry.plugin("methods", "third").title == "Third"
    assert ("third", "(from another package)") in listing.plugins("methods")
    empty = suite.Suite.model_validate(
        {"name": "s", "settings": {"backbone": "path:x", "dataset": {"name": "hub"}, "steps": 1}, "methods": {}}
    )
    spec = empty.method("third")
    assert (spec.lr, spec.options) == (0.5, {"n": 3})


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("target", ["no_such_module_here", "os:getcwd"])
def test_what_cannot_be_imported_is_told(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point that fails to import, or is no module, is a sentence with its name and where it points."""
    install(tmp_path, monkeypatch, target)
    with pytest.raises(UserError, match=rf"method 'third' of {target}"):
        registry.get("methods", "third")


@pytest.mark.usefixtures("forget")
def test_an_import_that_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a foreign module raises while it is imported is part of the sentence, not a traceback."""

    class Broken(EntryPoint):
        def load(self) -> object:
            raise RuntimeError("needs a licence")

    broken = Broken(name="odd", value="odd_package", group="hpml_bench.builtin.probes")
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken] if group == "hpml_bench.probes" else [])
    with pytest.raises(UserError, match="probe 'odd' of odd_package can't be imported: needs a licence"):
        registry.get("probes", "odd")


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(("content", "count"), [
    ("from hpml_bench.plugins.method import Method\n", 0),
    (
        "from hpml_bench.plugins.method import Method\nclass A(Method):\n    pass\nclass B(Method):\n    pass\n",
        2,
    ),
])  # fmt: skip
def test_a_module_defines_one_class(content: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module without a class that extends the base class of its kind, or with two of them, is told."""
    (tmp_path / f"classes_{count}.py").write_text(content)
    install(tmp_path, monkeypatch, f"classes_{count}")
    with pytest.raises(UserError, match=f"'third': classes_{count} defines {count} classes"):
        registry.plugin("methods", "third")


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(("content", "lacks"), [
    ("title = 'A'\n    def build(self, backbone): return backbone\n", "lr"),
    ("title = 'A'\n    lr = 1.0\n", "build"),
    ("lr = 1.0\n", "build, title"),
])  # fmt: skip
def test_a_class_that_lacks_something_is_told(
    content: str, lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name: what the base class asks for, methods and attributes."""
    name = f"lacking_{lacks.replace(', ', '_')}"
    (tmp_path / f"{name}.py").write_text(
        f"from hpml_bench.plugins.method import Method\nclass A(Method):\n    {content}"
    )
    install(tmp_path, monkeypatch, name)
    with pytest.raises(UserError, match=rf"'third': {name}\.A lacks {lacks} \(docs/adding\.md\)"):
        registry.plugin("methods", "third")


@pytest.mark.usefixtures("forget")
def test_a_second_name_of_the_class_is_no_second_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alias in the module counts once."""
    (tmp_path / "alias.py").write_text(
        "from hpml_bench.plugins.method import Method\n"
        "class A(Method):\n    title, lr = 'A', 1.0\n    def build(self, backbone): return backbone\n"
        "C = A\n"
    )
    install(tmp_path, monkeypatch, "alias")
    assert registry.plugin("methods", "third").title == "A"


def test_an_unknown_name_lists_the_known() -> None:
    """The sentence says what is registered."""
    with pytest.raises(UserError, match=r"there is no data set 'nothing'; registered are .*text_files"):
        registry.get("datasets", "nothing")
