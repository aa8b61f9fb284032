"""`hpml-bench list`."""

from __future__ import annotations

from pathlib import Path

import click

from hpml_bench.cli.report import result_folders


@click.command("list")
@click.argument("what", type=click.Choice(["suites", "methods", "tasks", "datasets", "probes", "trackers", "runs"]))
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
def list_(what: str, folder: Path) -> None:
    """List suites, methods, tasks, data sets, probes or trackers, or the runs in DIR."""
    from hpml_bench.cli import inventory

    rows = inventory.runs(result_folders(folder)) if what == "runs" else inventory.known(what)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())
