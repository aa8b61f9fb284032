"""`hpml-bench tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from hpml_bench.cli.exit_status import FAILED, OK, ended
from hpml_bench.cli.options import DEVICE, METHODS, NPROC, VERBOSE, limited, load, out, overrides
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from hpml_bench.records.numbers import Cell
    from hpml_bench.records.plan import Limits
    from hpml_bench.records.tuning import TuningRecord


@click.command()
@click.argument("suite", default="quickstart")
@click.option(
    "--trials",
    type=click.IntRange(1, 1000),
    default=9,
    show_default=True,
    metavar="N",
    help="Runs of each method, each of the suite's whole budget.",
)
@METHODS
@out("Trials go to DIR/SUITE/tuning.")
@overrides("Override a setting. Repeatable.")
@NPROC
@DEVICE
@click.option(
    "--sampler",
    type=click.Choice(["qmc", "tpe"]),
    default="qmc",
    show_default=True,
    help=(
        "qmc tries the same multiples for all methods; tpe, of Optuna, favours rates near good "
        "ones."
    ),
)
@click.option(
    "--range",
    "factor",
    type=click.FloatRange(1, 1e6, min_open=True),
    default=10.0,
    show_default=True,
    metavar="FACTOR",
    help="From a method's rate / FACTOR to its rate x FACTOR.",
)
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File of the suite with the chosen rates; DIR/SUITE/tuning/SUITE-tuned.yaml if not given.",
)
@VERBOSE
@limited
@click.pass_context
def tune(  # noqa: PLR0913, PLR0917 - a command's options
    ctx: click.Context,
    suite: str,
    trials: int,
    methods: tuple[str, ...] | None,
    out: Path,
    overrides: tuple[str, ...],
    nproc: int | None,
    device: str | None,
    sampler: Literal["qmc", "tpe"],
    factor: float,
    write: Path | None,
    verbose: bool,
    limits: Limits,
) -> None:
    """Choose each method's learning rate on the validation rows of SUITE, with equally many trials
    for all.

    Trials that are recorded are not repeated: call it again after a crash and it goes on.
    """
    from hpml_bench.page.terminal import terminal
    from hpml_bench.sweep.request import SweepRequest
    from hpml_bench.sweep.tune import TuningRequest, run_tuning

    loaded = load(suite, overrides, world_size=nproc, device=device)
    sweep = SweepRequest(loaded, out, methods, limits=limits, verbose=verbose)
    result = run_tuning(TuningRequest(sweep, trials, write, sampler, factor), terminal())
    show(result.record, terminal())
    if status := ended(result.ending, what="trials"):
        ctx.exit(status)
    ends = (
        "; with --until decided it ends when the best is shown" if len(loaded.methods) > 2 else ""
    )
    click.echo(f"{result.suite_file}: run it with hpml-bench run-all {result.suite_file}{ends}")
    ctx.exit(OK if all(tuned.best for tuned in result.record.methods) else FAILED)


def show(record: TuningRecord, console: Console) -> None:
    """Print one row per method, then hints on choices to reconsider."""
    from rich.text import Text

    from hpml_bench.page.tables import table
    from hpml_bench.page.terminal import print_table
    from hpml_bench.records.numbers import Quantity

    score = Quantity.of(record.headline)
    columns = (
        "method",
        "chosen lr",
        "before",
        f"validation {score.title}",
        "tried",
        "trials",
        "seconds",
    )
    rows: list[list[Cell]] = []
    for tuned in record.methods:
        tried, best = [trial.lr for trial in tuned.trials], tuned.best_score
        rows.append(
            [
                tuned.name,
                f"{tuned.chosen:.3g}" if tuned.rated else "has none",
                f"{tuned.spec.lr:.3g}",
                "none ended well" if best is None else score.text(best, unit=True),
                f"{min(tried):.2g} to {max(tried):.2g}" if tried else "",
                str(len(tried)),
                f"{tuned.seconds:.0f}",
            ]
        )
    caption = f"{record.suite}: learning rates chosen on the validation rows"
    print_table(table("tuning", caption, columns, rows), console)
    for hint in hints(record):
        console.print(Text(for_terminal(hint)))


def hints(record: TuningRecord) -> list[str]:
    sentences = []
    for tuned in record.methods:
        if tuned.best is None:
            sentences.append(
                f"{tuned.name}: no trial ended well; it keeps {tuned.spec.lr:.3g}, see its logs"
            )
        elif tuned.at_edge:
            side = "below" if tuned.best.lr == min(trial.lr for trial in tuned.trials) else "above"
            sentences.append(
                f"{tuned.name}: the best rate is the last one tried; a better one may lie {side} "
                f"{tuned.best.lr:.3g}: "
                f"tune again with --set methods.{tuned.name}.lr={tuned.best.lr:.3g}"
            )
    return sentences
