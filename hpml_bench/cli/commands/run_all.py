"""`hpml-bench run-all`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpml_bench.cli.local import sweep
from hpml_bench.cli.options import METHODS, JobOptions, RunOptions, by_jobs, limited, load, names, shared

if TYPE_CHECKING:
    from hpml_bench.records.limits import Limits


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
    methods: str | None,
    options: RunOptions,
    limits: Limits,
    jobs: JobOptions,
) -> None:
    """Run every method and seed of SUITE (a packaged suite's name, or a YAML file), then write the report.

    Runs that are recorded are not repeated: call it again after a crash and it goes on.
    """
    loaded = load(suite, options.overrides, seeds=seeds, world_size=options.nproc, device=options.device)
    request = options.request(loaded, limits, None if methods is None else names(methods))
    if jobs.by_jobs:
        from hpml_bench.cli.on import sweep_on

        ctx.exit(sweep_on(request, jobs, options.trackers))
    if jobs.detach or jobs.dry_run:
        from hpml_bench.errors import UserError

        raise UserError(f"{'--detach' if jobs.detach else '--dry-run'} needs --on PROFILE")
    ctx.exit(sweep(request, options.trackers))
