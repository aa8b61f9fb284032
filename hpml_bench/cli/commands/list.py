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
    from hpml_bench.suite.suite import load_suite, packaged_suites

    return [(name, " ".join(load_suite(name).description.split())) for name in packaged_suites()]


def plugins(kind: Kind) -> list[Row]:
    """Return name and first line of each plug-in; those of other packages are not imported."""
    from hpml_bench.suite import registry

    def first_line(name: str) -> str:
        own = registry.is_built_in(kind, name)
        return (registry.get(kind, name).__doc__ or "").partition("\n")[0] if own else "(from another package)"

    return [(name, first_line(name)) for name in registry.names(kind)]


def runs(folders: Iterable[Path]) -> list[Row]:
    """Return a row for each recorded run: suite, run, status, seconds, headline metric."""
    from hpml_bench.records.load import headlines

    found = (record for folder in folders for record in headlines(folder))
    rows = ((r.suite, r.run_id, r.status, f"{r.seconds:7.1f} s", r.shown) for r in found)
    return [tuple(for_terminal(cell, 100) for cell in row) for row in rows]
