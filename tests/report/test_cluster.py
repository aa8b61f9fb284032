"""Runs that jobs did: which costs rank methods, where the runs ran, and the jobs in time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from helpers import made_records
from hpml_bench.plugins.blocks import Table, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.jobs import JOBS, Job, write_job
from hpml_bench.records.run import RunRecord
from hpml_bench.report.jobs import moment, sweep_times, where
from hpml_bench.report.pictures.svg import svg
from hpml_bench.report.render import all_sections, write_report
from hpml_bench.report.results import TIME, Results
from hpml_bench.report.seed_plan import plan
from hpml_bench.system.errors import UserError

METHODS = ("lora", "full", "head")
QUEUED = "2026-01-02T03:00:00+00:00"
Change = Callable[[RunRecord], dict[str, Any]]


def runs(change: Change = lambda _: {}, seeds: int = 4) -> list[RunRecord]:
    """Return the records of a sweep by jobs; `change` gives fields of each that are others."""
    made = made_records.by_jobs(made_records.sweep(METHODS, seeds))
    return [record.model_copy(update=change(record)) for record in made]


def load(folder: Path, records: list[RunRecord], jobs: bool = True) -> Results:
    """Write records with their jobs, and read them."""
    made_records.write(folder, records)
    if jobs:
        made_records.write_jobs(folder, records)
    return Results.load(folder)


_made: dict[int, tuple[Results, dict[str, tuple[Any, ...]]]] = {}
"""Results, kept so that no others have their id, and the blocks of their sections."""


def blocks(results: Results, title: str) -> tuple[Any, ...]:
    """Return the blocks of a section, which are made once; none where there is no such section."""
    if id(results) not in _made:
        _made[id(results)] = (results, {made.title: made.blocks for made in all_sections(results)})
    return _made[id(results)][1].get(title, ())


def table(results: Results, title: str, name: str) -> Table | None:
    """Return a table of a section."""
    return next((b for b in blocks(results, title) if isinstance(b, Table) and b.name == name), None)


def said(results: Results, title: str) -> str:
    """Return what a section says, its tables' notes included."""
    found = [line for b in blocks(results, title) if isinstance(b, Text) for line in b.sentences]
    return "\n".join(found + [note for b in blocks(results, title) if isinstance(b, Table) for note in b.notes])


def beside(*which: tuple[str, int]) -> Change:
    """Return a change that gives some runs a neighbour."""
    return lambda r: {"neighbours": ("other",)} if (r.spec.method.name, r.spec.seed) in which else {}


# Which costs rank methods


def test_costs_are_of_runs_without_neighbours(tmp_path: Path) -> None:
    """A run with a neighbour enters no mean, test or rank of a cost, and every score; its costs are shown, marked."""
    results = load(tmp_path / "a", runs(beside(("full", 1), ("head", 1))))
    apart = {("full", 1), ("head", 1)}
    without = load(tmp_path / "b", [r for r in runs() if (r.spec.method.name, r.spec.seed) not in apart])
    whole = load(tmp_path / "c", runs())
    for name, definition in whole.definitions.items():
        expected = without if definition.depends_on_machine else whole
        assert results.values(name) == expected.values(name), name
    assert results.costs_ranked
    assert results.one_machine
    assert [c.verdict for c in results.comparisons(TIME)] == [c.verdict for c in without.comparisons(TIME)]
    assert "2 of 12 compared runs had neighbours" in said(results, "All that the verdicts say")
    assert "full has no costs of seed 1: it had neighbours on its host." in said(results, "All scores")
    shown = table(results, "Runs", "runs")
    assert shown is not None
    row = next(row for row in shown.rows if row[:2] == ("full", "1"))
    cells = dict(zip(shown.columns, row, strict=True))
    assert cells["Neighbours"] == "1"
    assert cells["Training time (s)"] != "–"
    assert cells["Wall time (s)"] != "–"


@pytest.mark.parametrize("neighbours", [None, ()])
def test_none_and_unknown_neighbours_are_no_difference(neighbours: tuple[str, ...] | None, tmp_path: Path) -> None:
    """Records of before say nothing of neighbours, and those of jobs that were alone name none: costs rank."""
    results = load(tmp_path, runs(lambda _: {"neighbours": neighbours}))
    assert results.costs_ranked
    assert not results.beside
    assert len(results.headline) == 3
    shown = table(results, "Runs", "runs")
    assert shown is not None
    assert "Neighbours" not in shown.columns


def test_where_all_have_neighbours_costs_are_shown_and_rank_nothing(tmp_path: Path) -> None:
    """Tables and dots have times and memory; no claim, test, rank or front is of them, and a sentence says why."""
    results, alone = load(tmp_path / "a", runs(lambda _: {"neighbours": ("x", "y")})), load(tmp_path / "b", runs())
    assert not results.costs_ranked
    assert results.headline == ("test_accuracy",)
    assert results.values(TIME) == alone.values(TIME)
    takeaways = said(results, "All that the verdicts say")
    assert "Methods are not ranked by costs: 12 of 12 compared runs had neighbours" in takeaways
    for words in ("trained fastest", "needed the least memory", "Pareto", "costs for other seeds"):
        assert words in said(alone, "All that the verdicts say")
        assert words not in takeaways
    assert not blocks(results, "Cost against accuracy")
    summary = table(results, "All scores", "summary")
    assert summary is not None
    assert "Training time (s)" in summary.columns
    assert not {"Pareto front"} & set(summary.columns)
    assert "–" not in {cell for row in summary.rows for cell in row}
    for section in ("Throughput", "Memory", "Inference"):
        assert "had neighbours on their host" in said(results, section)
        assert "had neighbours" not in said(alone, section)
    assert not [t for t in blocks(results, "Which differences are real") if t.name == f"pairs_{TIME}"]
    assert results.ranks(results.quality) == alone.ranks(alone.quality)


def test_a_stray_run_alone_takes_no_costs_from_the_page(tmp_path: Path) -> None:
    """One of many that happened to be alone can be compared with none: all costs are shown, and rank nothing."""
    results = load(tmp_path, runs(lambda r: {"neighbours": () if r.order == 5 else ("x",)}))
    assert not results.costs_ranked
    assert {len(by_seed) for by_seed in results.values(TIME).values()} == {4}


def test_few_runs_alone_rank_where_they_can_be_tested(tmp_path: Path) -> None:
    """Three seeds of two methods alone, of four seeds of all: these rank; a method without such has no cost."""

    def alone_in(seeds: int) -> list[RunRecord]:
        """Return nine seeds, of which so many of lora and full were alone."""
        return runs(lambda r: {"neighbours": ("x",) * (r.spec.method.name == "head" or r.spec.seed >= seeds)}, 9)

    some = load(tmp_path / "a", alone_in(3))
    assert some.costs_ranked
    assert {m: sorted(of) for m, of in some.values(TIME).items()} == {"lora": [0, 1, 2], "full": [0, 1, 2]}
    assert len(some.values(some.quality)["head"]) == 9
    assert "not placed, for want of a cost: head" in said(some, "All that the verdicts say")
    assert not load(tmp_path / "b", alone_in(2)).costs_ranked


def test_another_machine_is_told_apart_from_neighbours(tmp_path: Path) -> None:
    """Each reason is counted by itself; a run elsewhere with neighbours ran elsewhere."""

    def change(record: RunRecord) -> dict[str, Any]:
        elsewhere = {"environment": record.environment | {"fingerprint": "another"}}
        if record.spec.seed == 3:
            return elsewhere | {"neighbours": ("x",)}
        return {"neighbours": ("x",)} if (record.spec.seed, record.spec.method.name) == (2, "lora") else {}

    results = load(tmp_path, runs(change, 6))
    takeaways = said(results, "All that the verdicts say")
    assert "3 of 18 compared runs ran on other hardware" in takeaways
    assert "1 of 18 compared runs had neighbours" in takeaways
    assert "lora has no costs of seed 3: it ran in another environment." in said(results, "All scores")
    assert "lora has no costs of seed 2: it had neighbours on its host." in said(results, "All scores")


def test_nothing_scales_from_runs_with_neighbours(tmp_path: Path) -> None:
    """Runs on another number of ranks are set beside those alone; of others it is said why they are not."""
    one_rank = made_records.SETTINGS.model_copy(update={"world_size": 1})
    other = made_records.by_jobs(made_records.sweep(METHODS, 3, settings=one_rank))
    assert blocks(load(tmp_path / "a", [*runs(), *other]), "Scaling over ranks")
    for name, here, there in (("b", ("x",), ()), ("c", (), ("x",))):
        records = [*runs(lambda _, here=here: {"neighbours": here})]  # type: ignore[misc]
        records += [r.model_copy(update={"neighbours": there}) for r in other]
        results = load(tmp_path / name, records)
        assert not blocks(results, "Scaling over ranks")
        assert any("of runs without others on their host" in one.reason for one in results.left_out.excluded)


def test_no_seeds_are_planned_by_costs_of_neighbours(tmp_path: Path) -> None:
    """Nor hours told; scores are planned as ever."""
    load(tmp_path, runs(lambda _: {"neighbours": ("x",)}))
    with pytest.raises(UserError, match="slow each other"):
        plan(tmp_path, "train_seconds=3%")
    found = plan(tmp_path, "accuracy=2pp")
    assert found.hours is None
    assert any("slow each other" in sentence for sentence in found.sentences)


# Where they ran


def test_the_page_tells_where_each_run_ran(tmp_path: Path) -> None:
    """Hosts, engine, job, restart and neighbours of every compared run; the environment names no job."""

    def change(record: RunRecord) -> dict[str, Any]:
        said = record.environment["where"] | {"hosts": ["n1", "n2"], "restart": 1}
        return {"environment": record.environment | {"where": said}} if record.spec.seed == 1 else {}

    results = load(tmp_path, runs(change))
    places = table(results, "Jobs and hosts", "places")
    assert places is not None
    assert len(places.rows) == 12
    assert ("lora", "0", "n1", "slurm", "12_0", "0", "0") in places.rows
    assert ("lora", "1", "n1, n2", "slurm", "12_1", "1", "0") in places.rows
    assert "12 compared runs were done by 4 jobs of slurm on 2 hosts." in said(results, "Jobs and hosts")
    environment = table(results, "Environment", "environment")
    assert environment is not None
    assert not [row for row in environment.rows if row[0].startswith("where")]
    assert len(results.machines) == 1, "hosts that are alike are one environment"


def test_runs_by_no_job_have_no_such_section(tmp_path: Path) -> None:
    """A sweep in one process has nothing to say of jobs."""
    folder = made_records.write(tmp_path, made_records.sweep(METHODS, 3))
    assert not blocks(Results.load(folder), "Jobs and hosts")
    write_job(folder, job(0, 10, 50))  # of a sweep before, whose runs were done anew
    assert not blocks(Results.load(folder), "Jobs and hosts")


def test_costs_are_grouped_by_hardware(tmp_path: Path) -> None:
    """A row a hardware, neighbours or none, and method, each the mean of its own runs; of one group no table."""
    assert table(load(tmp_path / "one", runs()), "Jobs and hosts", "costs_by_hardware") is None
    cards = {"gpus": [{"name": "NVIDIA H100", "memory_mb": 80000}] * 2, "nodes": 2}

    def change(record: RunRecord) -> dict[str, Any]:
        if record.spec.seed == 3:
            hardware = record.environment["hardware"] | cards
            return {"environment": record.environment | {"fingerprint": "ffff00001111", "hardware": hardware}}
        return {"neighbours": ("x",)} if record.spec.seed == 2 else {}

    records = runs(change)
    found = table(load(tmp_path / "two", records), "Jobs and hosts", "costs_by_hardware")
    assert found is not None
    groups = [row[:2] for row in found.rows if row[2] == "full"]
    assert groups == [
        ("Example CPU @ 2.0 GHz, 2 cores (0123456789ab)", "none"),
        ("Example CPU @ 2.0 GHz, 2 cores (0123456789ab)", "some"),
        ("2 nodes, 2 x NVIDIA H100 (ffff00001111)", "none"),
    ]
    assert found.values is not None
    column = found.columns.index("Training time (s)")
    times = [r.metrics[TIME] for r in records if r.spec.method.name == "full"]
    assert [row[column] for row in found.values if row[2] == "full"] == pytest.approx(
        [(times[0] + times[1]) / 2, times[2], times[3]]  # type: ignore[operator]
    )


# The jobs in time


def job(number: int, began: int, ended: int | None, restart: int = 0, unit: int | None = None) -> Job:
    """Return a job that began, and ended, so many seconds after it was queued."""
    start = datetime.fromisoformat(QUEUED)
    return Job(
        engine="slurm", job=f"12_{number}", restart=restart, unit=number if unit is None else unit, host="n1", pid=3,
        queued=QUEUED, began=(start + timedelta(seconds=began)).isoformat(),
        ended=None if ended is None else (start + timedelta(seconds=ended)).isoformat(),
    )  # fmt: skip


def run_of(number: int, began: int, seconds: float, restart: int = 0) -> RunRecord:
    """Return a run of a job, begun so many seconds after the job was queued."""
    said = {"engine": "slurm", "job": f"12_{number}", "restart": restart, "unit": number, "host": "n1"}
    started = (datetime.fromisoformat(QUEUED) + timedelta(seconds=began)).isoformat()
    environment = made_records.ENVIRONMENT | {"where": said}
    return made_records.record("lora", number, started=started, seconds=seconds, environment=environment)


def test_the_jobs_times_are_summed(tmp_path: Path) -> None:
    """Queued, in runs, idle, and from the first submission to the last end; a preparation is no idle time."""
    for one in (job(9, 10, 40, unit=-1), job(0, 50, 100), job(1, 60, 200)):
        write_job(tmp_path, one)
    times = sweep_times(tmp_path, [run_of(0, 55, 30.0), run_of(1, 70, 60.0), run_of(1, 140, 50.0)])
    assert times is not None
    assert times.sums == {"queued": 120.0, "preparing": 30.0, "in runs": 140.0, "idle": 50.0}
    assert times.makespan == 200.0


def test_a_requeued_job_waits_since_it_ended(tmp_path: Path) -> None:
    """Its restart was submitted with it, and does not wait while its first start works."""
    write_job(tmp_path, job(0, 10, 50))
    write_job(tmp_path, job(0, 80, 120, restart=1))
    times = sweep_times(tmp_path, [run_of(0, 90, 20.0, restart=1)])
    assert times is not None
    assert [one.began - one.queued for one in times.jobs] == [10.0, 30.0]


def test_a_killed_job_ends_with_the_last_that_is_known_of_it(tmp_path: Path) -> None:
    """It says no end: that of its last run stands for it, or where there is none its beginning."""
    write_job(tmp_path, job(0, 10, None))
    write_job(tmp_path, job(1, 10, None))
    times = sweep_times(tmp_path, [run_of(0, 20, 15.0)])
    assert times is not None
    assert [one.ended - one.began for one in times.jobs] == [25.0, 0.0]


def test_the_chart_has_a_row_a_job(tmp_path: Path) -> None:
    """With queue, runs and idle time in the legend, and the sums in its alternative text; in Markdown too."""
    results = load(tmp_path, runs())
    (chart,) = [block for block in blocks(results, "Jobs and hosts") if isinstance(block, Picture)]
    texts = {text.strip() for text in re.findall(r">([^<>]+)</text>", svg(chart))}
    assert {f"12_{n} on n{n % 2 + 1}" for n in range(4)} <= texts
    assert {"queued", "idle", *METHODS} <= texts
    assert "4 jobs, summed: 142.0 s queued" in chart.alt
    assert "from first submission to last end" in chart.alt
    assert chart.alt.partition("jobs. ")[2].rstrip(".") in said(results, "Jobs and hosts")
    write_report(tmp_path, formats=["md"])
    assert "](figures/jobs.svg)" in (tmp_path / "report.md").read_text()


def test_runs_that_are_not_compared_are_drawn(tmp_path: Path) -> None:
    """A failed run took a job's time too; many jobs are drawn without their names."""
    bad = [made_records.failed("head", seed, "failed", "?") for seed in range(40)]
    made = made_records.by_jobs([*made_records.sweep(("lora",), 40), *bad], began=QUEUED)
    (chart,) = [block for block in blocks(load(tmp_path, made), "Jobs and hosts") if isinstance(block, Picture)]
    assert "methods not compared" in svg(chart)
    assert "40 jobs" in svg(chart)
    assert "12_0 on" not in svg(chart)
    assert "Pale runs did not end well" in chart.caption


@pytest.mark.parametrize("text", ["", "yesterday", "9999-12-31T23:59:59+00:00", "2026-01-02", "\x1b[31m"])
def test_times_and_places_of_any_kind_make_a_page(text: str, tmp_path: Path) -> None:
    """What can't be read as a time is left out; names hold no control characters."""
    odd = {"job": [text], "hosts": {"a": 1}, "host": text}
    records = runs(lambda r: {"environment": r.environment | {"where": odd}}, 2)
    records += [run_of(7, 10, 1e300)]
    load(tmp_path, [r.model_copy(update={"started": text}) if i % 2 else r for i, r in enumerate(records)], jobs=False)
    write_job(tmp_path, job(7, 5, 30))
    for name, changes in (
        ("a", {"began": text}),
        ("b", {"ended": text}),
        ("c", {"queued": text}),
        ("d", {"host": text}),
    ):
        (tmp_path / JOBS / f"{name}.json").write_text(json.dumps(job(1, 5, 30).model_dump() | changes))
    (tmp_path / JOBS / "e.json").write_text("{")
    write_report(tmp_path)
    assert "\x1b" not in (tmp_path / "report.md").read_text()


def test_a_time_without_a_zone_is_utc() -> None:
    """As records of any origin have it."""
    assert moment("2026-01-02T03:00:00") == moment("2026-01-02T03:00:00+00:00")
    assert moment("never") is None


def test_a_place_that_cannot_be_read_is_none() -> None:
    """A record is JSON of any origin."""
    assert where(made_records.record()) is None
    assert where(made_records.record(environment={"where": "here"})) is None
    odd = where(made_records.record(environment={"where": {"restart": "x"}}))
    assert odd is not None
    assert (odd.hosts, odd.job, odd.restart) == ((), "–", 0)
