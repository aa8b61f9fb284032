"""`hpml-bench status`: the jobs of a sweep."""

from __future__ import annotations

from pathlib import Path

import click

from hpml_bench.cli.reporting import aligned


@click.command()
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """Show the jobs of the sweep in DIR: waiting, running and ended ones, and the runs done."""
    from hpml_bench.sweep.status import state
    from hpml_bench.sweep.submit import find
    from hpml_bench.system.text import for_terminal

    sums, table = state(find(folder, click.echo))
    click.echo(for_terminal(sums))
    for line in aligned(table):
        click.echo(for_terminal(line))
