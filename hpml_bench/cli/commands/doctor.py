"""`hpml-bench doctor`: what of this machine fits, and what to do about the rest."""

from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.exit_status import FAILED, OK

if TYPE_CHECKING:
    from hpml_bench.doctor.check import Check


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of the checks, with name, state, finding, advice.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check this machine: devices, memory, disks, packages, network; what to do about what is missing.

    Each line is ok, warn (something may be missing or go wrong) or fail (the suite quickstart can't run here). Exit
    status 1 if any is fail.
    """
    from hpml_bench.doctor.check import look
    from hpml_bench.doctor.checks import CHECKS
    from hpml_bench.report.terminal import WIDE

    found = []
    names = max(len(check.__name__) for check in CHECKS)
    width = shutil.get_terminal_size((WIDE, 24)).columns
    for check in look(CHECKS):
        found.append(check)
        if not as_json:
            click.echo(lines(check, names, width))
    failed = [check.name for check in found if check.state == "fail"]
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=1))
    elif failed:
        click.echo(textwrap.fill(f"quickstart can't run here: see {', '.join(failed)}", width))
    else:
        click.echo("quickstart can run here: hpml-bench run-all")
    context.exit(FAILED if failed else OK)


def lines(check: Check, names: int, width: int) -> str:
    """Return a check's state, name and finding, and beneath it the advice, wrapped to a width."""
    start = f"{check.state:<4}  {check.name:<{names}}  "
    fold = textwrap.TextWrapper(max(width, len(start) + 20), break_long_words=False, break_on_hyphens=False)
    fold.subsequent_indent = " " * len(start)
    texts = [f"{start}{check.finding}"] + ([f"{fold.subsequent_indent}-> {check.advice}"] if check.advice else [])
    return "\n".join(fold.fill(text) for text in texts)
