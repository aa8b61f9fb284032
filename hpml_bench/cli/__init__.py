"""Command line. May import everything, but nothing heavy until a command needs it."""

from __future__ import annotations

import importlib
import pkgutil

import click

from hpml_bench.cli import commands
from hpml_bench.cli.exit_status import Sentences

__all__ = ["main"]


@click.group(cls=Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpml-bench")
def main() -> None:
    """Compare fine-tuning methods under one protocol: cost, quality, and which differences are significant.

    Exit status: 0 all well, 1 something failed (it is in the report), 2 a usage error, 130 interrupted.
    """


def _command(name: str) -> click.Command:
    """Return the command that has the name of its file in `commands`."""
    members = vars(importlib.import_module(f"{commands.__name__}.{name}")).values()
    return next(c for c in members if isinstance(c, click.Command) and c.name == name.replace("_", "-"))


for _module in pkgutil.iter_modules(commands.__path__):
    main.add_command(_command(_module.name))
