"""`hpml-bench stop`: the end of the jobs of a sweep."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
def stop(folder: Path) -> None:
    """End the jobs of the sweep in DIR; what is recorded stays, and run-all goes on from there."""
    from hpml_bench.cluster.sweep import find

    count = find(folder, click.echo).stop()
    click.echo(f"{count} jobs were ended" if count else "there was no job to end")
