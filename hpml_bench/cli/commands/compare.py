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
    from hpml_bench.comparison.looks import Asked
    from hpml_bench.judge.scores import AlignedScores

MOST_NAMES = 3  # inputs that a title names


@click.command()
@click.argument(
    "inputs", metavar="FILE|DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write to; reports/compare/ and the inputs' name if not given.",
)
@click.option(
    "--metric", metavar="NAME", help="Score to compare by; a table's column, `score` if not given."
)
@click.option(
    "--columns",
    metavar="OURS=THEIRS,...",
    help="A table's names of columns, as system=model,row=question_id.",
)
@click.option(
    "--group", metavar="FIELD", help="Field of lm_eval's documents whose rows depend on each other."
)
@click.option("--margin", type=float, metavar="X", help="Difference of scores that counts as none.")
@click.option("--lower", is_flag=True, help="A lower score is better.")
@click.option(
    "--range", "bounds", metavar="LOW,HIGH", help="Least and largest score that a row can have."
)
@click.option(
    "--shared",
    is_flag=True,
    help="Compare the rows that all systems have; a verdict also takes the others.",
)
@click.option(
    "--independent",
    is_flag=True,
    help="The systems' errors are independent: test means without rows.",
)
@click.option(
    "--largest-difference",
    "largest",
    type=float,
    metavar="X",
    help="Largest difference of one row's real scores between two systems, declared beforehand.",
)
@click.option(
    "--look",
    type=click.IntRange(1, 1000),
    metavar="N",
    help=(
        "Times that these systems were tested, this one counted; by the pages in --out if not "
        "given."
    ),
)
@click.option(
    "--looks",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Times that these systems will be tested, declared before the first.",
)
@click.option("--format", "formats", default="html,md", show_default=True, metavar=FORMATS)
def compare(  # noqa: PLR0913, PLR0917 - the options
    inputs: tuple[Path, ...],
    out: Path | None,
    metric: str | None,
    columns: str | None,
    group: str | None,
    margin: float | None,
    bounds: str | None,
    look: int | None,
    looks: int | None,
    formats: str,
    **options: Any,
) -> None:
    """Compare systems by scores that you have, and write the page: which differ, for other rows or
    other seeds.

    FILE is a table (csv, tsv, json, jsonl, parquet) with the columns system, row and score, or what
    docs/compare.md lists; DIR a folder of such a kind. Of several data sets each gets a page,
    beside one over them all.
    """
    from hpml_bench.comparison.assemble import assemble
    from hpml_bench.comparison.inputs import read
    from hpml_bench.comparison.looks import Asked
    from hpml_bench.comparison.page import folders_of

    wanted = page_formats(formats)
    for option, given in (("--margin", margin), ("--largest-difference", options["largest"])):
        if given is not None and not 0 < given < math.inf:
            raise UserError(f"{option} {given:g}: give a difference above 0, in the score's unit")
    title = _title(inputs)
    renamed = _columns(columns)
    metric = metric or renamed.pop("score", None)
    ends = None
    if bounds is not None:
        try:
            low, high = map(float, bounds.split(","))
        except ValueError:
            raise UserError(
                f"--range {bounds}: give the least and the largest score, as 0,1"
            ) from None
        ends = (low, high)
    found = assemble(read(inputs, metric, group, renamed), bounds=ends, title=title, **options)
    # pages of other data are in other folders; one list counts the looks of all, since data may
    # grow in a new file
    counted = Path("reports", "compare") if out is None else out
    show(
        found, out or counted / folders_of([title])[0], wanted, margin, Asked(counted, look, looks)
    )


def show(
    found: Sequence[AlignedScores],
    out: Path,
    wanted: tuple[str, ...],
    margin: float | None = None,
    asked: Asked | None = None,
) -> None:
    from hpml_bench.cli.reporting import shown
    from hpml_bench.comparison.page import write
    from hpml_bench.page.render import load_libraries

    load_libraries()
    written = write(found, out, wanted, margin, asked)
    for page in written.pages[:-1]:
        shown(page, ())
        click.echo()
    shown(written.pages[-1], written.files)
    if len(found) > 1:
        click.echo(for_terminal(f"{len(found)} data sets, a page each in {out}/NAME/"))
    for sentence in written.apart:
        click.echo(for_terminal(sentence))


def _title(inputs: Sequence[Path]) -> str:
    """Return the name of data that the inputs don't name: that of their files, of many the first
    and their number.
    """
    from hpml_bench.system.files import real_path

    places = [real_path(path) for path in inputs]
    names = [*dict.fromkeys(place.name if place.is_dir() else place.stem for place in places)]
    return (
        " + ".join(names) if len(names) <= MOST_NAMES else f"{names[0]} + {len(names) - 1} others"
    )


def _columns(text: str | None) -> dict[str, str]:
    from hpml_bench.comparison.inputs import NAMES, WHERE

    pairs = [part.partition("=") for part in text.split(",")] if text else []
    known = [name for name in NAMES if name != WHERE]
    for ours, _, theirs in pairs:
        if ours not in known or not theirs:
            raise UserError(
                f"--columns {text}: give OURS=THEIRS, with commas between; OURS is one of "
                f"{', '.join(known)}"
            )
    return {ours: theirs for ours, _, theirs in pairs}
