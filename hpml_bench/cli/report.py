"""`hpml-bench report`, and the writing of a report after a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpml_bench.cli.options import names, tracked

if TYPE_CHECKING:
    from hpml_bench.plugins.tracker import Tracker


@click.command()
@click.argument("folder", metavar="[DIR]", default="reports", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to write; the results folder if not given."
)
@click.option("--format", "formats", default="html,md", show_default=True, metavar="html,md,csv,tex")
@tracked("off", "Also publish runs and tables.")
def report(folder: Path, out: Path | None, formats: str, trackers: dict[str, str]) -> None:
    """Rebuild the report of DIR (a suite's results, or a folder of such) from its records alone."""
    from hpml_bench.errors import UserError
    from hpml_bench.plugins.tracker import make_trackers

    wanted = names(formats)
    unknown = sorted(set(wanted) - {"html", "md", "csv", "tex"})
    if unknown or not wanted:
        raise UserError(f"--format {formats}: choose from html, md, csv, tex, separated by commas")
    folders = result_folders(folder)
    used = make_trackers(trackers)
    for results in folders:
        target = out / results.name if out and len(folders) > 1 else out
        write(results, target, wanted, used)


def result_folders(folder: Path) -> list[Path]:
    """Return `folder` if it holds runs, else those of its subfolders that do.

    Raises:
        UserError: neither does.

    """
    from hpml_bench.errors import UserError
    from hpml_bench.records.jobs import NO_RUNS

    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; run-all makes one, or name another")
    if any(folder.glob("*/run.json")):
        return [folder]
    inner = sorted({path.parent.parent for path in folder.glob("*/*/run.json")} - {folder / name for name in NO_RUNS})
    if not inner:
        raise UserError(
            f"{folder}: no runs here (looked for */run.json and */*/run.json); start with hpml-bench run-all"
        )
    return inner


def write(folder: Path, out: Path | None, formats: list[str], trackers: Sequence[Tracker] = ()) -> None:
    """Write a folder's report, print its table and where it is."""
    from hpml_bench.records.listing import load_records
    from hpml_bench.report.render import all_sections, load, load_libraries, tables_of, write_report
    from hpml_bench.report.terminal import show_table, terminal
    from hpml_bench.system.text import for_terminal

    load_libraries()
    results = load(folder)
    paths = write_report(results, out, formats)
    show_table(results, terminal())
    for path in paths:
        if path.name.startswith("report."):
            click.echo(for_terminal(path))
    others = [path for path in paths if not path.name.startswith("report.") and path.suffix in {".csv", ".tex"}]
    if others:
        click.echo(for_terminal(f"{len(others)} tables in {others[0].parent}"))
    records = load_records(folder).records
    for tracker in trackers:
        if sentence := tracker.publish(folder, records, lambda: tables_of(all_sections(results))):
            click.echo(for_terminal(sentence))
