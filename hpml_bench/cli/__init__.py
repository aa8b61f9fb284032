"""Command line. May import everything, but nothing heavy until a command needs it."""

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points

import click

from hpml_bench.cli import commands
from hpml_bench.cli.exit_status import Sentences

__all__ = ["main"]


class Commands(Sentences):
    """The commands in the files of `commands`, and those that other packages register."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted({*_own(), *_foreign()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in _own():
            module = importlib.import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}")
        elif point := _foreign().get(cmd_name):
            module = point.load()
        else:
            return None
        found = (value for value in vars(module).values() if isinstance(value, click.Command))
        return next(command for command in found if command.name == cmd_name)


def _own() -> list[str]:
    return [module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__)]


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="hpml_bench.commands")}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpml-bench")
def main() -> None:
    """Compare fine-tuning methods under one protocol: cost, quality, and which differences are
    significant.

    Exit status: 0 all well, 1 something failed (it is in the report), 2 a usage error, 130
    interrupted.
    """
