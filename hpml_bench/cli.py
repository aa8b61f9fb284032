"""The command line. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from hpml_bench.gate import commands as gate

if TYPE_CHECKING:
    from hpml_bench.report.wandb import Mode
    from hpml_bench.suite import Suite
    from hpml_bench.supervision.limits import Limits

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
Command = TypeVar("Command", bound=Callable[..., Any])


class Sentences(click.Group):
    """Turns a user's mistake into one sentence and status 2, and Ctrl-C into status 130."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        from hpml_bench.errors import UserError
        from hpml_bench.plain import for_terminal
        from hpml_bench.redaction import redacted

        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"hpml-bench: {for_terminal(redacted(str(error)), 2000)}", err=True)
            ctx.exit(USAGE)
        except KeyboardInterrupt:
            click.echo("hpml-bench: interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpml-bench")
def main() -> None:
    """Compare fine-tuning methods under one protocol: cost, quality, and what can be told apart.

    Exit status: 0 all well, 1 something failed (it is in the report), 2 a mistake in what was asked, 130 interrupted.
    """


def _shared(function: Command) -> Command:
    """Add the options that `run-all` and `run` share."""
    options = [
        click.option("--out", type=click.Path(path_type=Path), default=Path("reports"), show_default=True,
                     help="Results go to DIR/SUITE.", metavar="DIR"),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
                     help="Override a setting by dotted path, as in --set train_samples=512. Repeatable."),
        click.option("--nproc", type=click.IntRange(1), metavar="N", help="Ranks of the process group."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to run."),
        click.option("--fresh", is_flag=True, help="Forget earlier results."),
        click.option("--wandb", "wandb_mode", type=click.Choice(["auto", "online", "offline", "off"]), default="auto",
                     show_default=True, help="Weights & Biases; auto: online with a key and a route, else offline."),
        click.option("--verbose", is_flag=True, help="Show the log of rank 0."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _limited(function: Command) -> Command:
    """Add the options that bound runs, and hand them over as `limits`."""
    options = [
        click.option("--stall", type=click.FloatRange(0), default=300.0, show_default=True, metavar="SECONDS",
                     help="End a run in which no rank makes progress for so long; 0: never."),
        click.option("--run-timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
                     help="End a run that takes longer."),
        click.option("--retries", type=click.IntRange(0, 100), default=0, show_default=True, metavar="N",
                     help="Try a run again that failed, was killed, timed out or ran out of memory."),
        click.option("--max-hours", type=click.FloatRange(0), metavar="H", help="Begin no run after so long."),
        click.option("--fail-fast/--keep-going", default=False, show_default="keep going",
                     help="Whether to end with the first run that does not end well."),
    ]  # fmt: skip

    @functools.wraps(function)
    def with_limits(
        *args: Any,
        stall: float,
        run_timeout: float | None,
        retries: int,
        max_hours: float | None,
        fail_fast: bool,
        **rest: Any,
    ) -> Any:
        from hpml_bench.supervision.limits import Limits

        return function(*args, limits=Limits(stall, run_timeout, retries, max_hours, fail_fast), **rest)

    wrapped: Any = with_limits
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast(Command, wrapped)


@main.command("run-all")
@click.argument("suite", default="quickstart")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Number of seeds; the suite's own if not given.")
@click.option("--methods", metavar="A,B", help="Only these methods.")
@_shared
@_limited
@click.pass_context
def run_all(
    ctx: click.Context,
    suite: str,
    seeds: int | None,
    methods: str | None,
    out: Path,
    overrides: tuple[str, ...],
    nproc: int | None,
    device: str | None,
    fresh: bool,
    wandb_mode: str,
    verbose: bool,
    limits: Limits,
) -> None:
    """Run every method and seed of SUITE (a packaged suite's name, or a YAML file), then write the report.

    Runs that are recorded are not repeated: call it again after a crash and it goes on.
    """
    loaded = _load(suite, overrides, seeds=seeds, world_size=nproc, device=device)
    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    ctx.exit(_sweep(loaded, out, names, fresh, verbose, wandb_mode, limits=limits))


@main.command()
@click.argument("method")
@click.argument("suite", default="quickstart")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@_shared
@_limited
@click.pass_context
def run(
    ctx: click.Context,
    method: str,
    suite: str,
    seed: int,
    out: Path,
    overrides: tuple[str, ...],
    nproc: int | None,
    device: str | None,
    fresh: bool,
    wandb_mode: str,
    verbose: bool,
    limits: Limits,
) -> None:
    """Do one run of METHOD on SUITE.

    Also under torchrun, which then decides the number of ranks, and shows their logs itself:
    torchrun --nproc-per-node 2 -m hpml_bench run METHOD
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from hpml_bench.under_torchrun import run_as_rank

        world = int(os.environ["WORLD_SIZE"])
        loaded = _load(suite, overrides, world_size=world, device=device)
        ctx.exit(OK if run_as_rank(loaded, method, seed, out, fresh) else FAILED)
    loaded = _load(suite, overrides, world_size=nproc, device=device)
    ctx.exit(_sweep(loaded, out, [method], fresh, verbose, wandb_mode, seed, limits=limits))


@main.command()
@click.argument("suite", default="quickstart")
@click.option("--trials", type=click.IntRange(1, 1000), default=9, show_default=True, metavar="N",
              help="Runs of each method, each of the suite's whole budget.")  # fmt: skip
@click.option("--methods", metavar="A,B", help="Only these methods.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Trials go to DIR/SUITE/tuning.",
    metavar="DIR",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting. Repeatable.")
@click.option("--nproc", type=click.IntRange(1), metavar="N", help="Ranks of the process group.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to run.")
@click.option(
    "--sampler",
    type=click.Choice(["qmc", "tpe"]),
    default="qmc",
    show_default=True,
    help="Optuna's: qmc tries the same multiples for all methods, tpe goes where it went well.",
)
@click.option(
    "--range",
    "factor",
    type=click.FloatRange(1, 1e6, min_open=True),
    default=10.0,
    show_default=True,
    metavar="FACTOR",
    help="From a method's rate / FACTOR to its rate x FACTOR.",
)
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The suite with the chosen rates; DIR/SUITE/tuning/SUITE-tuned.yaml if not given.",
)
@click.option("--verbose", is_flag=True, help="Show the log of rank 0.")
@_limited
@click.pass_context
def tune(
    ctx: click.Context,
    suite: str,
    trials: int,
    methods: str | None,
    out: Path,
    overrides: tuple[str, ...],
    nproc: int | None,
    device: str | None,
    sampler: Literal["qmc", "tpe"],
    factor: float,
    write: Path | None,
    verbose: bool,
    limits: Limits,
) -> None:
    """Choose each method's learning rate on the validation rows of SUITE: as many trials for every method.

    Trials that are recorded are not repeated: call it again after a crash and it goes on.
    """
    from hpml_bench.listing import terminal
    from hpml_bench.tuning.show import show
    from hpml_bench.tuning.tune import run_tuning

    loaded = _load(suite, overrides, world_size=nproc, device=device)
    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    result = run_tuning(loaded, out, terminal(), trials, names, write, sampler, factor, verbose, limits)
    show(result.record, terminal())
    if result.ended_by:
        click.echo(f"ended by {result.ended_by} with trials left to do; the same command goes on from here", err=True)
        ctx.exit(FAILED)
    if result.interrupted:
        click.echo("interrupted; the same command goes on from here", err=True)
        ctx.exit(INTERRUPTED)
    click.echo(f"{result.suite_file}: run it with hpml-bench run-all {result.suite_file}")
    ctx.exit(OK if all(tuned.best for tuned in result.record.methods) else FAILED)


@main.command()
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to write; the results folder if not given."
)
@click.option("--format", "formats", default="html,md", show_default=True, metavar="html,md,csv,tex")
@click.option("--wandb", "wandb_mode", type=click.Choice(["auto", "online", "offline", "off"]), default="off",
              show_default=True, help="Also publish runs and tables.")  # fmt: skip
def report(folder: Path, out: Path | None, formats: str, wandb_mode: str) -> None:
    """Rebuild the report of DIR (a suite's results, or a folder of such) from its records alone."""
    from hpml_bench.errors import UserError

    wanted = [name.strip() for name in formats.split(",") if name.strip()]
    unknown = sorted(set(wanted) - {"html", "md", "csv", "tex"})
    if unknown or not wanted:
        raise UserError(f"--format {formats}: choose from html, md, csv, tex, separated by commas")
    folders = result_folders(folder)
    mode = _wandb_mode(wandb_mode)
    for results in folders:
        target = out / results.name if out and len(folders) > 1 else out
        _write_report(results, target, wanted, mode)


@main.command()
@click.argument("suite", default="quickstart")
@click.option(
    "--detect",
    required=True,
    metavar="METRIC=SIZE",
    help="Difference to find: accuracy=0.5pp, samples_per_second=3%, train_seconds=2.",
)
@click.option("--power", type=float, default=0.8, show_default=True, metavar="P", help="Chance to find it.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports"), show_default=True,
              help="The pilot's results are in DIR/SUITE.", metavar="DIR")  # fmt: skip
def plan(suite: str, detect: str, power: float, out: Path) -> None:
    """Say how many seeds, and hours, SUITE needs to tell methods apart that differ by SIZE; from recorded runs."""
    from hpml_bench import planning
    from hpml_bench.listing import print_table, terminal
    from hpml_bench.plain import for_terminal
    from hpml_bench.suite import suite_name

    name = suite_name(_load(suite, ()).name if suite.endswith((".yaml", ".yml")) else suite)
    found = planning.plan(out / name, detect, power)
    print_table(found.table, terminal())
    for sentence in found.sentences:
        click.echo(for_terminal(sentence))


main.add_command(gate.check)
main.add_command(gate.baseline)


@main.command("list")
@click.argument("what", type=click.Choice(["suites", "methods", "probes", "tasks", "runs"]))
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
def list_(what: str, folder: Path) -> None:
    """List suites, methods, probes or tasks, or the runs in DIR."""
    from hpml_bench import listing

    rows = listing.runs(result_folders(folder)) if what == "runs" else listing.known(what)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())


def result_folders(folder: Path) -> list[Path]:
    """Return `folder` if it holds runs, else those of its subfolders that do.

    Raises:
        UserError: neither does.

    """
    from hpml_bench.errors import UserError

    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; run-all makes one, or name another")
    if any(folder.glob("*/run.json")):
        return [folder]
    inner = sorted({path.parent.parent for path in folder.glob("*/*/run.json")})
    if not inner:
        raise UserError(
            f"{folder}: no runs here (looked for */run.json and */*/run.json); start with hpml-bench run-all"
        )
    return inner


def _load(suite: str, overrides: tuple[str, ...], **changes: Any) -> Suite:
    from hpml_bench.suite import load_suite

    return load_suite(suite, overrides, **changes)


def _sweep(
    suite: Suite,
    out: Path,
    methods: list[str] | None,
    fresh: bool,
    verbose: bool,
    wandb_mode: str,
    seed: int | None = None,
    *,
    limits: Limits,
) -> int:
    """Run, report, and return the exit status."""
    from hpml_bench.listing import terminal
    from hpml_bench.supervision import storage
    from hpml_bench.supervision.stopping import stoppable
    from hpml_bench.sweep import run_sweep

    mode = _wandb_mode(wandb_mode)
    with storage.told(out), stoppable():  # the report, too, is ended by a request, and told of a full disk
        result = run_sweep(
            suite, out, terminal(), methods, fresh=fresh, verbose=verbose, wandb_mode=mode, seed=seed, limits=limits
        )
        if result.records:
            _write_report(result.folder, None, ["html", "md"], mode)
    if result.interrupted:
        click.echo("interrupted; the same command goes on from here", err=True)
        return INTERRUPTED
    if result.failed:
        click.echo(
            f"{result.failed} of {len(result.records)} runs did not end well; see the report's failures", err=True
        )
    if result.ended_by:
        click.echo(f"ended by {result.ended_by} with runs left to do; the same command goes on from here", err=True)
    return FAILED if result.failed or result.ended_by else OK


def _wandb_mode(asked: str) -> Mode:
    if asked == "off":
        return "off"
    from hpml_bench.report.wandb import choose_mode

    return choose_mode(asked)


def _write_report(folder: Path, out: Path | None, formats: list[str], wandb_mode: Mode) -> None:
    """Write a folder's report, print its table and where it is."""
    from hpml_bench.listing import show_table, terminal
    from hpml_bench.plain import for_terminal
    from hpml_bench.report.render import load, write_report

    results = load(folder)
    paths = write_report(folder, out, formats)
    show_table(results, terminal())
    for path in paths:
        if path.name.startswith("report."):
            click.echo(for_terminal(path))
    others = [path for path in paths if not path.name.startswith("report.") and path.suffix in {".csv", ".tex"}]
    if others:
        click.echo(for_terminal(f"{len(others)} tables in {others[0].parent}"))
    if wandb_mode != "off":
        from hpml_bench.report.wandb import publish_results

        if sentence := publish_results(results, wandb_mode):
            click.echo(for_terminal(sentence))
