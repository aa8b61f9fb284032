"""`hpml-bench run`: one run, also under torchrun."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.commands.run_all import sweep
from hpml_bench.cli.exit_status import FAILED, OK
from hpml_bench.cli.options import RunOptions, limited, load, shared
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from hpml_bench.records.plan import Limits


@click.command()
@click.argument("method")
@click.argument("suite", default="quickstart")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help=(
        "Save the trained model in DIR, which must be empty; a run that didn't --keep it is done "
        "again."
    ),
)
@shared
@limited
@click.pass_context
def run(
    ctx: click.Context,
    method: str,
    suite: str,
    seed: int,
    save: Path | None,
    options: RunOptions,
    limits: Limits,
) -> None:
    """Do one run of METHOD on SUITE.

    Also under torchrun, which then decides the number of ranks, and shows their logs itself:
    torchrun --nproc-per-node 2 -m hpml_bench run METHOD
    """
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    main = os.environ.get("RANK", "0") == "0" or not under_torchrun
    if save is not None and main:
        from hpml_bench.system import disk

        disk.make_folder(save, f"--save {save}: the folder", "name another")
        if any(save.iterdir()):
            raise UserError(f"--save {save}: the folder is not empty; name another")
    world = int(os.environ["WORLD_SIZE"]) if under_torchrun else options.nproc
    loaded = load(suite, options.overrides, world_size=world, device=options.device)
    request = options.request(loaded, limits, (method,), seeds=(seed,), save=save)
    if under_torchrun:
        from hpml_bench.sweep.local import run_as_rank
        from hpml_bench.training.worker import end

        end(OK if run_as_rank(request) else FAILED)
    from hpml_bench.plugins.tracker import make_trackers

    ctx.exit(sweep(request, make_trackers(options.trackers)))
