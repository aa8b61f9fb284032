"""`hpml-bench run-all`."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.exit_status import FAILED, INTERRUPTED, OK
from hpml_bench.cli.options import METHODS, Asked, Elsewhere, elsewhere, limited, load, names, shared
from hpml_bench.cli.report import write

if TYPE_CHECKING:
    from pathlib import Path

    from hpml_bench.launch.limits import Limits
    from hpml_bench.suite.suite import Suite


@click.command("run-all")
@click.argument("suite", default="quickstart")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Number of seeds; the suite's own if not given.")
@METHODS
@shared
@limited
@elsewhere
@click.pass_context
def run_all(
    ctx: click.Context,
    suite: str,
    seeds: int | None,
    methods: str | None,
    asked: Asked,
    limits: Limits,
    elsewhere: Elsewhere,
) -> None:
    """Run every method and seed of SUITE (a packaged suite's name, or a YAML file), then write the report.

    Runs that are recorded are not repeated: call it again after a crash and it goes on.
    """
    loaded = load(suite, asked.overrides, seeds=seeds, world_size=asked.nproc, device=asked.device)
    chosen = None if methods is None else names(methods)
    if elsewhere.asked:
        from hpml_bench.cli.on import sweep_on

        ctx.exit(sweep_on(loaded, chosen, asked, limits, elsewhere))
    if elsewhere.detach or elsewhere.dry_run:
        from hpml_bench.errors import UserError

        option = "--detach" if elsewhere.detach else "--dry-run"
        raise UserError(f"{option} is of a sweep that jobs do; give --on PROFILE too")
    ctx.exit(sweep(loaded, chosen, None, asked, limits))


def sweep(
    suite: Suite, methods: list[str] | None, seed: int | None, asked: Asked, limits: Limits, save: Path | None = None
) -> int:
    """Run, report, and return the exit status."""
    from hpml_bench.plugins.tracker import make_trackers
    from hpml_bench.report.model_card import write_card
    from hpml_bench.report.terminal import terminal
    from hpml_bench.sweep.local import run_sweep
    from hpml_bench.system import disk
    from hpml_bench.system.signals import stoppable

    trackers = make_trackers(asked.trackers)
    with (
        disk.errors_as_user_errors(asked.out),
        stoppable(),
    ):  # for the report too: signals end it, disk errors are told
        result = run_sweep(
            suite, asked.out, terminal(), methods,
            fresh=asked.fresh, verbose=asked.verbose, trackers=trackers, seed=seed, limits=limits,
            save=save,
        )  # fmt: skip
        if result.records:
            write(result.folder, None, ["html", "md"], trackers)
        if save is not None and result.records and result.records[0].status == "ok":
            write_card(result.records[0], save)
            click.echo(save)
        elif save is not None:  # a folder that looks like a saved model holds one
            shutil.rmtree(save, ignore_errors=True)
    if result.interrupted:
        click.echo("interrupted; the same command goes on from here", err=True)
        return INTERRUPTED
    if result.failed:
        click.echo(
            f"{result.failed} of {len(result.records)} runs did not end well; see the report's failures", err=True
        )
    if result.ended_by:
        click.echo(f"ended by {result.ended_by} with runs left to do; the same command goes on from here", err=True)
    return FAILED if result.failed or result.ended_by else OK
