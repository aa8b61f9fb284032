"""`hpml-bench check`; the work that is timed, and what becomes of errors, as `hpml-bench
baseline` has them too.
"""

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
    from hpml_bench.gate.sides import ComparedSides

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
        """Return the gate's request; a `UserError` where the suite, a method or the slowdown is
        invalid.
        """
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


workload_options = options.bundle(
    "workload",
    lambda: WorkloadOptions,
    [
        click.argument("suite", default="quickstart"),
        options.methods("Only these methods; else lora, prompt_tuning and adapter."),
        options.overrides("Override a setting. Repeatable."),
        click.option(
            "--max-minutes",
            "minutes",
            type=click.FloatRange(0, min_open=True),
            metavar="M",
            help="Stop after M minutes at most, decided or not.",
        ),
    ],
)


@contextmanager
def _mistakes_annotated() -> Iterator[None]:
    try:
        yield
    except (click.ClickException, UserError) as error:
        from hpml_bench.gate.outputs import annotate_error

        annotate_error(
            error.format_message() if isinstance(error, click.ClickException) else str(error)
        )
        raise


class Annotated(click.Command):
    """A command whose usage errors also become annotations where it runs in a GitHub workflow."""

    parse_args = _mistakes_annotated()(click.Command.parse_args)
    invoke = _mistakes_annotated()(click.Command.invoke)


@contextmanager
def bugs_are_errors() -> Iterator[None]:
    """Turn unexpected exceptions into user errors with status 2: Python's and click's status 1
    means a regression.
    """
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
            f"an error of hpml-bench itself: {type(error).__name__}: {error} ({where}); it says "
            "nothing about the code that was checked; please report it"
        ) from None


@click.command(cls=Annotated)
@workload_options
@click.option(
    "--against",
    metavar="REV",
    help="Compare the project here, as it is, with this git revision of it.",
)
@click.option(
    "--against-env", metavar="PYTHON", help="Compare this interpreter's environment with another's."
)
@click.option(
    "--baseline",
    type=FILE,
    metavar="FILE",
    help="Compare with runs that were saved on this hardware.",
)
@click.option(
    "--self-test",
    is_flag=True,
    help="Test the gate itself: trials of equal sides, and of a slowed one.",
)
@click.option(
    "--counts-only",
    is_flag=True,
    help="Only noise-free counts: FLOPs, operators, collectives, memory.",
)
@click.option(
    "--strict", is_flag=True, help="Status 3 when something is inconclusive or incomparable."
)
@click.option(
    "--trials",
    type=click.IntRange(1, 10_000),
    default=5,
    show_default=True,
    metavar="N",
    help="Self-test: trials of equal sides; a slowed one is added to every five.",
)
@click.option(
    "--slowdown",
    callback=share,
    default="3%",
    show_default=True,
    metavar="SHARE",
    help="Self-test: slowdown of the slowed side; else the slowdown that must not pass.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("reports/self-test"),
    show_default=True,
    metavar="DIR",
    help="Self-test: a file per trial; recorded trials are not repeated.",
)
@click.option(
    "--json", "json_file", type=FILE, metavar="FILE", help="The whole report, with every block."
)
@click.option("--junit", type=FILE, metavar="FILE", help="JUnit XML.")
@click.option("--markdown", type=FILE, metavar="FILE", help="For a pull request.")
@click.option("--html", type=FILE, metavar="FILE", help="A page with the blocks drawn.")
@click.pass_context
def check(  # noqa: PLR0913, PLR0917 - a command's options
    ctx: click.Context,
    /,
    workload: WorkloadOptions,
    against: str | None,
    against_env: str | None,
    baseline: Path | None,
    self_test: bool,
    counts_only: bool,
    strict: bool,
    trials: int,
    slowdown: float,
    out: Path,
    **files: Path | None,
) -> None:
    """Check whether a training step of SUITE got slower, or heavier.

    Exit status: 0 pass, 1 regression, 2 error or nothing measured, 3 undecided and --strict, 130
    interrupted.
    """
    if sum(map(bool, (against, against_env, baseline, self_test))) != 1:
        raise UserError(
            "say what to compare with: give exactly one of --against REV, --against-env PYTHON, "
            "--baseline FILE and --self-test"
        )
    files["json"] = files.pop("json_file")
    with bugs_are_errors():
        from hpml_bench.gate import outputs, selftest, verdicts
        from hpml_bench.gate.baseline import check as check_baseline
        from hpml_bench.gate.check import check as run_check
        from hpml_bench.page.terminal import terminal

        request = workload.request(slowdown, counts_only)
        given = {"strict": strict, "counts-only": counts_only, **files} if self_test else {}
        if unheeded := [name for name, value in given.items() if value]:
            raise UserError(
                f"--{unheeded[0]}: goes with a check, not with --self-test, which writes its "
                f"trials to --out"
            )
        outputs.check_writable(**files)  # now, not after ten minutes
        click.echo(f"suite {request.suite}, {', '.join(request.names)}")
        if self_test:
            made = selftest.run(request, trials, slowdown, request.minutes, out, click.echo)
            status, told = selftest.summary(made, slowdown)
            for sentence in told:
                click.echo(sentence)
            ctx.exit(status)
        if baseline is not None:
            report = check_baseline(request, baseline, click.echo)
        else:
            report = run_check(request, _comparison(against, against_env, request), click.echo)
        print_report(report, terminal())
        try:
            outputs.annotate(report)
        finally:  # written even if GitHub's summary can't be
            outputs.write(report, **files)
        ctx.exit(verdicts.exit_status(report.verdicts, strict))


def _comparison(against: str | None, against_env: str | None, request: Request) -> ComparedSides:
    from hpml_bench.gate import sides

    if against is not None:
        return sides.against_revision(against, Path.cwd(), request.plugins())
    assert against_env is not None  # noqa: S101 - one of the two is given
    return sides.against_environment(against_env)


def print_report(report: CheckReport, console: Console) -> None:
    """Print the sides, tables, a sentence for each change, a note on undecided verdicts, and
    last the outcome.
    """
    from rich.text import Text

    from hpml_bench.gate import page
    from hpml_bench.gate.verdicts import exit_status, of_step_time, overall
    from hpml_bench.page.terminal import print_table

    console.print(
        Text(for_terminal(f"{page.side(report.candidate)} against {page.side(report.reference)}"))
    )
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
