"""A receipt as an HTML page in one file, its blocks drawn; it loads nothing and runs nothing."""

from __future__ import annotations

from hpml_bench.config.suite import packaged
from hpml_bench.gate.decide.verdicts import overall
from hpml_bench.gate.records import Receipt
from hpml_bench.gate.render import drawings, tables
from hpml_bench.report.export import numeric_columns
from hpml_bench.system.text import clean


def render(receipt: Receipt) -> str:
    """Return the page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = packaged("templates", "templates")
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["numeric"] = numeric_columns
    page: str = environment.get_template("check.html.j2").render(
        style=(folder / "report.css").read_text(encoding="utf-8"),
        suite=clean(receipt.suite, 80),
        status=overall(receipt.verdicts),
        headline=tables.headline(receipt),
        facts=tables.facts(receipt),
        sentences=[*tables.details(receipt), *tables.notes(receipt)],
        times=tables.step_times(receipt),
        changed=tables.counted(receipt, changed_only=True),
        counts=tables.counted(receipt),
        unchanged=tables.unchanged(receipt),
        bounds=drawings.bounds(receipt),
        blocks=drawings.blocks(receipt),
        runs=drawings.runs(receipt),
        measured=tables.measured(receipt),
        environment=tables.environment(receipt),
    )
    return page
