"""`hpml-bench run-all`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.conflicts import refuse_conflicts
from hpml_bench.cli.exit_status import INTERRUPTED, OK, ended
from hpml_bench.cli.options import (
    METHODS,
    JobOptions,
    RunOptions,
    SeedOptions,
    by_jobs,
    how_many_seeds,
    limited,
    load,
    shared,
)
from hpml_bench.cli.reporting import write

if TYPE_CHECKING:
    from hpml_bench.plugins.tracker import Tracker
    from hpml_bench.records.plan import Limits
    from hpml_bench.sweep.request import SweepRequest


@click.command("run-all")
@click.argument("suite", default="quickstart")
@how_many_seeds
@click.option(
    "--prior",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="Results of an earlier suite with the same methods, whose variance over seeds this one's "
    "is estimated with. Repeatable; it counts from the first run on.",
)
@METHODS
@shared
@limited
@by_jobs
@click.pass_context
def run_all(
    ctx: click.Context,
    suite: str,
    wanted: SeedOptions,
    prior: tuple[Path, ...],
    methods: tuple[str, ...] | None,
    options: RunOptions,
    limits: Limits,
    jobs: JobOptions,
) -> None:
    """Run every method and seed of SUITE (a packaged suite's name, or a YAML file), then write the
    report.

    Runs that are recorded are not repeated: call it again after a crash and it goes on.
    """
    loaded = load(
        suite,
        options.overrides,
        seeds=wanted.seeds,
        world_size=options.nproc,
        device=options.device,
    )
    loaded = loaded.asked(wanted.until, wanted.max_seeds, wanted.seeds, wanted.looks)
    request = options.request(loaded, limits, methods)
    refuse_conflicts(jobs, limits, raced=request.suite.until is not None)
    from hpml_bench.cli.on import profile_of, sweep_on
    from hpml_bench.plugins.tracker import make_trackers
    from hpml_bench.records.load import headlines
    from hpml_bench.sweep.execute import Ending
    from hpml_bench.sweep.prior import with_prior
    from hpml_bench.sweep.race import rounds, span

    request = with_prior(request, prior)
    if request.suite.prior:
        click.echo(f"variance over seeds estimated with that of {request.suite.prior}", err=True)
    if request.suite.until is not None:
        click.echo(span(request, request.suite.until), err=True)
    # before any run: a tracker that can't be used is refused
    trackers = () if jobs.dry_run else make_trackers(options.trackers)
    statuses: list[int] = []
    for part in rounds(request, click.echo, profile_of(jobs) if jobs.ahead else None):
        statuses.append(sweep_on(part, jobs, trackers) if jobs.given else sweep(part, trackers))
        if statuses[-1] == INTERRUPTED or jobs.dry_run:
            break
    if not statuses and not jobs.dry_run:  # it had ended; its page may be missing, or older
        write(request.folder, None, ["html", "md"], trackers)
        recorded = [of.status for of in headlines(request.folder)]
        statuses.append(ended(Ending(), recorded, len(recorded)))
    ctx.exit(max(statuses, default=OK))


def sweep(request: SweepRequest, trackers: Sequence[Tracker]) -> int:
    from hpml_bench.page.model_card import write_card
    from hpml_bench.page.terminal import terminal
    from hpml_bench.records.folder import RunFolder
    from hpml_bench.sweep.local import run_sweep
    from hpml_bench.system import disk
    from hpml_bench.system.signals import stoppable

    # for the report too: signals end it, and disk errors are the user's
    with disk.errors_as_user_errors(request.out), stoppable():
        result = run_sweep(request, terminal(), trackers)
        if result.records:
            write(result.folder, None, ["html", "md"], trackers, result.records)
        if request.save is not None and result.records and result.records[0].status == "ok":
            record = result.records[0]
            RunFolder(result.folder / record.run_id).give(request.save)
            write_card(record, request.save)
            click.echo(request.save)
        elif request.save is not None:  # a folder that looks like a saved model must have one
            shutil.rmtree(request.save, ignore_errors=True)
    return ended(result.ending, [record.status for record in result.records], result.runs)
