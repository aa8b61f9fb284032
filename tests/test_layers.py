"""Imports point one way, and reports need nothing that trains."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hpml_bench

ROOT = Path(hpml_bench.__path__[0])
ORDER = (
    "statistics",
    "system",
    "suite",
    "records",
    "plugins",
    "data",
    "select",
    "judge",
    "page",
    "comparison",
    "training",
    "fit",
    "launch",
    "sweep",
    "starter",
    "gate",
    "doctor",
    "verify",
    "builtin",
    "cli",
    "__main__",
)
"""The packages and modules at the top: each imports only itself and those before it, in
functions too.
"""
PLUGINS = "builtin"
GENERATOR = "builtin.newswire"
"""What several data sets are drawn from; it is no plug-in."""
TYPES = ("plugins.group", "plugins.model", "plugins.rows", "plugins.tokenizer")
"""Types that plug-ins share with the core and that need a training library."""
TRAINING = ("torch", "transformers", "peft", "datasets")

DATA = {"assets", "suites"}
"""Folders of the package that hold no modules, but files beside a model or a suite."""
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if DATA.isdisjoint(path.relative_to(ROOT).parts)
}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        modules = [name for name in inner if name in FILES]
        return modules + ([] if len(modules) == len(inner) else [node.module])
    return []


def _walk(node: ast.AST, functions: bool) -> set[str]:
    found = set(_imported(node))
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not for_typing and (functions or not inside):
            found |= _walk(child, functions)
    return found


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
AT_TOP = {name: _walk(tree, functions=False) for name, tree in TREES.items()}
ANYWHERE = {name: _walk(tree, functions=True) for name, tree in TREES.items()}
OWN = {name: {other for other in imports if other in FILES} for name, imports in ANYWHERE.items()}
TOP = sorted({name.split(".")[1] for name in FILES if "." in name})


def top_of(name: str) -> str:
    return name.split(".")[1]


def reachable(*starts: str) -> set[str]:
    """Return the modules that these import, directly or not, themselves included."""
    todo, found = [f"hpml_bench.{start}" for start in starts], set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(OWN[name])
    return found


def within(name: str, *packages: str) -> bool:
    """Tell whether a module is of one of these packages."""
    return any(f"{name}.".startswith(f"hpml_bench.{package}.") for package in packages)


def heavy(imports: set[str]) -> set[str]:
    return {name for name in imports if name.partition(".")[0] in TRAINING}


def test_the_reader_of_imports_sees_them() -> None:
    """The test's own eyes: known imports at the top and inside functions are found, those for
    typing are not.
    """
    assert "hpml_bench.records.run" in AT_TOP["hpml_bench.records.load"]
    assert "pyarrow" in ANYWHERE["hpml_bench.records.predictions"]
    assert "pyarrow" not in AT_TOP["hpml_bench.records.predictions"]
    assert "torch" in AT_TOP["hpml_bench.training.worker"]
    assert "datasets" not in ANYWHERE["hpml_bench.plugins.dataset"]
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"b"}}).prepare()


def test_every_package_has_its_place() -> None:
    """The order names all packages, and each says at its head what belongs there and what it may
    import.
    """
    assert set(TOP) <= set(ORDER)
    for package in TOP:
        folder = ROOT / package
        if folder.is_dir():
            docstring = ast.get_docstring(TREES[f"hpml_bench.{package}"]) or ""
            assert len(docstring) > 40, package
            assert "import" in docstring.lower(), (
                f"{package}/__init__.py doesn't say what it may import"
            )


@pytest.mark.parametrize("name", [name for name in FILES if name != "hpml_bench"])
def test_a_module_imports_only_what_comes_before_it(name: str) -> None:
    """All imports count, those inside functions too; those for type checkers alone don't."""
    place = ORDER.index(top_of(name))
    later = {other for other in OWN[name] - {"hpml_bench"} if ORDER.index(top_of(other)) > place}
    assert later == set()


def test_there_is_no_import_circle() -> None:
    """All imports can be put in an order, those inside functions too."""
    graph = {
        name: imports - {"hpml_bench", name}
        for name, imports in OWN.items()
        if name != "hpml_bench"
    }
    TopologicalSorter(graph).prepare()  # which names the circle


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in FILES
        if within(name, PLUGINS) and name.count(".") > 2 and not within(name, GENERATOR)
    ],
)
def test_plug_ins_do_not_know_each_other(name: str) -> None:
    """A method, task, data set, probe, tracker or section imports no other one, unless it is a
    part of itself.
    """
    own = ".".join(name.split(".")[:4])
    assert {
        other
        for other in OWN[name]
        if within(other, PLUGINS)
        and not within(other, GENERATOR)
        and not f"{other}.".startswith(f"{own}.")
    } == set()


def test_the_generator_imports_no_plug_in() -> None:
    """It may be used by every data set."""
    for name in FILES:
        if within(name, GENERATOR):
            others = {other for other in OWN[name] if not within(other, GENERATOR)}
            assert {other for other in others if within(other, PLUGINS)} == set(), name


def test_core_code_reaches_plug_ins_through_the_registry() -> None:
    """No module outside their packages imports a method, task, data set, probe or tracker by
    name.
    """
    for name in FILES:
        if not within(name, PLUGINS):
            assert {other for other in OWN[name] if within(other, PLUGINS)} == set(), name


def test_only_what_trains_imports_training_libraries() -> None:
    """`training`, `data`, `fit`, plug-ins, the gate's residents and the launcher; before a
    training in functions.
    """
    launcher, meeting = "hpml_bench.launch.launcher", "hpml_bench.launch.meeting"
    users = {
        launcher,
        "hpml_bench.launch.agent",
    }  # they import it in functions, and nobody else does
    assert {name for name in FILES if meeting in OWN[name]} == users
    assert not any(meeting in AT_TOP[user] for user in users)
    trains = {launcher, meeting}
    for name, imports in ANYWHERE.items():
        if name not in trains and not within(
            name, "data", "training", "fit", *TYPES, PLUGINS, "gate.workload"
        ):
            assert not heavy(imports), name
    parent = (
        reachable("cli") - reachable("training.worker", "gate.resident", "fit.predict") - {meeting}
    )
    for name in FILES:
        if (within(name, PLUGINS, "plugins") and not within(name, *TYPES)) or name in parent:
            assert not heavy(AT_TOP[name]), name


def test_the_report_side_names_no_training_library() -> None:
    """Reports, compare, verify, statistics, records, config and the registry, and all that they
    import.
    """
    sides = ("select", "judge", "page", "comparison", "verify", "statistics", "records")
    report = [name.removeprefix("hpml_bench.") for name in FILES if within(name, *sides)]
    for name in reachable(*report, "suite.suite", "suite.registry"):
        assert not heavy(ANYWHERE[name]), name


def test_runs_are_chosen_in_one_place() -> None:
    """What is left out is seen by cautions, answer, counts, verify and compare."""
    users = {
        name
        for name, tree in TREES.items()
        if any(
            isinstance(node, ast.Attribute) and node.attr == "left_out" for node in ast.walk(tree)
        )
    }
    known = (
        "select.compared",
        "judge.results",
        "judge.from_results",
        "page.render",
        "verify.folder",
        "builtin.sections.cautions",
        "comparison.readers.results",
    )
    assert {name for name in users if not within(name, *known)} == set()
    sections = [ast.dump(tree) for name, tree in TREES.items() if within(name, "builtin.sections")]
    assert not any("load_records" in section for section in sections), (
        "no section reads records of its own"
    )


def test_no_task_is_named_outside_tasks() -> None:
    """No module compares with a task's name: what differs between tasks is asked of the task."""
    names = {path.stem for path in (ROOT / "builtin/tasks").glob("*.py") if path.stem != "__init__"}
    others = {name: tree for name, tree in TREES.items() if not within(name, "builtin.tasks")}
    compared = [
        (name, node)
        for name in others
        for node in ast.walk(others[name])
        if isinstance(node, ast.Compare)
    ]
    for name, compare in compared:
        assert not names & {
            part.value for part in ast.walk(compare) if isinstance(part, ast.Constant)
        }, name
