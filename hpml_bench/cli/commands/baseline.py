"""`hpml-bench baseline`: saved runs for later comparison."""

from pathlib import Path

import click

from hpml_bench.cli.commands.check import FILE, WorkloadOptions, bugs_are_errors, workload_options


@click.group()
def baseline() -> None:
    """Runs saved to compare with later, on the same hardware."""


@baseline.command()
@click.argument("file", type=FILE)
@workload_options
@click.option(
    "--runs",
    type=click.IntRange(10, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="Separate runs; a later check uses their spread.",
)
def save(file: Path, workload: WorkloadOptions, runs: int) -> None:
    """Time separate runs of SUITE and write them to FILE."""
    from hpml_bench.gate.baseline import save as save_baseline

    with bugs_are_errors():
        save_baseline(workload.request(), file, runs, click.echo)
