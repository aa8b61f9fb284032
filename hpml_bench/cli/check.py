"""The command `check`, and what it shares with `baseline`. Nothing heavy is imported until the command needs it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpml_bench.cli import options
from hpml_bench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from hpml_bench.gate.check import Request
    from hpml_bench.gate.measure.sides import ComparedSides
    from hpml_bench.gate.records import CheckReport

FILE = click.Path(path_type=Path, dir_okay=False)


def _share(ctx: click.Context, param: click.Parameter, value: str) -> float:  # noqa: ARG001 - click's signature
    """Return a share above 0, written as 3% or 0.03, as a fraction."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", value)
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share <= 1:
        raise click.BadParameter(f"{value!r} is no share between 0 and 100 %, as 3% or 0.03")
    return share


def workload_options(function: options.Function) -> options.Function:
    """Add the options that say what is trained."""
    added: list[options.Option] = [
        click.argument("suite", default="quickstart"),
        click.option("--methods", metavar="A,B", help="Only these; lora, prompt_tuning and adapter if not given."),
        options.overrides("Override a setting. Repeatable."),
        click.option("--max-minutes", "minutes", type=click.FloatRange(0, min_open=True), metavar="M",
                     help="Stop in time, decided or not."),
    ]  # fmt: skip
    for option in reversed(added):
        function = option(function)
    return function


class Annotated(click.Command):
    """A command whose usage errors also become annotations where it runs in a GitHub workflow."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options."""
        with _mistakes_annotated():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _mistakes_annotated():
            return super().invoke(ctx)


@click.command(cls=Annotated)
@workload_options
@click.option("--against", metavar="REV", help="Compare the project here, as it is, with this git revision of it.")
@click.option("--against-env", metavar="PYTHON", help="Compare this interpreter with another, and what each has.")
@click.option("--baseline", type=FILE, metavar="FILE", help="Compare with runs that were saved on this hardware.")
@click.option("--self-test", is_flag=True, help="Try the gate itself: trials of equals, and of a slowed side.")
@click.option("--counts-only", is_flag=True, help="Only what has no noise: FLOPs, operators, collectives, memory.")
@click.option("--strict", is_flag=True, help="Status 3 when something is inconclusive or incomparable.")
@click.option("--trials", type=click.IntRange(1, 10_000), default=5, show_default=True, metavar="N",
              help="Self-test: trials of equals; a slowed one is added to every five.")  # fmt: skip
@click.option("--slowdown", callback=_share, default="3%", show_default=True, metavar="SHARE",
              help="Self-test: how much slower the slowed side is; else the slowdown that must not pass.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports/self-test"), show_default=True,
              metavar="DIR", help="Self-test: a file for each trial; what is there is not repeated.")  # fmt: skip
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="The whole report, with every block.")
@click.option("--junit", type=FILE, metavar="FILE", help="JUnit XML.")
@click.option("--markdown", type=FILE, metavar="FILE", help="For a pull request.")
@click.option("--html", type=FILE, metavar="FILE", help="A page with the blocks drawn.")
@click.pass_context
def check(  # noqa: PLR0913, PLR0917 - a command's options
    ctx: click.Context,
    /,
    suite: str,
    methods: str | None,
    overrides: tuple[str, ...],
    minutes: float | None,
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
    """Tell whether a training step of SUITE got slower, or heavier.

    Exit status: 0 pass, 1 regression, 2 error or nothing measured, 3 undecided and --strict, 130 interrupted.
    """
    _exactly_one(against, against_env, baseline, self_test)
    from hpml_bench.gate.render import outputs
    from hpml_bench.system.signals import stoppable

    with stoppable(), bugs_are_errors():
        asked = gate_request(suite, methods, overrides, minutes, slowdown, counts_only)
        if self_test:
            _refuse_with_self_test({"strict": strict, "counts-only": counts_only, **files})
            click.echo(asked.title)
            ctx.exit(_self_test(asked, trials, slowdown, out))
        files["json"] = files.pop("json_file")
        outputs.try_out(**files)  # now, not after ten minutes
        click.echo(asked.title)
        if baseline is not None:
            from hpml_bench.gate.baseline import check as check_baseline

            report = check_baseline(asked, baseline, click.echo)
        else:
            from hpml_bench.gate.check import check as run_check

            report = run_check(asked, _comparison(against, against_env, asked), click.echo)
        ctx.exit(_hand_over(report, strict, **files))


@contextmanager
def _mistakes_annotated() -> Iterator[None]:
    try:
        yield
    except (click.ClickException, UserError) as error:
        from hpml_bench.gate.render import github

        github.emit_error(error.format_message() if isinstance(error, click.ClickException) else str(error))
        raise


@contextmanager
def bugs_are_errors() -> Iterator[None]:
    """Turn unexpected exceptions into user errors with status 2: Python's and click's status 1 means a regression."""
    try:
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


def _refuse_with_self_test(given_options: dict[str, object]) -> None:
    given = [name.removesuffix("_file") for name, value in given_options.items() if value]
    if given:
        raise UserError(f"--{given[0]}: goes with a check, not with --self-test, which writes its trials to --out")


def _exactly_one(*modes: object) -> None:
    if sum(bool(mode) for mode in modes) != 1:
        raise UserError(
            "say what to compare with: give exactly one of --against REV, --against-env PYTHON, --baseline FILE and "
            "--self-test"
        )


def gate_request(
    suite: str,
    methods: str | None,
    overrides: tuple[str, ...],
    minutes: float | None,
    target: float = 0.03,
    counts_only: bool = False,
) -> Request:
    """Return the gate's request.

    Raises:
        UserError: the suite, a method or the slowdown is wrong.

    """
    from hpml_bench.gate.check import request
    from hpml_bench.gate.records import Rules

    try:
        rules = Rules(target=target)
    except ValueError:
        raise UserError(f"--slowdown {target:.2%}: must be above the {Rules().null:.0%} that is let through") from None
    names = None if methods is None else options.names(methods)
    return replace(request(options.load(suite, overrides), names, rules, minutes), time=not counts_only)


def _comparison(against: str | None, against_env: str | None, asked: Request) -> ComparedSides:
    from hpml_bench.gate.measure import revisions

    if against is not None:
        return revisions.against_revision(against, Path.cwd(), asked.plugins())
    assert against_env is not None  # noqa: S101 - one of the two is given
    return revisions.against_environment(against_env)


def _self_test(asked: Request, trials: int, slowdown: float, out: Path) -> int:
    from hpml_bench.gate import selftest
    from hpml_bench.gate.decide.rates import summarise

    summary = summarise(selftest.run(asked, trials, slowdown, asked.minutes, out, click.echo))
    for sentence in summary.sentences(slowdown):
        click.echo(sentence)
    return summary.status


def _hand_over(report: CheckReport, strict: bool, **files: Path | None) -> int:
    """Show the report, write it, and return the exit status."""
    from hpml_bench.gate.decide import verdicts
    from hpml_bench.gate.render import github, outputs
    from hpml_bench.report.terminal import terminal

    print_report(report, terminal())
    try:
        github.emit(report)
    finally:  # written even if GitHub's summary can't be
        outputs.write(report, **files)
    return verdicts.exit_status(report.verdicts, strict)


def print_report(report: CheckReport, console: Console) -> None:
    """Print sides, tables, what is wrong in a sentence each, what is undecided, and the outcome as the last line."""
    from rich.text import Text

    from hpml_bench.gate.decide.verdicts import exit_status, overall
    from hpml_bench.gate.render import tables
    from hpml_bench.report.terminal import print_table
    from hpml_bench.system.text import for_terminal

    console.print(Text(for_terminal(f"{tables.side(report.candidate)} against {tables.side(report.reference)}")))
    if tables.of_step_time(report):
        print_table(tables.step_times(report), console)
    changed = tables.counted(report, changed_only=True)
    if changed.rows:
        print_table(changed, console)
    for sentence in filter(None, [tables.unchanged(report), *tables.notes(report), *tables.details(report)]):
        console.print(Text(for_terminal(sentence)))
    if exit_status(report.verdicts, strict=False) != exit_status(report.verdicts, strict=True):
        console.print("what is not decided leaves the exit status at 0; with --strict it is 3")
    color = {"PASS": "green", "FAIL": "red"}.get(overall(report.verdicts), "yellow")
    console.print(Text(for_terminal(tables.headline(report)), style=f"bold {color}"))
