"""`hpml-bench report`."""

from __future__ import annotations

from pathlib import Path

import click

from hpml_bench.cli.options import names, tracked
from hpml_bench.cli.reporting import result_folders, write


@click.command()
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder to write to; the results folder if not given.")  # fmt: skip
@click.option("--format", "formats", default="html,md", show_default=True, metavar="html,md,csv,tex")
@tracked("off", "Also publish runs and tables.")
def report(folder: Path, out: Path | None, formats: str, trackers: dict[str, str]) -> None:
    """Rebuild the report of DIR (a suite's results, or a folder of several) from its records alone."""
    from hpml_bench.errors import UserError
    from hpml_bench.plugins.tracker import make_trackers

    wanted = names(formats)
    if not wanted or not {"html", "md", "csv", "tex"}.issuperset(wanted):
        raise UserError(f"--format {formats}: choose from html, md, csv, tex, separated by commas")
    folders = result_folders(folder)
    used = make_trackers(trackers)
    for results in folders:
        target = out / results.name if out and len(folders) > 1 else out
        write(results, target, wanted, used)
