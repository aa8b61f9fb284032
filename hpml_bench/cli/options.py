"""Options that several commands share; each bundle is passed as one argument."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from hpml_bench.records.plan import Limits
    from hpml_bench.suite.suite import Suite
    from hpml_bench.sweep.request import SweepRequest

Function = Callable[..., Any]
Option = Callable[[Function], Function]
FORMATS = "html,md,csv,tex,pdf,png"  # formats of every page
NPROC = click.option(
    "--nproc", type=click.IntRange(1), metavar="N", help="Ranks of the process group."
)
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to run.")
VERBOSE = click.option("--verbose", is_flag=True, help="Show the log of rank 0.")


@dataclass(frozen=True)
class RunOptions:
    """Options that `run-all` and `run` share."""

    out: Path
    overrides: tuple[str, ...]
    nproc: int | None
    device: str | None
    fresh: bool
    keep: bool
    allow_commands: bool
    trackers: dict[str, str]
    verbose: bool

    def request(
        self, suite: Suite, limits: Limits, methods: tuple[str, ...] | None, **only: Any
    ) -> SweepRequest:
        from hpml_bench.sweep.request import SweepRequest

        own: dict[str, Any] = {
            "limits": limits,
            "fresh": self.fresh,
            "keep": self.keep,
            "verbose": self.verbose,
        }
        request = SweepRequest(
            suite, self.out, methods, allow_commands=self.allow_commands, **own, **only
        )
        for command in request.commands if self.allow_commands else ():
            click.echo(f"this suite runs a command, {command}", err=True)
        return request


@dataclass(frozen=True)
class JobOptions:
    """Options of `run-all` for runs by jobs."""

    on: str | None
    parallel: int | None
    detach: bool
    dry_run: bool
    ahead: bool

    @property
    def given(self) -> bool:
        """Whether jobs do the runs, on a cluster or side by side here."""
        return self.on is not None or self.parallel is not None


@dataclass(frozen=True)
class SeedOptions:
    """Options that say how many seeds a sweep has, and when its results are looked at."""

    seeds: int | None
    until: str | None
    max_seeds: int | None
    looks: int | None


def names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def page_formats(text: str, *others: str) -> tuple[str, ...]:
    """Return the formats of a page that a comma-separated text names; a UserError where it names
    none or others.
    """
    known = (*FORMATS.split(","), *others)
    wanted = names(text)
    if not wanted or not set(known).issuperset(wanted):
        raise UserError(f"--format {text}: choose from {', '.join(known)}, separated by commas")
    return wanted


def load(suite: str, overrides: tuple[str, ...] = (), **changes: Any) -> Suite:
    from hpml_bench.suite.suite import load_suite

    return load_suite(suite, overrides, **changes)


def out(text: str) -> Option:
    folder = click.Path(path_type=Path)
    return click.option(
        "--out", type=folder, default=Path("reports"), show_default=True, help=text, metavar="DIR"
    )


def methods(text: str) -> Option:
    """Return the option that chooses methods, passed as a tuple of names, or as None where it
    isn't given.
    """
    return click.option(
        "--methods",
        metavar="A,B",
        help=text,
        callback=lambda _ctx, _param, given: None if given is None else names(given),
    )


METHODS = methods("Only these methods.")


def overrides(text: str) -> Option:
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=text)


def tracked(default: str, text: str) -> Option:
    """Return the options on where to publish, passed as `trackers`: name -> mode."""
    modes = click.Choice(["auto", "online", "offline", "off"])
    wandb = click.option(
        "--wandb", "wandb_mode", type=modes, default=default, show_default=True, help=text
    )
    others = click.option(
        "--track",
        "--tracker",
        "others",
        multiple=True,
        metavar="A,B",
        callback=_by_name,
        help="Also publish to these: mlflow, tensorboard, trackio, or NAME=MODE of another tracker "
        "(hpml-bench list trackers).",
    )
    return bundle(
        "trackers",
        lambda: lambda wandb_mode, others: {"wandb": wandb_mode} | others,
        [wandb, others],
    )


def _by_name(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [option.partition("=") for text in given for option in names(text)]
    if not all(name and bool(equals) == bool(mode) for name, equals, mode in pairs):
        raise click.BadParameter("write NAME or NAME=MODE, as in --track mlflow,wandb=offline")
    return {name: mode or "on" for name, _equals, mode in pairs}


def bundle(name: str, kind: Callable[[], Any], options: list[Option]) -> Option:
    """Return what adds options, passed as one argument: what a function or class, given by
    `kind`, makes of them.
    """
    # The class is imported when the command runs.

    def added(function: Function) -> Function:
        @functools.wraps(function)
        def bundled(*args: Any, **given: Any) -> Any:
            make = kind()
            value = make(**{key: given.pop(key) for key in signature(make).parameters})
            return function(*args, **{name: value}, **given)

        made: Function = bundled
        for option in reversed(options):
            made = option(made)
        return made

    return added


def _limits() -> Any:
    from hpml_bench.records.plan import Limits

    return Limits


shared = bundle(
    "options",
    lambda: RunOptions,
    [
        out("Results go to DIR/SUITE."),
        overrides("Override a setting by dotted path, as in --set train_samples=512. Repeatable."),
        NPROC,
        DEVICE,
        click.option(
            "--fresh", is_flag=True, help="Remove earlier results of these methods and seeds."
        ),
        click.option(
            "--keep",
            is_flag=True,
            help="Keep a run's trained parts in its folder; run --save takes them there.",
        ),
        click.option(
            "--allow-commands",
            is_flag=True,
            help="Let the suite's methods run the commands that it names.",
        ),
        tracked("auto", "Weights & Biases; auto: online with a key and a route, else offline."),
        VERBOSE,
    ],
)
"""Adds the options that `run-all` and `run` share, passed as `options`."""

limited = bundle(
    "limits",
    _limits,
    [
        click.option(
            "--stall",
            type=click.FloatRange(0, 1e9),
            default=300.0,
            show_default=True,
            metavar="SECONDS",
            help="End a run in which no rank makes progress for this long; 0: never.",
        ),
        click.option(
            "--run-timeout",
            type=click.FloatRange(0, 1e9, min_open=True),
            metavar="SECONDS",
            help="End a run that takes longer.",
        ),
        click.option(
            "--retries",
            type=click.IntRange(0, 100),
            default=0,
            show_default=True,
            metavar="N",
            help="Try a run again that failed, was killed, timed out or ran out of memory.",
        ),
        click.option(
            "--max-hours",
            type=click.FloatRange(0, 1e6),
            metavar="H",
            help="Begin no run after this long.",
        ),
        click.option(
            "--checkpoint-minutes",
            type=click.FloatRange(0, 1e6),
            default=15.0,
            show_default=True,
            metavar="M",
            help=(
                "Save the state of a training after this long, from which it goes on after a "
                "failure; 0: never."
            ),
        ),
        click.option(
            "--checkpoint-steps",
            type=click.IntRange(1),
            metavar="N",
            help="Save it after N steps instead.",
        ),
        click.option(
            "--fail-fast/--keep-going",
            default=False,
            show_default="keep going",
            help="Whether to end with the first run that does not end well.",
        ),
    ],
)
"""Adds the options that limit runs, passed as `limits`."""

how_many_seeds = bundle(
    "wanted",
    lambda: SeedOptions,
    [
        click.option(
            "--seeds",
            type=click.IntRange(1),
            metavar="N",
            help="Number of seeds; the suite's own if not given.",
        ),
        click.option(
            "--until",
            type=click.Choice(["decided", "costs"]),
            help="Add seeds in rounds until it is decided which method scores best, or how costs "
            "differ too; methods that are shown to be behind leave.",
        ),
        click.option(
            "--max-seeds",
            type=click.IntRange(3, 1000),
            metavar="N",
            help="With --until: seeds at which it ends at the latest; 20 if not given.",
        ),
        click.option(
            "--looks",
            type=click.IntRange(1, 100),
            metavar="N",
            help="Declare before the first run that results are looked at N times as seeds are "
            "added; each look has the same share of the 5 %.",
        ),
    ],
)
"""Adds the options on the number of seeds, passed as `wanted`."""

by_jobs = bundle(
    "jobs",
    lambda: JobOptions,
    [
        click.option(
            "--on",
            metavar="PROFILE",
            help=(
                "Let jobs do the runs: a profile's YAML file or name, or an engine (list clusters)."
            ),
        ),
        click.option(
            "--parallel",
            type=click.IntRange(1),
            metavar="N",
            help=(
                "Jobs at a time; without --on, runs side by side here, each with its share of the "
                "machine."
            ),
        ),
        click.option(
            "--detach",
            is_flag=True,
            help="Submit the jobs and return; a last one writes the report.",
        ),
        click.option("--dry-run", is_flag=True, help="Print what would be submitted."),
        click.option(
            "--ahead",
            is_flag=True,
            help="With --until: fill slots that a round leaves idle with runs of the next one.",
        ),
    ],
)
"""Adds the options for runs by jobs, passed as `jobs`."""
