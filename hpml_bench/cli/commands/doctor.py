"""`hpml-bench doctor`: what of this machine fits, and what to do about the rest."""

import json
import shutil
import textwrap
from dataclasses import asdict

import click

from hpml_bench.cli.exit_status import FAILED, OK

STATES = 4  # characters of the longest state


@click.command()
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a list of the checks, with name, state, finding, advice.",
)
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check this machine: devices, memory, disks, packages, network; what to do about what is
    missing.

    Each line is ok, warn (something may be missing or go wrong) or fail (the suite quickstart can't
    run here). Exit status 1 if any is fail.
    """
    from hpml_bench.doctor.checks import CHECKS, run_checks
    from hpml_bench.page.terminal import WIDE
    from hpml_bench.system.checklist import lines

    found = []
    names = max(len(check.__name__) for check in CHECKS)
    width = shutil.get_terminal_size((WIDE, 24)).columns
    for check in run_checks(CHECKS):
        found.append(check)
        if not as_json:
            click.echo(lines(check, STATES, names, width))
    failed = [check.name for check in found if check.state == "fail"]
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=1))
    elif failed:
        click.echo(textwrap.fill(f"quickstart can't run here: see {', '.join(failed)}", width))
    else:
        click.echo("quickstart can run here: hpml-bench run-all")
    context.exit(FAILED if failed else OK)
