"""Command line's part of the gate: options, requests, errors, and the report on a terminal."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpml_bench.cli import options
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from hpml_bench.gate.check import Request
    from hpml_bench.gate.records import CheckReport

FILE = click.Path(path_type=Path, dir_okay=False)


def share(ctx: click.Context, param: click.Parameter, value: str) -> float:  # noqa: ARG001 - click's signature
    """Return a share above 0, written as 3% or 0.03, as a fraction."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", value)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share <= 1:
        raise click.BadParameter(f"{value!r} is no share between 0 and 100 %, as 3% or 0.03")
    return share


@dataclass(frozen=True)
class WorkloadOptions:
    """Options of the work that is timed."""

    suite: str
    methods: tuple[str, ...] | None
    overrides: tuple[str, ...]
    minutes: float | None

    def request(self, target: float = 0.03, counts_only: bool = False) -> Request:
        """Return the gate's request; a `UserError` where the suite, a method or the slowdown is invalid."""
        from hpml_bench.gate.check import request
        from hpml_bench.gate.records import Rules

        try:
            rules = Rules(target=target)
        except ValueError:
            raise UserError(
                f"--slowdown {target:.2%}: must be above the {Rules().null:.0%} that is let through"
            ) from None
        suite = options.load(self.suite, self.overrides)
        return replace(request(suite, self.methods, rules, self.minutes), time=not counts_only)


workload_options = options.bundle("workload", lambda: WorkloadOptions, [
    click.argument("suite", default="quickstart"),
    options.methods("Only these methods; else lora, prompt_tuning and adapter."),
    options.overrides("Override a setting. Repeatable."),
    click.option("--max-minutes", "minutes", type=click.FloatRange(0, min_open=True), metavar="M",
                 help="Stop after M minutes at most, decided or not."),
])  # fmt: skip


@contextmanager
def _mistakes_annotated() -> Iterator[None]:
    try:
        yield
    except (click.ClickException, UserError) as error:
        from hpml_bench.gate.outputs import annotate_error

        annotate_error(error.format_message() if isinstance(error, click.ClickException) else str(error))
        raise


class Annotated(click.Command):
    """A command whose usage errors also become annotations where it runs in a GitHub workflow."""

    parse_args = _mistakes_annotated()(click.Command.parse_args)
    invoke = _mistakes_annotated()(click.Command.invoke)


@contextmanager
def bugs_are_errors() -> Iterator[None]:
    """Turn unexpected exceptions into user errors with status 2: Python's and click's status 1 means a regression."""
    from hpml_bench.system.signals import stoppable

    try:
        with stoppable():  # signals end the body
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, UserError):
        raise
    except Exception as error:  # a bug of the gate is no regression of what it checks
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}, in {place.name}"
        raise UserError(
            f"an error of hpml-bench itself: {type(error).__name__}: {error} ({where}); it says nothing about the code "
            "that was checked; please report it"
        ) from None


def print_report(report: CheckReport, console: Console) -> None:
    """Print the sides, tables, a sentence for each change, a note on undecided verdicts, and last the outcome."""
    from rich.text import Text

    from hpml_bench.gate import page
    from hpml_bench.gate.verdicts import exit_status, of_step_time, overall
    from hpml_bench.report.terminal import print_table

    console.print(Text(for_terminal(f"{page.side(report.candidate)} against {page.side(report.reference)}")))
    if of_step_time(report):
        print_table(page.step_times(report), console)
    changed = page.counted(report, changed_only=True)
    if changed.rows:
        print_table(changed, console)
    for sentence in filter(None, [page.unchanged(report), *page.remarks(report)]):
        console.print(Text(for_terminal(sentence)))
    if exit_status(report.verdicts, strict=False) != exit_status(report.verdicts, strict=True):
        console.print("what is not decided leaves the exit status at 0; with --strict it is 3")
    color = {"PASS": "green", "FAIL": "red"}.get(overall(report.verdicts), "yellow")
    console.print(Text(for_terminal(page.headline(report)), style=f"bold {color}"))
