"""`hpml-bench init`: a commented suite from a model and files of rows."""

import re
import shlex
from pathlib import Path
from typing import Any

import click

from hpml_bench.cli.options import names, overrides
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal

OPTION = re.compile(r"\b(dataset|task)\.options\.(\w+)(: (?=\w))?")
OPTIONS = ("text", "text_pair", "label", "label_names", "group", "sep", "encoding")
"""Options of data sets that are options of the command."""


def _as_option(found: re.Match[str]) -> str:
    kind, name, _ = found.groups()
    return (
        f"--{name.replace('_', '-')}"
        if kind == "dataset" and name in OPTIONS
        else f"--set {kind}.options.{name}="
    )


@click.command()
@click.option(
    "--model",
    metavar="SOURCE",
    help="Model: a folder, a .gguf file, OWNER/NAME of the hub, or a source as suites write it.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="FILE...",
    help="Rows: a csv, json, jsonl or parquet file, or one per split; or OWNER/NAME of the hub.",
)
@click.option(
    "--from-peft",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Instead of both: experiments/ of PEFT's method comparison, MetaMathQA.",
)
@click.argument("files", nargs=-1, metavar="")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Suite file; standard output if not given.",
)
@click.option("--overwrite", is_flag=True, help="Replace the suite file if there is one.")
@click.option(
    "--task",
    metavar="NAME",
    help="What is learnt (hpml-bench list tasks); found by the columns if not given.",
)
@click.option(
    "--text",
    multiple=True,
    metavar="COLUMN",
    help=(
        "Column of the text or prompt, by name or position from 1. Repeatable: several are joined."
    ),
)
@click.option("--text-pair", metavar="COLUMN", help="Column of the second text of a pair.")
@click.option("--label", metavar="COLUMN", help="Column of the class, number, tags or answer.")
@click.option(
    "--label-names",
    metavar="A,B",
    callback=lambda _ctx, _param, given: given and names(given),
    help="Names of the classes or tags, in the order of the labels.",
)
@click.option("--group", metavar="COLUMN", help="Column that says which rows belong together.")
@click.option("--sep", metavar="C", help="Separator of the cells of a csv file.")
@click.option("--encoding", metavar="NAME", help="Encoding of the file, such as latin-1.")
@overrides(
    "Set any other setting, as in --set epochs=2 or --set dataset.options.quote=''. Repeatable."
)
def init(
    model: str | None,
    data: tuple[str, ...],
    from_peft: Path | None,
    files: tuple[str, ...],
    out: Path | None,
    overwrite: bool,
    task: str | None,
    overrides: tuple[str, ...],
    **columns: Any,
) -> None:
    """Look at a model and rows, and write a suite for run-all in which each choice has its
    reason.
    """
    from hpml_bench.system import environment

    environment.set_process_environment()  # before libraries with bars are imported
    from hpml_bench.starter.start import starter_suite
    from hpml_bench.suite.suite import settings_of
    from hpml_bench.sweep.tune import check_target

    if out is not None:
        check_target(out, "--out")
        if out.exists() and not overwrite:
            raise UserError(
                f"--out {out}: there is such a file; --overwrite replaces it, or choose another "
                f"name"
            )
    given = settings_of((*overrides, *([f"task.name={task}"] if task else [])))
    named = {key: value for key, value in columns.items() if value not in (None, ())}
    if from_peft is not None:
        if model or data or given or named:
            raise UserError(
                "--from-peft takes model, rows and settings from PEFT's comparison; give --out "
                "alone"
            )
        from hpml_bench.starter.peft import suite_of

        text, lines = suite_of(from_peft)
        for line in lines:
            click.echo(for_terminal(line, 1000), err=True)
        _write(out, text)
        return
    if model is None or not data:
        raise click.UsageError(f"Missing option '{'--data' if model else '--model'}'.")
    if named:
        given.setdefault("dataset", {}).setdefault("options", {}).update(named)
    click.echo("looking at the model and the rows ...", err=True)
    try:
        text, lines = starter_suite(
            model, (*data, *files), "FILE" if out is None else shlex.quote(str(out)), given
        )
    except UserError as error:
        raise UserError(OPTION.sub(_as_option, str(error))) from None
    for line in lines:
        click.echo(for_terminal(line), err=True)
    _write(out, text)


def _write(out: Path | None, text: str) -> None:
    from hpml_bench.system.files import write_atomically

    if out is None:
        click.echo(text, nl=False)
        return
    try:
        write_atomically(out, text)
    except OSError as error:
        raise UserError(f"--out {out} can't be written: {error.strerror or error}") from None
    word = shlex.quote(str(out))
    click.echo(
        f"{out}: read its comments, then hpml-bench preview {word} and hpml-bench run-all {word}",
        err=True,
    )
