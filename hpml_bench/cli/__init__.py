"""Command line, a file for each command. May import everything, but nothing heavy until a command needs it."""

from __future__ import annotations

import click

from hpml_bench.cli import baseline, check, plan, preview, report, run, run_all, status, stop, tune, work
from hpml_bench.cli import list as list_command
from hpml_bench.cli.exit_status import Sentences
from hpml_bench.cli.report import result_folders

__all__ = ["main", "result_folders"]


@click.group(cls=Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpml-bench")
def main() -> None:
    """Compare fine-tuning methods under one protocol: cost, quality, and what can be told apart.

    Exit status: 0 all well, 1 something failed (it is in the report), 2 a mistake in what was asked, 130 interrupted.
    """


COMMANDS = (
    run_all.run_all,
    run.run,
    tune.tune,
    report.report,
    plan.plan,
    preview.preview,
    list_command.list_,
    check.check,
    baseline.baseline,
    work.work,
    status.status,
    stop.stop,
)
for _command in COMMANDS:
    main.add_command(_command)
