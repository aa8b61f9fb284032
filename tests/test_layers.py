"""Imports point one way, and reports need nothing that trains."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import recorded

import hpml_bench

ROOT = Path(hpml_bench.__path__[0])
KINDS = ("methods", "probes", "tasks", "sections")
TRAINING = ("torch", "transformers", "peft", "datasets")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name(path): path for path in ROOT.rglob("*.py") if "assets" not in path.parts}


def _for_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _imported(node: ast.AST) -> list[str]:
    """Return the modules an import statement names."""
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
        if not _for_typing(child) and (functions or not inside):
            found |= _walk(child, functions)
    return found


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
AT_TOP = {name: _walk(tree, functions=False) for name, tree in TREES.items()}
ANYWHERE = {name: _walk(tree, functions=True) for name, tree in TREES.items()}
OWN = {name: {other for other in imports if other in FILES} for name, imports in ANYWHERE.items()}


def reachable(*starts: str) -> set[str]:
    """Return the modules that these import, directly or not, themselves included."""
    todo, found = [f"hpml_bench.{start}" for start in starts], set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(OWN[name])
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle; none where they can be put in an order."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def of_kind(name: str, *kinds: str) -> bool:
    """Tell whether a module is a file of one of these folders."""
    return any(name.startswith(f"hpml_bench.{kind}.") for kind in kinds)


def heavy(imports: set[str], libraries: tuple[str, ...] = TRAINING) -> set[str]:
    """Return the training libraries among imports."""
    return {name for name in imports if name.partition(".")[0] in libraries}


def test_the_reader_of_imports_sees_them() -> None:
    """The test's own eyes: known imports at the top and inside functions are found, those for typing are not."""
    assert "hpml_bench.records.run" in AT_TOP["hpml_bench.records.store"]
    assert "pandas" in ANYWHERE["hpml_bench.records.store"]
    assert "pandas" not in AT_TOP["hpml_bench.records.store"]
    assert "torch" in AT_TOP["hpml_bench.training.worker"]
    assert "datasets" not in ANYWHERE["hpml_bench.records.run"]
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


@pytest.mark.parametrize("name", [name for name in FILES if of_kind(name, *KINDS)])
def test_plug_ins_do_not_know_each_other(name: str) -> None:
    """A method, probe, task or section imports no other file of these folders."""
    assert {other for other in OWN[name] if of_kind(other, *KINDS)} == set()


def test_there_is_no_import_cycle() -> None:
    """Module-level imports can be put in an order."""
    assert cycle({name: imports & set(FILES) for name, imports in AT_TOP.items()}) == []


def test_the_ground_floor_stands_on_nothing() -> None:
    """Errors and records import none of us; the store and the registry only those."""
    assert OWN["hpml_bench.errors"] | OWN["hpml_bench.records.run"] == set()
    ground = {"hpml_bench", "hpml_bench.errors", "hpml_bench.records.run"}
    assert OWN["hpml_bench.records.store"] | OWN["hpml_bench.registry"] <= ground
    assert OWN["hpml_bench.config.yaml"] <= ground
    assert OWN["hpml_bench.config.suite"] <= ground | {"hpml_bench.registry", "hpml_bench.config.yaml"}


def test_nothing_stands_on_the_command_line() -> None:
    """Only `python -m hpml_bench` imports it, and no one below imports the sweep or the launcher."""
    commands = {name for name in FILES if f"{name}.".startswith("hpml_bench.cli.")}
    assert {name for name in OWN.keys() - commands if OWN[name] & commands} == {"hpml_bench.__main__"}
    for name in reachable("worker", "report.render"):
        assert not OWN[name] & {"hpml_bench.launch.sweep", "hpml_bench.launch.launcher", "hpml_bench.api"}, name


def test_only_the_worker_and_what_it_needs_trains() -> None:
    """Training libraries are imported in the ranks' and the preparation's modules, and by the launcher in functions."""
    plugged = [name.removeprefix("hpml_bench.") for name in FILES if of_kind(name, "methods", "probes", "tasks")]
    rendezvous = "hpml_bench.launch.rendezvous"  # which the launcher imports in a function, and nobody else does
    assert {name for name in FILES if rendezvous in OWN[name]} == {"hpml_bench.launch.launcher"}
    assert rendezvous not in AT_TOP["hpml_bench.launch.launcher"]
    ranks = reachable("worker", "gate.resident", *plugged) | {"hpml_bench.launch.launcher", rendezvous}
    for name, imports in ANYWHERE.items():
        if name not in ranks and not of_kind(name, *KINDS):
            assert not heavy(imports), name
    for name in [*FILES]:
        if of_kind(name, *KINDS) or name in reachable("cli") - reachable("worker") - {rendezvous}:
            assert not heavy(AT_TOP[name]), name


def test_the_report_side_names_no_training_library() -> None:
    """Reports, sections, statistics, store, suites and the registry, and all that they import."""
    sections = [f"sections.{path.stem}" for path in (ROOT / "sections").glob("*.py") if path.stem != "__init__"]
    report = [f"report.{path.stem}" for path in (ROOT / "report").glob("*.py") if path.stem != "__init__"]
    for name in reachable(*sections, *report, "statistics", "store", "records", "suite", "registry", "listing"):
        assert not heavy(ANYWHERE[name]), name


def uses(attribute: str) -> set[str]:
    """Return the modules that name an attribute, such as `x.attribute`."""
    return {
        name
        for name, tree in TREES.items()
        if any(isinstance(node, ast.Attribute) and node.attr == attribute for node in ast.walk(tree))
    }


def test_runs_are_chosen_in_one_place() -> None:
    """What is left out is looked at by the failures, the takeaways that say nothing is left, and the head's counts."""
    assert uses("selection") <= {"hpml_bench.report.compared", "hpml_bench.report.measured"}
    assert uses("left_out") <= {
        "hpml_bench.report.results",
        "hpml_bench.report.render",
        "hpml_bench.report.sections.failures",
        "hpml_bench.report.sections.takeaways",
    }
    readers = {name for name, tree in TREES.items() if of_kind(name, "sections") and "load_records" in ast.dump(tree)}
    assert readers == set(), "no section reads records of its own"


def test_statistics_know_no_records() -> None:
    """Statistics take numbers: they import none of ours but themselves."""
    for name in FILES:
        if f"{name}.".startswith("hpml_bench.statistics."):
            assert {other for other in OWN[name] if not f"{other}.".startswith("hpml_bench.statistics.")} == set(), name


def test_a_report_is_written_without_training_libraries(tmp_path: Path) -> None:
    """`hpml-bench report` works in an interpreter that has none of them."""
    recorded.write(tmp_path, recorded.sweep(("lora", "full"), 2))
    block = "".join(f"sys.modules['{name}'] = None; " for name in TRAINING)
    script = f"import sys; {block}from hpml_bench.cli import main; main(['report', {str(tmp_path)!r}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "report.md").is_file()
