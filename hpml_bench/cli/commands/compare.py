"""`hpml-bench compare`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpml_bench.cli.options import FORMATS, page_formats
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from hpml_bench.report.scores import AlignedScores


@click.command()
@click.argument("inputs", metavar="FILE|DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports", "compare"), show_default=True,
              metavar="DIR", help="Folder to write to.")  # fmt: skip
@click.option("--metric", metavar="NAME", help="Score to compare by; a table's column, `score` if not given.")
@click.option("--columns", metavar="OURS=THEIRS,...",
              help="A table's names of columns, as system=model,row=question_id.")  # fmt: skip
@click.option("--group", metavar="FIELD", help="Field of lm_eval's documents whose rows depend on each other.")
@click.option("--margin", type=float, metavar="X", help="Difference of scores that counts as none.")
@click.option("--lower", is_flag=True, help="A lower score is better.")
@click.option("--range", "bounds", metavar="LOW,HIGH", help="Least and largest score that a row can have.")
@click.option("--shared", is_flag=True, help="Compare the rows that all systems have; a verdict also takes the others.")
@click.option("--independent", is_flag=True, help="The systems' errors are independent: test means without rows.")
@click.option("--largest-difference", "largest", type=float, metavar="X",
              help="Largest difference of one row's real scores between two systems, declared beforehand.")  # fmt: skip
@click.option("--look", type=click.IntRange(1, 1000), metavar="N",
              help="Times that these systems were tested, this one counted; by the pages in --out if not given.",
              )  # fmt: skip
@click.option("--format", "formats", default="html,md", show_default=True, metavar=FORMATS)
def compare(
    inputs: tuple[Path, ...], out: Path, metric: str | None, columns: str | None, group: str | None,
    margin: float | None, bounds: str | None, look: int | None, formats: str, **options: Any,
) -> None:  # fmt: skip
    """Compare systems by scores that you have, and write the page: which differ, for other rows or other seeds.

    FILE is a table (csv, tsv, json, jsonl, parquet) with the columns system, row and score, or what docs/compare.md
    lists; DIR a folder of such a kind. Of several data sets each gets a page, beside one over them all.
    """
    from hpml_bench.comparison.assemble import assemble
    from hpml_bench.comparison.inputs import read

    wanted = page_formats(formats)
    for option, given in (("--margin", margin), ("--largest-difference", options["largest"])):
        if given is not None and not 0 < given < math.inf:
            raise UserError(f"{option} {given:g}: give a difference above 0, in the score's unit")
    title = inputs[0].stem if len(inputs) == 1 else "scores"
    renamed = _columns(columns)
    metric = metric or renamed.pop("score", None)
    ends = None
    if bounds is not None:
        try:
            low, high = map(float, bounds.split(","))
        except ValueError:
            raise UserError(f"--range {bounds}: give the least and the largest score, as 0,1") from None
        ends = (low, high)
    found = assemble(read(inputs, metric, group, renamed), bounds=ends, title=title, **options)
    show(found, out, wanted, margin, look)


def show(
    found: Sequence[AlignedScores], out: Path, wanted: tuple[str, ...], margin: float | None = None,
    look: int | None = None,
) -> None:  # fmt: skip
    from hpml_bench.cli.reporting import shown
    from hpml_bench.comparison.page import write
    from hpml_bench.report.render import load_libraries

    load_libraries()
    written = write(found, out, wanted, margin, look)
    for page in written.pages[:-1]:
        shown(page, ())
        click.echo()
    shown(written.pages[-1], written.files)
    if len(found) > 1:
        click.echo(for_terminal(f"{len(found)} data sets, a page each in {out}/NAME/"))
    for sentence in written.apart:
        click.echo(for_terminal(sentence))


def _columns(text: str | None) -> dict[str, str]:
    from hpml_bench.comparison.inputs import NAMES, WHERE

    pairs = [part.partition("=") for part in text.split(",")] if text else []
    known = [name for name in NAMES if name != WHERE]
    for ours, _, theirs in pairs:
        if ours not in known or not theirs:
            raise UserError(
                f"--columns {text}: give OURS=THEIRS, with commas between; OURS is one of {', '.join(known)}"
            )
    return {ours: theirs for ours, _, theirs in pairs}
