"""`hpml-bench plan`."""

from pathlib import Path

import click

from hpml_bench.cli.options import load, out
from hpml_bench.system.text import for_terminal


@click.command()
@click.argument("suite", default="quickstart")
@click.option(
    "--detect",
    required=True,
    metavar="METRIC=SIZE",
    help="Difference to find: accuracy=0.5pp, samples_per_second=3%, train_seconds=2.",
)
@click.option(
    "--power", type=float, default=0.8, show_default=True, metavar="P", help="Chance to find it."
)
@out("The pilot's results are in DIR/SUITE.")
def plan(suite: str, detect: str, power: float, out: Path) -> None:
    """Plan the seeds, and hours, that SUITE needs to find differences of SIZE between methods,
    from recorded runs.
    """
    from hpml_bench.page import seed_plan
    from hpml_bench.page.terminal import print_table, terminal
    from hpml_bench.suite.suite import suite_name

    name = suite_name(load(suite).name if suite.endswith((".yaml", ".yml")) else suite)
    result = seed_plan.plan(out / name, detect, power)
    print_table(result.table, terminal())
    for sentence in result.sentences:
        click.echo(for_terminal(sentence))
