"""Every registered section, over results of every awkward kind; and where each run, failure and problem is listed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_sections import ONE_RANK, elsewhere, load, section, sections, without

from helpers import made_records
from helpers.made_records import METHODS, SETTINGS, failed, record, sweep
from hpml_bench.plugins.blocks import Table, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.run import Check, RunRecord
from hpml_bench.report.pictures.drawn import svg
from hpml_bench.report.results import Results
from hpml_bench.suite import registry
from hpml_bench.suite.settings import DatasetSpec

SCORES = ("test_accuracy", "test_macro_f1", "test_loss")
"""What a run's predictions give; one that lacks them is not compared."""


def measured(change: Callable[[str, float | None], float | None], keep: tuple[str, ...] = SCORES) -> list[RunRecord]:
    """Return a sweep whose metrics, but for those kept, went through `change`."""
    return [
        r.model_copy(update={"metrics": {k: v if k in keep else change(k, v) for k, v in r.metrics.items()}})
        for r in sweep(seeds=3)
    ]


CASES: dict[str, Callable[[], list[RunRecord]]] = {
    "whole": sweep,
    "one seed": lambda: sweep(seeds=1),
    "one method": lambda: sweep(["lora"]),
    "missing seeds": lambda: without("lora", 1, 3),
    "no shared seed": lambda: [record("lora", 0), record("lora", 1), record("full", 2), record("full", 3)],
    "nothing ok": lambda: [failed(method, 0, "oom_cuda", "out of memory") for method in METHODS],
    "failed early": lambda: [failed("lora", 0, "failed", "?", protocol_id=None, digests=None, environment={})],
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
    "two numbers of ranks": lambda: [*sweep(seeds=3), *sweep(["lora", "ia3"], 3, settings=ONE_RANK)],
    "many methods": lambda: sweep([f"m{i}" for i in range(14)], 3),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case_results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Read the case's records back from a folder."""
    folder = tmp_path_factory.mktemp("results")
    curves = request.param in {"whole", "one seed", "missing seeds", "two machines"}
    course = made_records.points if curves else lambda *_: []
    rows = 1 if request.param == "one row" else 200
    return Results.load(made_records.write(folder, CASES[request.param](), course, rows))


def test_every_section_copes(case_results: Results) -> None:
    """Each gives well-formed blocks or nothing, whatever the records lack, and never the word nan."""
    for name in registry.names("sections"):
        for made in sections(name, case_results):
            assert made.blocks, made.slug
            for block in made.leaves:
                well_formed(block)


def well_formed(block: Table | Picture | Text) -> None:
    """Hold that a block's rows fit its columns, that its text is plain, and that a figure runs and loads nothing."""
    if isinstance(block, Table):
        assert {len(row) for row in block.rows} == {len(block.columns)}, block.name
        assert block.values is not None
        assert [len(row) for row in block.values] == [len(row) for row in block.rows]
        assert all(cell.isprintable() for row in block.rows for cell in row), block.name
        words = {word for row in block.rows for cell in row for word in cell.split()}
        assert not {"nan", "inf", "None"} & words, block.name
    elif isinstance(block, Picture):
        root = ET.fromstring(svg(block))
        assert not re.search(r'="[^"]*\b(nan|inf)\b', svg(block)), block.name
        assert not [e for e in root.iter() if e.tag.rpartition("}")[2] in {"script", "image", "foreignObject"}]
        assert block.alt
    else:
        assert all(block.sentences)


def test_shares_of_time_depend_on_the_machine() -> None:
    """Of probes all of times, memory and energy, their shares too, are ranked on one machine alone; of tasks none."""
    metrics = [metric for name in registry.names("probes") for metric in registry.plugin("probes", name).metrics]
    for metric in metrics:
        share = metric.name in {"communication_percent", "slowest_rank_share"} or "step_time" in metric.name
        of_machine = metric.unit in {"s", "ms", "MB", "J", "samples/s", "tokens/s"}
        assert metric.depends_on_machine == (share or of_machine), metric.name
    of_tasks = [metric for name in registry.names("tasks") for metric in registry.plugin("tasks", name).metrics]
    assert not [metric.name for metric in of_tasks if metric.depends_on_machine]


@pytest.mark.parametrize(("dataset", "methods", "shown"), [
    ({"name": "newswire"}, ["lora"], True),
    ({"name": "newswire"}, ["full", "head"], False),
    ({"name": "hub", "options": {"dataset": "hub:fancyzhx/ag_news", "train": "train"}}, ["lora"], True),
    ({"name": "hub", "options": {"dataset": "hub:fancyzhx/ag_news@eb185aa"}}, ["lora"], True),
    ({"name": "hub", "options": {"dataset": "hub:stanfordnlp/imdb"}}, ["lora"], False),
    ({"name": "text_files", "options": {"train": "path:news.csv"}}, ["lora"], False),
])  # fmt: skip
def test_a_document_stands_beside_results_of_its_data_and_methods(
    dataset: dict[str, Any], methods: list[str], shown: bool, tmp_path: Path
) -> None:
    """AG News from the hub, and quickstart's data; nothing beside results of anybody's own data."""
    settings = SETTINGS.model_copy(update={"dataset": DatasetSpec.model_validate(dataset)})
    assert (section("document", load(tmp_path, sweep(methods, 2, settings=settings))) is not None) is shown


def others(of: dict[str, Any], **changes: Any) -> list[RunRecord]:
    """Return two methods x two seeds, and those of lora in other settings too, with changes."""
    again = sweep(("lora",), 2, settings=SETTINGS.model_copy(update=of))
    return [*sweep(("lora", "full"), 2), *(run.model_copy(update=changes) for run in again)]


MACHINE, ONE, AGAIN = made_records.ENVIRONMENT, {"world_size": 1}, {"gradient_checkpointing": True}
ELSEWHERE = MACHINE | {"fingerprint": "ffffffffffff"}
NODES = MACHINE | {"fingerprint": "two", "hardware": {"nodes": 2, "ranks_per_node": [2, 2]}}
FAILED = (Check(name="samples", passed=False, detail="9 of 10"),)


@pytest.mark.parametrize(("slug", "made"), [
    ("scaling", others({"world_size": 4}, environment=NODES | {"node_fingerprint": "another"})),
    ("scaling", others({"world_size": 4}, environment=NODES)), ("scaling", others(ONE, environment=ELSEWHERE)),
    ("scaling", sweep(seeds=2)), ("checkpointing", others(AGAIN, environment=ELSEWHERE)),
    ("checkpointing", others(AGAIN, checks=FAILED)), ("checkpointing", sweep(seeds=2)), ("time-budget", sweep(seeds=2)),
], ids=["nodes elsewhere", "unlike nodes", "elsewhere", "one number", "elsewhere", "failed", "one way", "a part lacks"],
)  # fmt: skip
def test_runs_that_differ_in_more_show_nothing(slug: str, made: list[RunRecord], tmp_path: Path) -> None:
    """Nor do runs on one number of ranks, or without times of all their parts."""
    assert section(slug, load(tmp_path, made)) is None
