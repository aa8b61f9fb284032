"""`hpml-bench work`: the work of a sweep's job."""

from pathlib import Path

import click

from hpml_bench.cli.exit_status import FAILED, INTERRUPTED, OK
from hpml_bench.system.errors import UserError


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--unit", type=click.IntRange(0), metavar="K", help="Number of the unit, from 0.")
@click.option("--prepare", is_flag=True, help="Prepare model and data only.")
@click.pass_context
def work(ctx: click.Context, plan: Path, unit: int | None, prepare: bool) -> None:
    """Do the remaining runs of one unit of PLAN, a results folder's plan.json.

    Jobs call it; so may any scheduler. It may be called again at any time, and does the runs that
    are left.
    """
    from hpml_bench.sweep import job
    from hpml_bench.system import disk

    if prepare == (unit is not None):
        raise UserError("work: give either --unit K or --prepare")
    with disk.errors_as_user_errors(plan.parent):
        if unit is None:
            job.prepare(plan)
            return
        ending = job.work(plan, unit)
    if ending.how == "interrupted":
        ctx.exit(INTERRUPTED)
    ctx.exit(OK if ending.how == "done" and not ending.failed else FAILED)
