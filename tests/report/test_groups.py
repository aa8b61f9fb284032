"""Metrics of a plug-in's probe reach tables, charts and glossary by their group, without a section of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from report_sections import of, section, tables

from helpers import made_records
from helpers.plugin_packages import forget, install
from hpml_bench.builtin.sections.measurements import GROUPS, STEADY, added_to, other_groups
from hpml_bench.plugins.blocks import Table
from hpml_bench.plugins.picture import Picture
from hpml_bench.plugins.task import make_task
from hpml_bench.records.run import Metric, Point
from hpml_bench.report.render import all_sections, write_report
from hpml_bench.report.results import Results
from hpml_bench.suite import registry
from hpml_bench.suite.settings import TaskSpec

PROBE = '''
"""First-token latency, and bytes of swap."""
from hpml_bench.plugins.probe import Probe
from hpml_bench.records.run import Metric

def metric(name, title, unit, group, spec):
    return Metric(name=name, title=title, unit=unit, better="lower", over_ranks="max", over_steps="once", phase="run",
                  format=spec, group=group, depends_on_machine=True, definition=f"The {title}, for a test.")

class Extra(Probe):
    metrics = (metric("first_token_ms", "first-token latency", "ms", "latency-extra", ".1f"),
               metric("swap_mb", "swap in use", "MB", "memory", ",.0f"))
'''


@pytest.fixture(autouse=True)
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the probe as another package does."""
    install(monkeypatch, tmp_path / "package", "probes", extra=PROBE)
    yield
    monkeypatch.undo()
    forget()


def measured(folder: Path) -> Results:
    """Return results whose runs carry the probe's metrics and points, as the worker stores them."""
    definitions: tuple[Metric, ...] = registry.plugin("probes", "extra").metrics
    runs = of({name: {"first_token_ms": [10.0 * pace, 10.0 * pace + 1, 10.0 * pace + 2], "swap_mb": [7.0, 8.0, 9.0]}
               for name, pace in (("lora", 2), ("full", 1))}, 3)  # fmt: skip
    own = [Point(metric="first_token_ms", step=step, value=float(step)) for step in (10, 20, 30)]
    made = [run.model_copy(update={"definitions": (*run.definitions, *definitions)}) for run in runs]
    return Results.load(made_records.write(folder, made, lambda *of: [*made_records.points(*of), *own]))


def test_a_new_group_gets_a_table_and_a_chart(tmp_path: Path) -> None:
    """A metric of a group that no section has: table, bar chart, curve, glossary and pages show it, with its unit."""
    results = measured(tmp_path)
    sections = {section.slug: section for section in all_sections(results)}
    table, figure = sections["others"].blocks
    assert isinstance(table, Table)
    assert table.columns == ("method", "First-token latency (ms)")
    assert table.rows[1] == ("lora", "21.0 ± 1.0")
    assert isinstance(figure, Picture)
    assert figure.alt == "Bar chart of First-token latency (ms) by method: full 11.0; lora 21.0."
    assert any("First-token latency against optimizer step" in block.caption for block in sections["curves"].blocks)
    assert ("First-token latency", "first_token_ms", "ms") in {
        row[:3] for row in tables("glossary", results)["glossary"].rows
    }
    write_report(tmp_path)
    for page in ("report.md", "report.html"):
        assert "First-token latency (ms)" in (tmp_path / page).read_text(encoding="utf-8")


def test_a_metric_joins_the_table_of_its_group(tmp_path: Path) -> None:
    """A metric of the memory's group is the last column of that table, and has a bar chart after the section's own."""
    table, *figures = section("memory", measured(tmp_path)).blocks  # type: ignore[union-attr]
    assert isinstance(table, Table)
    assert table.columns[-1] == "Swap in use (MB)"
    assert [row[-1] for row in table.rows] == ["8.0 ± 1.0", "8.0 ± 1.0"]
    assert [figure.name for figure in figures] == ["memory", "bars_swap_mb"]


def test_what_the_harness_measures_has_its_place(tmp_path: Path) -> None:
    """Of the harness's own metrics none is taken for a plug-in's: tables stay as they are."""
    metrics = [
        m for name in registry.names("probes") if name != "extra" for m in registry.plugin("probes", name).metrics
    ]
    made = made_records.record("lora", definitions=tuple(metrics), metrics={m.name: 1.0 for m in metrics})
    scored = made.model_copy(update={"metrics": made.metrics | made_records.metrics("lora", 0)})
    definitions = (*metrics, *(m for m in made_records.DEFINITIONS if m.group == "quality"))
    results = Results.load(made_records.write(tmp_path, [scored.model_copy(update={"definitions": definitions})]))
    assert results.compared
    assert other_groups(results) == ()
    assert [group.slug for group in GROUPS if added_to(results, group.groups)] == []
    task = make_task(TaskSpec(name="causal_lm", options={"scorer": "exact"}))  # whose metrics have a table of their own
    known = {m.name for m in (*metrics, *task.metrics)}
    assert {column for metrics in (STEADY, *(group.metrics for group in GROUPS)) for column in metrics} <= known
    shown = {block.name for section in all_sections(results) for block in section.blocks if isinstance(block, Table)}
    assert {"steady_state", *(group.slug for group in GROUPS)} - {"language"} <= shown
