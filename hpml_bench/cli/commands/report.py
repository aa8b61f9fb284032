"""`hpml-bench report`."""

from pathlib import Path

import click

from hpml_bench.cli.options import FORMATS, page_formats, tracked
from hpml_bench.cli.reporting import result_folders, shown, write
from hpml_bench.system.errors import UserError


@click.command()
@click.argument("folders", metavar="[DIR]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write to; the results folder if not given.",
)
@click.option(
    "--format", "formats", default="html,md", show_default=True, metavar=f"{FORMATS},peft"
)
@tracked("off", "Also publish runs and tables.")
def report(
    folders: tuple[Path, ...], out: Path | None, formats: str, trackers: dict[str, str]
) -> None:
    """Rebuild the report of DIR from its records alone; of several DIR, write one page over their
    suites.

    DIR is a suite's results, or a folder of several, of which each gets its own report; reports/ if
    not given. A page over suites goes to reports/over-suites if there is no --out. The formats pdf
    and png write the page's pictures for papers, peft each compared run as a result file of PEFT's
    method comparison.
    """
    from hpml_bench.plugins.tracker import make_trackers

    wanted = page_formats(formats, "peft")
    if len(folders) > 1:
        if any(mode != "off" for mode in trackers.values()):
            raise UserError(
                "a page over several suites is not published; name one folder, or leave the "
                "trackers off"
            )
        from hpml_bench.page.render import load, load_libraries, page_over, write_page

        every = [inner for folder in folders for inner in result_folders(folder)]
        out = out or Path("reports", "over-suites")
        load_libraries()
        page = page_over([load(folder) for folder in every], out)
        shown(page, write_page(page, out, wanted))
        return
    found = result_folders(*(folders or (Path("reports"),)))
    used = make_trackers(trackers)
    for results in found:
        target = out / results.name if out and len(found) > 1 else out
        write(results, target, wanted, used)
