"""`hpml-bench preview`: rows of a suite as the model will see them."""

import click

from hpml_bench.cli.options import load, overrides
from hpml_bench.system.text import for_terminal


@click.command()
@click.argument("suite", default="quickstart")
@click.option(
    "--rows",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    metavar="N",
    help="Number of rows.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default="train",
    show_default=True,
)
@click.option("--ids", is_flag=True, help="Show the token ids too.")
@overrides("Override a setting by dotted path, as in --set max_length=512. Repeatable.")
def preview(suite: str, rows: int, split: str, ids: bool, overrides: tuple[str, ...]) -> None:
    """Show rows of SUITE as the model will see them: template, tokens, target tokens (green, or
    in ⟦ ⟧), cuts.
    """
    from rich.text import Text

    from hpml_bench.data.prepare import preview as prepared_rows
    from hpml_bench.data.prepare import silence

    silence()  # before libraries that log are imported
    from hpml_bench.page.terminal import terminal
    from hpml_bench.suite.devices import resolve_suite

    facts, prepared = prepared_rows(resolve_suite(load(suite, overrides)).settings, rows, split)
    console = terminal()
    plain = console.no_color or not console.is_terminal
    for fact in facts:
        console.print(Text(for_terminal(fact)), highlight=False)
    for number, row in enumerate(prepared, 1):
        console.print()
        console.print(Text(f"{split} row {number}: {row.head}", style="bold"))
        text = Text()
        for piece, is_target in row.pieces:
            for place, line in enumerate(piece.split("\n")):
                # escapes of what isn't printable, such as NUL or a mark of direction
                seen = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
                shown = for_terminal("".join(seen))
                marked = f"⟦{shown}⟧" if is_target and shown and plain else shown
                text.append("\n" if place else "")
                text.append(marked, style="green" if is_target else "")
        console.print(text, highlight=False, soft_wrap=True)
        if row.prompt:
            console.print(Text(for_terminal(row.prompt), style="dim"), highlight=False)
        console.print(Text(for_terminal(f"expected: {row.label}"), style="dim"), highlight=False)
        if ids:
            console.print(Text(f"ids: {row.ids}", style="dim"), highlight=False)
