"""`hpml-bench tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from hpml_bench.cli.exit_status import FAILED, OK, ended
from hpml_bench.cli.options import DEVICE, METHODS, NPROC, VERBOSE, limited, load, out, overrides

if TYPE_CHECKING:
    from hpml_bench.records.plan import Limits


@click.command()
@click.argument("suite", default="quickstart")
@click.option("--trials", type=click.IntRange(1, 1000), default=9, show_default=True, metavar="N",
              help="Runs of each method, each of the suite's whole budget.")  # fmt: skip
@METHODS
@out("Trials go to DIR/SUITE/tuning.")
@overrides("Override a setting. Repeatable.")
@NPROC
@DEVICE
@click.option("--sampler", type=click.Choice(["qmc", "tpe"]), default="qmc", show_default=True,
              help="Optuna's sampler: qmc tries the same multiples for all methods, tpe favours rates near good ones.",
              )  # fmt: skip
@click.option("--range", "factor", type=click.FloatRange(1, 1e6, min_open=True), default=10.0, show_default=True,
              metavar="FACTOR", help="From a method's rate / FACTOR to its rate x FACTOR.")  # fmt: skip
@click.option("--write", type=click.Path(path_type=Path), metavar="FILE",
              help="File of the suite with the chosen rates; DIR/SUITE/tuning/SUITE-tuned.yaml if not given.",
              )  # fmt: skip
@VERBOSE
@limited
@click.pass_context
def tune(  # noqa: PLR0913, PLR0917 - a command's options
    ctx: click.Context, suite: str, trials: int, methods: tuple[str, ...] | None, out: Path,
    overrides: tuple[str, ...], nproc: int | None, device: str | None, sampler: Literal["qmc", "tpe"], factor: float,
    write: Path | None, verbose: bool, limits: Limits,
) -> None:  # fmt: skip
    """Choose each method's learning rate on the validation rows of SUITE, with equally many trials for all.

    Trials that are recorded are not repeated: call it again after a crash and it goes on.
    """
    from hpml_bench.cli.tuned import show
    from hpml_bench.report.terminal import terminal
    from hpml_bench.sweep.plan import SweepRequest
    from hpml_bench.sweep.tune import TuningRequest, run_tuning

    loaded = load(suite, overrides, world_size=nproc, device=device)
    sweep = SweepRequest(loaded, out, methods, limits=limits, verbose=verbose)
    result = run_tuning(TuningRequest(sweep, trials, write, sampler, factor), terminal())
    show(result.record, terminal())
    if status := ended(result.ending, what="trials"):
        ctx.exit(status)
    ends = "; with --until decided it ends when the best is shown" if len(loaded.methods) > 2 else ""
    click.echo(f"{result.suite_file}: run it with hpml-bench run-all {result.suite_file}{ends}")
    ctx.exit(OK if all(tuned.best for tuned in result.record.methods) else FAILED)
