"""Reports for commands: folders with runs, and their pages, tables and publications."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from hpml_bench.page.render import Page
    from hpml_bench.plugins.tracker import Tracker
    from hpml_bench.records.run import RunRecord


def result_folders(folder: Path) -> list[Path]:
    """Return `folder` if it has runs, else its subfolders that have some; a `UserError` where
    none has.
    """
    from hpml_bench.records.files import RECORD
    from hpml_bench.records.jobs import folders_with

    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; run-all makes one, or name another")
    found = folders_with(folder, f"*/{RECORD}")
    if not found:
        raise UserError(
            f"{folder}: no runs here (looked for */run.json and */*/run.json); start with "
            f"hpml-bench run-all"
        )
    return found


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def write(
    folder: Path,
    out: Path | None,
    formats: Sequence[str],
    trackers: Sequence[Tracker] = (),
    made: Sequence[RunRecord] = (),
) -> None:
    """Write and publish a folder's page; say before its answer where it has none of the runs
    that were just made.
    """
    from hpml_bench.page.render import all_tables, load, load_libraries, page_of, write_page
    from hpml_bench.records.load import load_records
    from hpml_bench.select.comparability import protocol_difference

    load_libraries()
    results = load(folder)
    page = page_of(results)
    written = write_page(page, out or folder, formats)
    used = {run.run_id for run in (*results.compared, *results.scaled_runs, *results.checkpointed)}
    well = [run for run in made if run.status == "ok"]
    if well and not used & {run.run_id for run in well}:
        why = (
            f"{protocol_difference(results.reference, well[0])}. The folder has more of the "
            f"other: give another --out"
        )
        click.echo(for_terminal(f"None of these runs is compared: they have {why}.", 600))
    shown(page, written)
    file = next((path for path in written if path.suffix == ".html"), None)
    records = load_records(folder).records if trackers else ()
    for tracker in trackers:
        if sentence := tracker.publish(folder, records, lambda: all_tables(page), file):
            click.echo(for_terminal(sentence))


def shown(page: Page, paths: Sequence[Path]) -> None:
    """Print a page's answer and its files: each page, and how many tables."""
    from hpml_bench.page.terminal import show_answer, terminal
    from hpml_bench.records.numbers import set_apart

    show_answer(page.answer, terminal())
    if page.apart:  # perhaps those that were made just now
        click.echo(f"\n{set_apart(page.apart)}; the page says why under Anything wrong?")
    pages = [path for path in paths if path.name.startswith("report.")]
    for path in pages:
        click.echo(for_terminal(path))
    for kind, suffixes in (("table", {".csv", ".tex"}), ("run", {".json"})):
        others = [path for path in paths if path not in pages and path.suffix in suffixes]
        if others:
            click.echo(
                for_terminal(
                    f"{len(others)} {kind}{'s' if others[1:] else ''} in {others[0].parent}"
                )
            )
