"""`hpml-bench list`: packaged suites, registered plug-ins, clusters, recorded runs."""

from pathlib import Path
from typing import cast

import click

from hpml_bench.cli.reporting import aligned, result_folders
from hpml_bench.system.text import for_terminal, summary_of

WHAT = (
    "suites",
    "methods",
    "optimizers",
    "tasks",
    "datasets",
    "scorers",
    "metrics",
    "probes",
    "trackers",
    "engines",
    "clusters",
    "runs",
)


@click.command("list")
@click.argument("what", type=click.Choice(WHAT))
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
def list_(what: str, folder: Path) -> None:
    """List suites, kinds of plug-ins, clusters (names for --on), or the runs in DIR."""
    rows: list[tuple[str, ...]] = []
    if what == "suites":
        from hpml_bench.suite.suite import load_suite, packaged_suites

        rows += [
            (name, " ".join(load_suite(name).description.split())) for name in packaged_suites()
        ]
    elif what == "runs":
        from hpml_bench.records.load import headlines

        for inner in result_folders(folder):
            for run in headlines(inner):
                cells = (run.suite, run.run_id, run.status, f"{run.seconds:7.1f} s", run.shown)
                rows.append(tuple(for_terminal(cell, 100) for cell in cells))
    elif what == "clusters":
        from hpml_bench.suite.profile import known_profiles

        rows += known_profiles().items()
    else:
        from hpml_bench.suite import registry

        kind = cast("registry.Kind", what)
        for name in registry.names(kind):  # those of other packages are not imported
            own = registry.is_built_in(kind, name)
            first_line = summary_of(registry.get(kind, name)) if own else ""
            rows.append((name, first_line if own else "(from another package)"))
    for line in aligned(rows):
        click.echo(line)
