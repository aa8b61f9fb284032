"""Exit codes and error messages."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import click

from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from hpml_bench.sweep.execute import Ending

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Sentences(click.Group):
    """Turns a user's mistake into one sentence and status 2, and Ctrl-C into status 130; helps
    in whole sentences.
    """

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the whole first sentence of its help, which click cuts to one
        line.
        """
        names = self.list_commands(ctx)
        found = [
            (name, command)
            for name in names
            if (command := self.get_command(ctx, name)) and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=1000)) for name, command in found]
            )

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """Read the words of the command line, and print help, with which click would end as
        "Aborted!" after Ctrl-C.
        """
        try:
            return super().make_context(*arguments, **extra)
        except KeyboardInterrupt:
            click.echo("hpml-bench: interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None

    def invoke(self, ctx: click.Context) -> Any:
        from hpml_bench.system.redaction import redacted

        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"hpml-bench: {for_terminal(redacted(str(error)), 2000)}", err=True)
            ctx.exit(USAGE)
        except (KeyboardInterrupt, ValueError) as error:
            # pydantic turns a Ctrl-C within a serializer into an error of its own, which is a
            # ValueError
            if (
                isinstance(error, ValueError)
                and "KeyboardInterrupt" not in f"{error}{error.__cause__!r}"
            ):
                raise
            click.echo("hpml-bench: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        finally:
            # CPython notes a KeyboardInterrupt that leaves exec() or eval(), by which dataclasses
            # are made, and keeps the note even if it is caught: under `python -m` the process then
            # ends by SIGINT, not with our status. The next eval() clears the note; a namedtuple is
            # made by one.
            namedtuple("Forget", ())


def ended(ending: Ending, statuses: Collection[str] = (), of: int = 0, what: str = "runs") -> int:
    """Say what an execution left to do, and how many of `of` runs failed, by their records;
    return the exit status.
    """
    from hpml_bench.records.run import FINAL

    failed = sum(status not in FINAL for status in statuses) + (
        of - len(statuses) if ending.how == "done" else 0
    )
    none_ok = bool(statuses) and not failed and "ok" not in statuses
    if ending.how == "interrupted":
        click.echo("interrupted; the same command goes on from here", err=True)
        return INTERRUPTED
    if failed:
        click.echo(f"{failed} of {of} runs did not end well; see the report's failures", err=True)
    if ending.how == "limit":
        click.echo(
            f"ended by {ending.why} with {what} left to do; the same command goes on from here",
            err=True,
        )
    elif none_ok:
        click.echo(f"all {of} runs are unsupported; see the report's failures", err=True)
    return FAILED if failed or none_ok or ending.how == "limit" else OK
