"""`hpml-bench list`: packaged suites, registered plug-ins, clusters, recorded runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from hpml_bench.cli.reporting import aligned, result_folders
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from hpml_bench.suite.registry import Kind

WHAT = (
    "suites", "methods", "optimizers", "tasks", "datasets", "scorers", "metrics", "probes", "trackers", "engines",
    "clusters", "runs",
)  # fmt: skip

Row = tuple[str, ...]


@click.command("list")
@click.argument("what", type=click.Choice(WHAT))
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
def list_(what: str, folder: Path) -> None:
    """List suites, kinds of plug-ins, clusters (names for --on), or the runs in DIR."""
    if what == "suites":
        rows = suites()
    elif what == "runs":
        rows = runs(result_folders(folder))
    elif what == "clusters":
        from hpml_bench.suite.profile import known_profiles

        rows = list(known_profiles().items())
    else:
        rows = plugins(cast("Kind", what))
    for line in aligned(rows):
        click.echo(line)


def suites() -> list[Row]:
    """Return name and description of each packaged suite."""
    import yaml

    from hpml_bench.suite.suite import packaged_suites, suites_folder

    def description(name: str) -> str:
        content = yaml.safe_load((suites_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
        return " ".join(str(content.get("description", "")).split())

    return [(name, description(name)) for name in packaged_suites()]


def plugins(kind: Kind) -> list[Row]:
    from hpml_bench.suite import registry

    return [(name, _first_line(kind, name)) for name in registry.names(kind)]


def _first_line(kind: Kind, name: str) -> str:
    """Return the first line of a module's docstring without importing it."""
    import ast
    import importlib.util

    from hpml_bench.suite import registry

    spec = importlib.util.find_spec(f"{registry.package(kind)}.{name}")
    if spec is None or spec.origin is None:
        return "(from another package)"
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def runs(folders: Iterable[Path]) -> list[Row]:
    """Return a row for each recorded run: suite, run, status, seconds, headline metric."""
    from hpml_bench.records.load import headlines

    found = (record for folder in folders for record in headlines(folder))
    rows = ((r.spec.suite, r.run_id, r.status, f"{r.seconds:7.1f} s", r.shown) for r in found)
    return [tuple(for_terminal(cell, 100) for cell in row) for row in rows]
