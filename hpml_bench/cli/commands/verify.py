"""`hpml-bench verify`: whether a results folder contradicts itself."""

import shutil
import textwrap
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import click

from hpml_bench.cli.exit_status import FAILED, OK
from hpml_bench.cli.reporting import result_folders
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal

UNSEEN = (
    "No check of a folder finds runs that were invented or left out whole, or margins and looks "
    "that were changed in all records alike: repeat a run (docs/submit.md)."
)
SHOWN = 5  # findings of a check that are printed; verified.json has them all


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.pass_context
def verify(context: click.Context, folder: Path) -> None:
    """Check whether a results folder contradicts itself, and write verified.json beside its runs.

    Hashes, ids, predictions, points, self-checks, budget, order, plan, page; no secrets and no
    private paths. Each line is failed, not checked or ok. This shows consistency, not honesty:
    docs/submit.md. Exit status 1 if any failed.
    """
    from hpml_bench.page.terminal import WIDE
    from hpml_bench.system.checklist import lines
    from hpml_bench.verify.folder import VERIFIED
    from hpml_bench.verify.verify import verify as verified

    folder, *others = result_folders(folder)
    if others:
        raise UserError(
            f"{folder.parent} holds {1 + len(others)} results folders; name one of them, such as "
            f"{folder}"
        )
    width = shutil.get_terminal_size((WIDE, 24)).columns
    made = verified(folder)
    states, names = (
        max(len(getattr(check, key)) for check in made.checks) for key in ("state", "name")
    )
    for _, group in groupby(made.checks, key=lambda check: (check.state, check.name)):
        *first, last = (every := list(group))[:SHOWN]
        for check in (*(replace(one, advice="") for one in first), last):
            click.echo(lines(check, states, names, width))
        if every[SHOWN:]:
            click.echo(
                f"{'':{states + names + 4}}and {len(every) - SHOWN} more of {last.name}, in "
                f"{VERIFIED}"
            )
    changed = made.changed()
    path = made.write()
    click.echo()
    runs = (
        f"{made.runs} run{'' if made.runs == 1 else 's'}{f' of {made.suite}' if made.suite else ''}"
    )
    says = "consistent" if made.consistent else f"not consistent: see {', '.join(made.failed)}"
    click.echo(textwrap.fill(for_terminal(f"{runs}, {len(made.files)} files: {says}"), width))
    if made.consistent:
        click.echo(textwrap.fill(UNSEEN, width))
    if changed:
        some = ", ".join(changed[:3]) + (" ..." if changed[3:] else "")
        click.echo(
            textwrap.fill(for_terminal(f"since {VERIFIED} was last written changed: {some}"), width)
        )
    click.echo(for_terminal(f"sha256:{made.digest}"))
    click.echo(for_terminal(path))
    context.exit(OK if made.consistent else FAILED)
