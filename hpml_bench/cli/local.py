"""A sweep in this process, as `run-all` and `run` do it: runs, report, exit status."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.exit_status import FAILED, INTERRUPTED, OK
from hpml_bench.cli.reporting import write

if TYPE_CHECKING:
    from hpml_bench.sweep.request import SweepRequest


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
    if result.ending.how == "interrupted":
        click.echo("interrupted; the same command goes on from here", err=True)
        return INTERRUPTED
    if result.failed:
        click.echo(
            f"{result.failed} of {len(result.records)} runs did not end well; see the report's failures", err=True
        )
    if result.ending.how == "limit":
        click.echo(f"ended by {result.ending.why} with runs left to do; the same command goes on from here", err=True)
    return FAILED if result.failed or result.ending.how == "limit" else OK
