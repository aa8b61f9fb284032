"""`hpml-bench run-all`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.exit_status import ended
from hpml_bench.cli.options import METHODS, JobOptions, RunOptions, by_jobs, limited, load, shared
from hpml_bench.cli.reporting import write

if TYPE_CHECKING:
    from hpml_bench.records.plan import Limits
    from hpml_bench.sweep.plan import SweepRequest


@click.command("run-all")
@click.argument("suite", default="quickstart")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Number of seeds; the suite's own if not given.")
@METHODS
@shared
@limited
@by_jobs
@click.pass_context
def run_all(
    ctx: click.Context,
    suite: str,
    seeds: int | None,
    methods: tuple[str, ...] | None,
    options: RunOptions,
    limits: Limits,
    jobs: JobOptions,
) -> None:
    """Run every method and seed of SUITE (a packaged suite's name, or a YAML file), then write the report.

    Runs that are recorded are not repeated: call it again after a crash and it goes on.
    """
    loaded = load(suite, options.overrides, seeds=seeds, world_size=options.nproc, device=options.device)
    request = options.request(loaded, limits, methods)
    if jobs.on is not None or jobs.parallel is not None:
        from hpml_bench.cli.on import sweep_on

        ctx.exit(sweep_on(request, jobs, options.trackers))
    if jobs.detach or jobs.dry_run:
        from hpml_bench.system.errors import UserError

        raise UserError(f"{'--detach' if jobs.detach else '--dry-run'} needs --on PROFILE")
    ctx.exit(sweep(request, options.trackers))


def sweep(request: SweepRequest, modes: Mapping[str, str]) -> int:
    """Run, report, publish to trackers in these modes, and return the exit status."""
    from hpml_bench.plugins.tracker import make_trackers
    from hpml_bench.report.model_card import write_card
    from hpml_bench.report.terminal import terminal
    from hpml_bench.sweep.local import run_sweep
    from hpml_bench.system import disk
    from hpml_bench.system.signals import stoppable

    trackers = make_trackers(modes)
    # for the report too: signals end it, and disk errors are the user's
    with disk.errors_as_user_errors(request.out), stoppable():
        result = run_sweep(request, terminal(), trackers)
        if result.records:
            write(result.folder, None, ["html", "md"], trackers)
        if request.save is not None and result.records and result.records[0].status == "ok":
            write_card(result.records[0], request.save)
            click.echo(request.save)
        elif request.save is not None:  # a folder that looks like a saved model must have one
            shutil.rmtree(request.save, ignore_errors=True)
    return ended(result.ending, [record.status for record in result.records], result.runs)
