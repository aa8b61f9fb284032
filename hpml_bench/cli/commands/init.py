"""`hpml-bench init`: a commented suite from a model and files of rows."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--model", required=True, metavar="SOURCE",
              help="Model: a folder, a .gguf file, OWNER/NAME of the hub, or a source as suites write it.")  # fmt: skip
@click.option("--data", required=True, multiple=True, metavar="FILE...",
              help="Rows: a csv, json, jsonl or parquet file, or one per split; or OWNER/NAME of the hub.")  # fmt: skip
@click.argument("files", nargs=-1, metavar="")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Suite file; standard output if not given."
)
def init(model: str, data: tuple[str, ...], files: tuple[str, ...], out: Path | None) -> None:
    """Look at a model and rows, and write a suite for run-all in which each choice has its reason."""
    from hpml_bench.records.files import write_atomically
    from hpml_bench.system import environment

    environment.set_process_environment()  # before libraries with bars are imported
    from hpml_bench.starter.start import starter_suite
    from hpml_bench.sweep.tune import check_target
    from hpml_bench.system import disk
    from hpml_bench.system.text import for_terminal

    if out is not None:
        check_target(out, "--out", fresh=True)
    click.echo("looking at the model and the rows ...", err=True)
    suite = starter_suite(model, (*data, *files), "FILE" if out is None else str(out))
    for warning in suite.warnings:
        click.echo(for_terminal(warning), err=True)
    if out is None:
        click.echo(suite.text, nl=False)
        return
    with disk.errors_as_user_errors(out.parent):
        write_atomically(out, suite.text)
    click.echo(f"{out}: read its comments, then hpml-bench preview {out} and hpml-bench run-all {out}", err=True)
