"""`hpml-bench status`: the runs of a sweep, done, under way and left."""

from pathlib import Path

import click

from hpml_bench.cli.reporting import aligned
from hpml_bench.system.text import for_terminal


@click.command()
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """Show the sweep in DIR: runs done, failed, under way and left, by jobs or on this machine."""
    from hpml_bench.sweep.jobs import find
    from hpml_bench.sweep.status import local_state, plain_sweep, state

    local = plain_sweep(folder)
    sums, table = state(find(folder, click.echo)) if local is None else local_state(local)
    click.echo(for_terminal(sums))
    for line in aligned(table):
        click.echo(for_terminal(line))
