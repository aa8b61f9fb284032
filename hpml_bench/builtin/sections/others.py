"""Other groups of metrics, those of plug-ins that no section of their own shows: a table and bar charts each."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.plugins.picture import Picture
from hpml_bench.report.metric_groups import OVER_SEEDS, added_to, bar_charts, other_groups
from hpml_bench.report.results import Results
from hpml_bench.report.tables import by_method, section_of

order = 92
question = "best"
about = "metrics of other packages"


def section(results: Results) -> Section | None:
    """Return a table per group, and bar charts of its metrics; None where there is no such group."""
    blocks: list[Table | Picture] = []
    for group in other_groups(results):
        name, metrics = f"group_{group.replace('-', '_')}", added_to(results, (group,))
        title = group.replace("-", " ").capitalize()
        if table := by_method(results, name, f"{title}, {OVER_SEEDS}", metrics):
            blocks += [table, *bar_charts(results, group.replace("-", " "), metrics)]
    return section_of("others", "Other measurements", *blocks)
