"""Every registered section, over results of every awkward kind; and where each run, failure and
problem is listed.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_sections import ONE_RANK, elsewhere, load, of, section, sections, tables, without

from helpers import made_records
from helpers.made_records import METHODS, SETTINGS, failed, record, sweep
from helpers.plugin_packages import forget, install
from hpml_bench.builtin.sections.measurements import GROUPS, STEADY, added_to, other_groups
from hpml_bench.judge.results import Results
from hpml_bench.page.pictures.drawn import svg
from hpml_bench.page.render import all_sections, write_report
from hpml_bench.plugins.blocks import Table
from hpml_bench.plugins.picture import Picture
from hpml_bench.plugins.task import make_task
from hpml_bench.records.run import Check, Metric, Point, RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.settings import DatasetSpec, TaskSpec

SCORES = ("test_accuracy", "test_macro_f1", "test_loss")
"""What a run's predictions give; one that lacks them is not compared."""


def measured(
    change: Callable[[str, float | None], float | None], keep: tuple[str, ...] = SCORES
) -> list[RunRecord]:
    """Return a sweep whose metrics, but for those kept, went through `change`."""
    return [
        r.model_copy(
            update={"metrics": {k: v if k in keep else change(k, v) for k, v in r.metrics.items()}}
        )
        for r in sweep(seeds=3)
    ]


CASES: dict[str, Callable[[], list[RunRecord]]] = {
    "whole": sweep,
    "one seed": lambda: sweep(seeds=1),
    "one method": lambda: sweep(["lora"]),
    "missing seeds": lambda: without("lora", 1, 3),
    "no shared seed": lambda: [
        record("lora", 0),
        record("lora", 1),
        record("full", 2),
        record("full", 3),
    ],
    "nothing ok": lambda: [failed(method, 0, "oom_cuda", "out of memory") for method in METHODS],
    "failed early": lambda: [
        failed("lora", 0, "failed", "?", protocol_id=None, digests=None, environment={})
    ],
    "no scores": lambda: [r.model_copy(update={"metrics": {}}) for r in sweep()],
    "scores alone": lambda: [
        r.model_copy(update={"metrics": {k: r.metrics[k] for k in SCORES}}) for r in sweep()
    ],
    "no definitions": lambda: sweep(seeds=3, definitions=()),
    "NaN": lambda: measured(lambda _, value: float("nan")),
    "NaN of scores": lambda: measured(lambda _, value: float("nan"), ()),
    "None": lambda: measured(lambda name, value: None if len(name) % 2 else value),
    "huge": lambda: measured(lambda name, value: 1e300 if len(name) % 2 else float("inf")),
    "zero": lambda: measured(lambda _, value: 0.0, ()),
    "negative": lambda: measured(lambda _, value: -1.0),
    "equal": lambda: measured(lambda _, value: 5.0),
    "one row": lambda: measured(lambda _, value: value),
    "two machines": lambda: [elsewhere(r) if r.order and r.order % 3 == 0 else r for r in sweep()],
    "two numbers of ranks": lambda: [
        *sweep(seeds=3),
        *sweep(["lora", "ia3"], 3, settings=ONE_RANK),
    ],
    "many methods": lambda: sweep([f"m{i}" for i in range(14)], 3),
}


@pytest.fixture(scope="module", params=CASES)
def case_results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    """Read the case's records back from a folder."""
    folder = tmp_path_factory.mktemp("results")
    curves = request.param in {"whole", "one seed", "missing seeds", "two machines"}
    course = made_records.points if curves else lambda *_: []
    rows = 1 if request.param == "one row" else 200
    return Results.load(made_records.write(folder, CASES[request.param](), course, rows))


def test_every_section_copes(case_results: Results) -> None:
    """Each gives well-formed blocks or nothing, whatever the records lack, and never the word nan.

    Rows fit their columns, text is plain, and a figure runs and loads nothing.
    """
    made = [one for name in registry.names("sections") for one in sections(name, case_results)]
    assert all(one.blocks for one in made)
    for block in (block for one in made for block in one.leaves):
        if isinstance(block, Table):
            assert block.values is not None
            assert {len(row) for row in (*block.rows, *block.values)} == {len(block.columns)}, (
                block.name
            )
            assert len(block.values) == len(block.rows)
            assert all(cell.isprintable() for row in block.rows for cell in row), block.name
            words = {word for row in block.rows for cell in row for word in cell.split()}
            assert not {"nan", "inf", "None"} & words, block.name
        elif isinstance(block, Picture):
            drawn = svg(block)
            assert not re.search(r'="[^"]*\b(nan|inf)\b', drawn), block.name
            elements = {element.tag.rpartition("}")[2] for element in ET.fromstring(drawn).iter()}
            assert not {"script", "image", "foreignObject"} & elements
            assert block.alt
        else:
            assert all(block.sentences)


def test_shares_of_time_depend_on_the_machine() -> None:
    """Of probes all of times, memory and energy, their shares too, are ranked on one machine
    alone; of tasks none.
    """
    metrics = [
        metric
        for name in registry.names("probes")
        for metric in registry.plugin("probes", name).metrics
    ]
    for metric in metrics:
        share = (
            metric.name in {"communication_percent", "slowest_rank_share"}
            or "step_time" in metric.name
            or metric.name.startswith("slowed_by_")
        )
        of_machine = metric.unit in {"s", "ms", "MB", "J", "MHz", "samples/s", "tokens/s"}
        assert metric.depends_on_machine == (share or of_machine), metric.name
    of_tasks = [
        metric
        for name in registry.names("tasks")
        for metric in registry.plugin("tasks", name).metrics
    ]
    assert not [metric.name for metric in of_tasks if metric.depends_on_machine]


@pytest.mark.parametrize(
    ("dataset", "methods", "shown"),
    [
        ({"name": "newswire"}, ["lora"], True),
        ({"name": "newswire"}, ["full", "head"], False),
        (
            {"name": "hub", "options": {"dataset": "hub:fancyzhx/ag_news", "train": "train"}},
            ["lora"],
            True,
        ),
        ({"name": "hub", "options": {"dataset": "hub:fancyzhx/ag_news@eb185aa"}}, ["lora"], True),
        ({"name": "hub", "options": {"dataset": "hub:stanfordnlp/imdb"}}, ["lora"], False),
        ({"name": "text_files", "options": {"train": "path:news.csv"}}, ["lora"], False),
    ],
)
def test_a_document_stands_beside_results_of_its_data_and_methods(
    dataset: dict[str, Any], methods: list[str], shown: bool, tmp_path: Path
) -> None:
    """AG News from the hub, and quickstart's data; nothing beside results of anybody's own data."""
    settings = SETTINGS.model_copy(update={"dataset": DatasetSpec.model_validate(dataset)})
    assert (
        section("document", load(tmp_path, sweep(methods, 2, settings=settings))) is not None
    ) is shown


def others(of: dict[str, Any], **changes: Any) -> list[RunRecord]:
    """Return two methods x two seeds, and those of lora in other settings too, with changes."""
    again = sweep(("lora",), 2, settings=SETTINGS.model_copy(update=of))
    return [*sweep(("lora", "full"), 2), *(run.model_copy(update=changes) for run in again)]


MACHINE, ONE, AGAIN = made_records.ENVIRONMENT, {"world_size": 1}, {"gradient_checkpointing": True}
ELSEWHERE = MACHINE | {"fingerprint": "ffffffffffff"}
NODES = MACHINE | {"fingerprint": "two", "hardware": {"nodes": 2, "ranks_per_node": [2, 2]}}
FAILED = (Check(name="samples", passed=False, detail="9 of 10"),)


@pytest.mark.parametrize(
    ("slug", "made"),
    [
        ("scaling", others({"world_size": 4}, environment=NODES | {"node_fingerprint": "another"})),
        ("scaling", others({"world_size": 4}, environment=NODES)),
        ("scaling", others(ONE, environment=ELSEWHERE)),
        ("scaling", sweep(seeds=2)),
        ("checkpointing", others(AGAIN, environment=ELSEWHERE)),
        ("checkpointing", others(AGAIN, checks=FAILED)),
        ("checkpointing", sweep(seeds=2)),
        ("time-budget", sweep(seeds=2)),
    ],
    ids=[
        "nodes elsewhere",
        "unlike nodes",
        "elsewhere",
        "one number",
        "elsewhere",
        "failed",
        "one way",
        "a part lacks",
    ],
)
def test_runs_that_differ_in_more_show_nothing(
    slug: str, made: list[RunRecord], tmp_path: Path
) -> None:
    """Nor do runs on one number of ranks, or without times of all their parts."""
    assert section(slug, load(tmp_path, made)) is None


# Metrics of a plug-in's probe reach tables, charts and glossary by their group, without a section
# of their own


PROBE = '''
"""First-token latency, and bytes of swap."""
from hpml_bench.plugins.probe import Probe
from hpml_bench.records.run import Metric

def metric(name, title, unit, group, spec):
    return Metric(name=name, title=title, unit=unit, better="lower", over_ranks="max",
                  over_steps="once", phase="run",
                  format=spec, group=group, depends_on_machine=True,
                  definition=f"The {title}, for a test.")

class Extra(Probe):
    metrics = (metric("first_token_ms", "first-token latency", "ms", "latency-extra", ".1f"),
               metric("swap_mb", "swap in use", "MB", "memory", ",.0f"))
'''


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the probe as another package does."""
    install(monkeypatch, tmp_path / "package", "probes", extra=PROBE)
    yield
    monkeypatch.undo()
    forget()


@pytest.mark.usefixtures("probe")
def test_a_new_group_gets_a_table_and_a_chart(tmp_path: Path) -> None:
    """A metric of a group that no section has: table, bar chart, curve, glossary and pages show it,
    with its unit.

    One of the memory's group is the last column of that table, and has a bar chart after the
    section's own.
    """
    definitions: tuple[Metric, ...] = registry.plugin("probes", "extra").metrics
    runs = of(
        {
            name: {
                "first_token_ms": [10.0 * pace, 10.0 * pace + 1, 10.0 * pace + 2],
                "swap_mb": [7.0, 8.0, 9.0],
            }
            for name, pace in (("lora", 2), ("full", 1))
        },
        3,
    )
    own = [Point(metric="first_token_ms", step=step, value=float(step)) for step in (10, 20, 30)]
    made = [
        run.model_copy(update={"definitions": (*run.definitions, *definitions)}) for run in runs
    ]
    made_records.write(tmp_path, made, lambda *of: [*made_records.points(*of), *own])
    results = Results.load(tmp_path)
    sections = {section.slug: section for section in all_sections(results)}
    table, figure = sections["others"].blocks
    assert isinstance(table, Table)
    assert (table.columns, table.rows[1]) == (
        ("method", "First-token latency (ms)"),
        ("lora", "21.0 ± 1.0"),
    )
    assert isinstance(figure, Picture)
    assert figure.alt == "Bar chart of First-token latency (ms) by method: full 11.0; lora 21.0."
    assert any(
        "First-token latency against optimizer step" in block.caption
        for block in sections["curves"].blocks
    )
    named = {row[:3] for row in tables("glossary", results)["glossary"].rows}
    assert ("First-token latency", "first_token_ms", "ms") in named
    for page in write_report(tmp_path)[:2]:
        assert "First-token latency (ms)" in page.read_text(encoding="utf-8")
    memory, *figures = sections["memory"].blocks
    assert isinstance(memory, Table)
    assert (memory.columns[-1], {row[-1] for row in memory.rows}) == (
        "Swap in use (MB)",
        {"8.0 ± 1.0"},
    )
    assert [figure.name for figure in figures] == ["memory", "bars_swap_mb"]


def test_what_the_harness_measures_has_its_place(tmp_path: Path) -> None:
    """Of the harness's own metrics none is taken for a plug-in's: tables stay as they are."""
    metrics = [
        metric
        for name in registry.names("probes")
        for metric in registry.plugin("probes", name).metrics
    ]
    made = made_records.record(
        "lora", definitions=tuple(metrics), metrics={m.name: 1.0 for m in metrics}
    )
    scored = made.model_copy(update={"metrics": made.metrics | made_records.metrics("lora", 0)})
    definitions = (*metrics, *(m for m in made_records.DEFINITIONS if m.group == "quality"))
    results = Results.load(
        made_records.write(tmp_path, [scored.model_copy(update={"definitions": definitions})])
    )
    assert results.compared
    assert other_groups(results) == ()
    assert [group.slug for group in GROUPS if added_to(results, group.groups)] == []
    task = make_task(
        TaskSpec(name="causal_lm", options={"scorer": "exact"})
    )  # whose metrics have a table of their own
    known = {m.name for m in (*metrics, *task.metrics)}
    assert {
        column for metrics in (STEADY, *(group.metrics for group in GROUPS)) for column in metrics
    } <= known
    shown = {
        block.name
        for section in all_sections(results)
        for block in section.blocks
        if isinstance(block, Table)
    }
    assert {"steady_state", *(group.slug for group in GROUPS)} - {"language"} <= shown
