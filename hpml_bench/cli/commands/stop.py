"""`hpml-bench stop`: the end of the jobs of a sweep."""

from pathlib import Path

import click

from hpml_bench.system.errors import UserError
from hpml_bench.system.text import count_of


@click.command()
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
def stop(folder: Path) -> None:
    """End the jobs of the sweep in DIR; recorded runs stay, and run-all goes on from there."""
    from hpml_bench.sweep.jobs import find

    sweep = find(folder, click.echo)
    if not (sweep.engine.starts and sweep.engine.outlives):
        by = (
            "the command that started them: press Ctrl-C there"
            if sweep.engine.starts
            else "whoever started them"
        )
        raise UserError(f"{folder}: jobs on {sweep.engine.title} are ended by {by}")
    count = sweep.stop()
    if count == 0:
        click.echo("there was no job to end")
    else:
        click.echo(f"{count_of(count, 'job')} {'was' if count == 1 else 'were'} ended")
