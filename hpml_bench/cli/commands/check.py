"""`hpml-bench check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.gate import FILE, Annotated, WorkloadOptions, bugs_are_errors, print_report, share, workload_options
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from hpml_bench.gate.check import Request
    from hpml_bench.gate.records import CheckReport
    from hpml_bench.gate.sides import ComparedSides


@click.command(cls=Annotated)
@workload_options
@click.option("--against", metavar="REV", help="Compare the project here, as it is, with this git revision of it.")
@click.option("--against-env", metavar="PYTHON", help="Compare this interpreter's environment with another's.")
@click.option("--baseline", type=FILE, metavar="FILE", help="Compare with runs that were saved on this hardware.")
@click.option("--self-test", is_flag=True, help="Test the gate itself: trials of equal sides, and of a slowed one.")
@click.option("--counts-only", is_flag=True, help="Only noise-free counts: FLOPs, operators, collectives, memory.")
@click.option("--strict", is_flag=True, help="Status 3 when something is inconclusive or incomparable.")
@click.option("--trials", type=click.IntRange(1, 10_000), default=5, show_default=True, metavar="N",
              help="Self-test: trials of equal sides; a slowed one is added to every five.")  # fmt: skip
@click.option("--slowdown", callback=share, default="3%", show_default=True, metavar="SHARE",
              help="Self-test: slowdown of the slowed side; else the slowdown that must not pass.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports/self-test"), show_default=True,
              metavar="DIR", help="Self-test: a file per trial; recorded trials are not repeated.")  # fmt: skip
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="The whole report, with every block.")
@click.option("--junit", type=FILE, metavar="FILE", help="JUnit XML.")
@click.option("--markdown", type=FILE, metavar="FILE", help="For a pull request.")
@click.option("--html", type=FILE, metavar="FILE", help="A page with the blocks drawn.")
@click.pass_context
def check(  # noqa: PLR0913, PLR0917 - a command's options
    ctx: click.Context, /, workload: WorkloadOptions, against: str | None, against_env: str | None,
    baseline: Path | None, self_test: bool, counts_only: bool, strict: bool, trials: int, slowdown: float, out: Path,
    **files: Path | None,
) -> None:  # fmt: skip
    """Check whether a training step of SUITE got slower, or heavier.

    Exit status: 0 pass, 1 regression, 2 error or nothing measured, 3 undecided and --strict, 130 interrupted.
    """
    if sum(map(bool, (against, against_env, baseline, self_test))) != 1:
        raise UserError(
            "say what to compare with: give exactly one of --against REV, --against-env PYTHON, --baseline FILE and "
            "--self-test"
        )
    from hpml_bench.gate import outputs

    with bugs_are_errors():
        request = workload.request(slowdown, counts_only)
        if self_test:
            given = {"strict": strict, "counts-only": counts_only, **files}
            if unheeded := [name.removesuffix("_file") for name, value in given.items() if value]:
                raise UserError(
                    f"--{unheeded[0]}: goes with a check, not with --self-test, which writes its trials to --out"
                )
            click.echo(f"suite {request.suite}, {', '.join(request.names)}")
            ctx.exit(_self_test(request, trials, slowdown, out))
        files["json"] = files.pop("json_file")
        outputs.check_writable(**files)  # now, not after ten minutes
        click.echo(f"suite {request.suite}, {', '.join(request.names)}")
        if baseline is not None:
            from hpml_bench.gate.baseline import check as check_baseline

            report = check_baseline(request, baseline, click.echo)
        else:
            from hpml_bench.gate.check import check as run_check

            report = run_check(request, _comparison(against, against_env, request), click.echo)
        ctx.exit(_hand_over(report, strict, **files))


def _comparison(against: str | None, against_env: str | None, request: Request) -> ComparedSides:
    from hpml_bench.gate import sides

    if against is not None:
        return sides.against_revision(against, Path.cwd(), request.plugins())
    assert against_env is not None  # noqa: S101 - one of the two is given
    return sides.against_environment(against_env)


def _self_test(request: Request, trials: int, slowdown: float, out: Path) -> int:
    from hpml_bench.gate import selftest

    made = selftest.run(request, trials, slowdown, request.minutes, out, click.echo)
    status, told = selftest.summary(made, slowdown)
    for sentence in told:
        click.echo(sentence)
    return status


def _hand_over(report: CheckReport, strict: bool, **files: Path | None) -> int:
    from hpml_bench.gate import outputs, verdicts
    from hpml_bench.report.terminal import terminal

    print_report(report, terminal())
    try:
        outputs.annotate(report)
    finally:  # written even if GitHub's summary can't be
        outputs.write(report, **files)
    return verdicts.exit_status(report.verdicts, strict)
