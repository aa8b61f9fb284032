"""`hpml-bench fit`: predicted memory of a suite's methods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.exit_status import FAILED, OK
from hpml_bench.cli.options import DEVICE, METHODS, load, overrides
from hpml_bench.cli.reporting import aligned
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from hpml_bench.fit.predict import Prediction

COLUMNS = (
    "method",
    "fits",
    "peak",
    "loading",
    "step",
    "evaluation",
    "generation",
    "weights",
    "optimizer",
    "gradients",
    "activations",
    "logits",
    "buckets",
    "largest micro-batch",
)
BYTES = COLUMNS[2:-1]


@click.command()
@click.argument("suite", default="quickstart")
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory of a card, on a CPU of the machine: 24GB; else what is free on this one's card, "
    "on a CPU all of it.",
)
@METHODS
@click.option("--ranks", type=click.IntRange(1), metavar="N", help="Ranks of the process group.")
@DEVICE
@overrides("Override a setting by dotted path, as in --set micro_batch=4. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of methods with bytes.")
@click.pass_context
def fit(
    ctx: click.Context,
    suite: str,
    memory: str | None,
    methods: tuple[str, ...] | None,
    ranks: int | None,
    device: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Predict the memory of each method of SUITE, without weights and GPU, and what to change where
    it doesn't fit.

    Exit status: 0 all methods fit, 1 one doesn't or can't be predicted, 2 a usage error.
    """
    from hpml_bench.fit.limits import read_bytes

    given = None if memory is None else read_bytes(memory)
    loaded = load(suite, overrides, world_size=ranks, device=device)

    from hpml_bench.data.prepare import silence

    silence()  # before libraries that log are imported
    from rich.console import Console

    from hpml_bench.fit.limits import gigabytes
    from hpml_bench.fit.predict import predict
    from hpml_bench.page.terminal import fitting, terminal
    from hpml_bench.system.text import count_of

    with Console(stderr=True).status(
        f"Tracing {count_of(len(methods or loaded.methods), 'method')} ..."
    ):
        prediction = predict(loaded, given, methods)
    if as_json:
        click.echo(json.dumps([need.row() for need in prediction.needs], indent=1))
    else:
        rows: list[tuple[str, ...]] = [COLUMNS]
        for need in prediction.needs:
            sizes = ["" if size is None else gigabytes(size) for size in map(need.row().get, BYTES)]
            fits, largest = (
                {True: "yes", False: "no", None: "unknown"}[need.fits],
                need.largest_micro_batch,
            )
            rows.append(
                (for_terminal(need.method), fits, *sizes, "" if largest is None else str(largest))
            )
        kept = fitting(COLUMNS, rows[1:], terminal().width)
        for line in aligned([[row[index] for index in kept] for row in rows]):
            click.echo(line)
        _print_notes(prediction, [name for index, name in enumerate(COLUMNS) if index not in kept])
    ctx.exit(OK if all(need.fits for need in prediction.needs) else FAILED)


def _print_notes(prediction: Prediction, left_out: Sequence[str]) -> None:
    from hpml_bench.fit.limits import gigabytes, memory_of_processes

    if left_out:
        click.echo(f"Left out for width: {', '.join(left_out)}; --json has all.")
    settings, limit = prediction.settings, prediction.limit
    shared = f" ({limit.where})" if limit.where else ""
    memory = (
        f"Memory of a rank: {gigabytes(limit.most)}{shared}, of which {gigabytes(limit.outside)} "
        f"are taken beside tensors"
    )
    if limit.tensors <= 0:
        alone = gigabytes(memory_of_processes(settings))
        memory = f"Memory of a rank: none for tensors, as the processes alone take {alone}"
    micro_batch = settings.micro_batch or settings.global_batch // (settings.world_size or 1)
    click.echo(f"{memory}; {settings.device}, {settings.precision}, micro-batch {micro_batch}.")
    if prediction.occupied:
        click.echo(f"Other processes use the GPU: {prediction.occupied}.")
    if prediction.made_up_rows:
        click.echo(
            for_terminal(
                f"Every text is taken to have {settings.max_length} tokens: "
                f"{prediction.made_up_rows}"
            )
        )
    for need in prediction.needs:
        if need.advice:
            click.echo(for_terminal(f"{need.method}: {need.advice}."))
