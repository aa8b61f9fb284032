"""How a command ends: its exit status, and a user's mistake as one sentence."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import click

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Sentences(click.Group):
    """Turns a user's mistake into one sentence and status 2, and Ctrl-C into status 130."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        from hpml_bench.errors import UserError
        from hpml_bench.system.redaction import redacted
        from hpml_bench.system.text import for_terminal

        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"hpml-bench: {for_terminal(redacted(str(error)), 2000)}", err=True)
            ctx.exit(USAGE)
        except KeyboardInterrupt:
            click.echo("hpml-bench: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        finally:
            # CPython remembers an interruption that came out of an evaluated text, as a dataclass is made by, even if
            # caught, and under `python -m` would end by SIGINT and not with our status. The next evaluation forgets
            # it; a namedtuple is made by one.
            namedtuple("Forget", ())
