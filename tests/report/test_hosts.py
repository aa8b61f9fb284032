"""Costs of runs on several hosts or beside others; means of seeds that methods lack, and what
cautions say of both.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from report_sections import load, of, said, section

from helpers import made_records
from helpers.made_records import by_jobs, failed, record, sweep
from hpml_bench.judge.judged import TIME
from hpml_bench.judge.results import Results
from hpml_bench.page.pictures.drawn import svg
from hpml_bench.page.render import write_report
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.jobs import JOBS, Job, write_job
from hpml_bench.records.run import RunRecord, Segment
from hpml_bench.select.timeline import SweepTimes, sweep_times

THREE = ("lora", "full", "head")


def beside(which: Callable[[RunRecord], bool], seeds: int = 4) -> list[RunRecord]:
    """Return three methods of which some runs had a neighbour."""
    runs = made_records.by_jobs(sweep(THREE, seeds))
    return [r.model_copy(update={"neighbours": ("other",) if which(r) else ()}) for r in runs]


@pytest.mark.parametrize(("second", "ranked"), [("n1", True), ("n2", False)])
def test_runs_with_parts_on_several_hosts_are_not_ranked_by_costs(
    second: str, ranked: bool, tmp_path: Path
) -> None:
    """Not even if all have parts on the same two: one may have done most of its steps on the
    quicker one.
    """
    first = Segment(
        hosts=("n1",), started="2026-01-02T03:00:00+00:00", first=1, last=50, seconds=30
    )
    again = {
        "hosts": (second,),
        "first": 51,
        "last": 100,
        "repeated_steps": 3,
        "repeated_seconds": 4.0,
    }
    own = {
        "environment": made_records.ENVIRONMENT | {"hosts": tuple(sorted({"n1", second}))},
        "segments": (first, first.model_copy(update=again)),
    }
    results = load(tmp_path, sweep(["lora", "full"], 4, **own))
    assert results.costs_ranked == ranked
    cautions = said("cautions", results)
    assert ("Costs are shown, not ranked: seeds were spread over hosts." in cautions) != ranked
    assert (
        "8 runs went on from a checkpoint. Their costs are of steps that count; 24 steps of 32 s"
        in cautions
    )


def test_why_a_checkpoint_was_not_used_is_a_caution(tmp_path: Path) -> None:
    """With the number of runs, and the reason of the first one."""
    why = "checkpoints/24 is not used: it was saved by 2 ranks, and there are 4"
    runs = sweep(["lora", "full"], 3)
    made = [run.model_copy(update={"unused_checkpoints": (why,)}) for run in runs[:1]]
    cautions = said("cautions", load(tmp_path, [*made, *runs[1:]]))
    name = made[0].spec.method.name
    assert (
        f"Checkpoints weren't used in 1 run, and steps were done again: in {name}, seed 0, {why}."
        in cautions
    )


def test_few_runs_alone_rank_where_they_can_be_tested(tmp_path: Path) -> None:
    """Three seeds of two methods alone, of nine of all: these rank, a method without such has no
    cost; two don't.
    """

    def alone_in(seeds: int) -> Results:
        runs = beside(lambda r: r.spec.method.name == "head" or r.spec.seed >= seeds, 9)
        return load(tmp_path / str(seeds), runs)

    some = alone_in(3)
    assert some.costs_ranked
    assert {m: sorted(of) for m, of in some.values(TIME).items()} == {
        "lora": [0, 1, 2],
        "full": [0, 1, 2],
    }
    assert len(some.values(some.quality)["head"]) == 9
    assert "not placed, for lack of a cost, head" in said("comparisons", some)
    assert not alone_in(2).costs_ranked
    stray = load(tmp_path / "stray", beside(lambda r: r.order != 5))
    assert not stray.costs_ranked
    assert {len(by_seed) for by_seed in stray.values(TIME).values()} == {4}


@pytest.mark.parametrize(
    ("scores", "by_rows", "below"),
    [
        ({"lora": [0.8, 0.81, 0.8], "full": [0.28, 0.27, 0.285]}, [], ["full"]),
        ({"lora": [0.86, 0.85], "full": [0.28, 0.27]}, ["lora"], ["full"]),
        (
            {
                "lora": [0.82, 0.86, 0.9],
                "full": [0.28, 0.27, 0.28],
                **{f"m{n}": [0.6, 0.75, 0.9] for n in range(3)},
            },
            ["lora", "m0", "2 others"],
            ["full"],
        ),
        ({"lora": [0.86, 0.27], "full": [0.8, 0.8]}, ["full"], ["lora"]),
        ({"lora": [0.86, 0.85, 0.86], "full": [0.8, 0.8, 0.81]}, [], []),
    ],
    ids=["over seeds", "two seeds", "seeds that differ", "one run at guessing", "all"],
)
def test_guessing_is_beaten_over_seeds_or_rows(
    scores: dict[str, list[float]], by_rows: list[str], below: list[str], tmp_path: Path
) -> None:
    """From three like seeds on over seeds; else over the rows of each run; a method that isn't
    above it is named.
    """
    seeds = len(scores["lora"])
    text = said(
        "cautions",
        load(tmp_path, of({m: {"test_accuracy": values} for m, values in scores.items()}, seeds)),
    )
    named = re.search(r"by each run's test rows alone, not over seeds: (.*)\.", text)
    assert (re.split(", | and ", named[1]) if named else []) == by_rows
    assert [name for name in scores if f"✕ Not shown to beat guessing: {name}." in text] == below
    assert ("✓ Every method beats guessing." in text) == (not below)


@pytest.mark.parametrize(
    ("runs", "said_first"),
    [
        (
            sweep(["lora"], 2, consumed=None),
            "✕ Every run that ended well was set apart, so there is nothing to compare.",
        ),
        (
            [failed("lora", 0, "failed", "?")],
            "✕ No run ended well, so there is nothing to compare.",
        ),
    ],
)
def test_the_first_caution_is_on_the_runs(runs: list, said_first: str, tmp_path: Path) -> None:
    """Runs that ended well and were set apart are not called failed."""
    assert said("cautions", load(tmp_path, runs)).startswith(said_first)


def test_a_run_with_a_host_is_not_ranked_beside_those_without(tmp_path: Path) -> None:
    """Where one method's records name a host and another's don't, nothing shows that it is the
    same.
    """
    one = {"environment": made_records.ENVIRONMENT | {"hosts": ["n1"]}}
    assert load(tmp_path, [*sweep(["lora"], **one), *sweep(["full"])]).unranked == ("hosts",)


# Runs that jobs did: where they ran, their costs by hardware, and the jobs in time


QUEUED = "2026-01-02T03:00:00+00:00"


def with_jobs(folder: Path, records: list[RunRecord]) -> Results:
    """Write records with their jobs, and read them."""
    made_records.write(folder, records)
    made_records.write_jobs(folder, records)
    return Results.load(folder)


def job(
    number: int, began: int, ended: int | None, restart: int = 0, unit: int | None = None
) -> Job:
    """Return a job that began, and ended, so many seconds after it was queued."""
    start = datetime.fromisoformat(QUEUED)
    return Job(
        engine="slurm",
        job=f"12_{number}",
        restart=restart,
        unit=number if unit is None else unit,
        host="n1",
        pid=3,
        queued=QUEUED,
        began=(start + timedelta(seconds=began)).isoformat(),
        ended=None if ended is None else (start + timedelta(seconds=ended)).isoformat(),
    )


def run_of(number: int, began: int, seconds: float, restart: int = 0) -> RunRecord:
    """Return a run of a job, begun so many seconds after the job was queued."""
    place = {
        "engine": "slurm",
        "job": f"12_{number}",
        "restart": restart,
        "unit": number,
        "host": "n1",
    }
    started = (datetime.fromisoformat(QUEUED) + timedelta(seconds=began)).isoformat()
    environment = made_records.ENVIRONMENT | {"where": place}
    return record("lora", number, started=started, seconds=seconds, environment=environment)


def test_runs_by_no_job_have_no_such_section(tmp_path: Path) -> None:
    """A sweep in one process has nothing to say of jobs, also where a sweep before left one."""
    write_job(tmp_path, job(0, 10, 50))
    assert section("jobs", load(tmp_path, sweep(THREE, 3))) is None


def times_of(folder: Path, jobs: tuple[Job, ...], *runs: RunRecord) -> SweepTimes:
    """Return the times of jobs and their runs."""
    for one in jobs:
        write_job(folder, one)
    times = sweep_times(folder, runs)
    assert times
    return times


def test_the_jobs_times_are_summed(tmp_path: Path) -> None:
    """Queued, in runs, idle, and from the first submission to the last end; a preparation is no
    idle time.
    """
    times = times_of(tmp_path, (job(9, 10, 40, unit=-1), job(0, 50, 100), job(1, 60, 200)),
                     run_of(0, 55, 30.0), run_of(1, 70, 60.0), run_of(1, 140, 50.0))  # fmt: skip
    assert times.sums == {"queued": 120.0, "preparing": 30.0, "in runs": 140.0, "idle": 50.0}
    assert times.makespan == 200.0


@pytest.mark.parametrize(
    ("jobs", "run", "waited", "lasted"),
    [
        (
            (job(0, 10, 50), job(0, 80, 120, restart=1)),
            run_of(0, 90, 20.0, restart=1),
            [10.0, 30.0],
            [40.0, 40.0],
        ),
        ((job(0, 10, None), job(1, 10, None)), run_of(0, 20, 15.0), [10.0, 10.0], [25.0, 0.0]),
    ],
    ids=["restart", "killed"],
)
def test_a_start_waits_since_the_one_before_and_lasts_as_long_as_is_known(
    jobs: tuple[Job, ...], run: RunRecord, waited: list[float], lasted: list[float], tmp_path: Path
) -> None:
    """A restart was submitted with the first start; a killed job says no end, for which its last
    run stands.
    """
    times = times_of(tmp_path, jobs, run)
    assert [one.began - one.queued for one in times.jobs] == waited
    assert [one.ended - one.began for one in times.jobs] == lasted


def test_the_chart_has_a_row_a_job(tmp_path: Path) -> None:
    """With its name, where these are few, and queue, runs and idle time in the legend; failed
    runs took time too.
    """
    (chart,) = (
        block
        for block in section("jobs", with_jobs(tmp_path / "four", by_jobs(sweep(THREE, 4)))).leaves  # type: ignore[union-attr]
        if isinstance(block, Picture)
    )
    texts = {text.strip() for text in re.findall(r">([^<>]+)</text>", svg(chart))}
    assert {"12_0 on n1", "queued", "idle", *THREE} <= texts
    bad = [failed("head", seed, "failed", "?") for seed in range(40)]
    many = with_jobs(tmp_path / "many", by_jobs([*sweep(("lora",), 40), *bad], began=QUEUED))
    (chart,) = (block for block in section("jobs", many).leaves if isinstance(block, Picture))  # type: ignore[union-attr]
    assert "methods not compared" in svg(chart)
    assert "12_0 on" not in svg(chart)
    assert "Pale runs did not end well" in chart.caption


@pytest.mark.parametrize("text", ["", "9999-12-31T23:59:59+00:00", "\x1b[31m"])
def test_times_and_places_of_any_kind_make_a_page(text: str, tmp_path: Path) -> None:
    """What can't be read as a time is left out; names hold no control characters."""
    odd = {"job": [text], "hosts": {"a": 1}, "host": text}
    records = [
        r.model_copy(update={"environment": r.environment | {"where": odd}})
        for r in by_jobs(sweep(THREE, 2))
    ]
    records += [run_of(7, 10, 1e300)]
    load(
        tmp_path,
        [r.model_copy(update={"started": text}) if i % 2 else r for i, r in enumerate(records)],
    )
    write_job(tmp_path, job(7, 5, 30))
    for key in ("began", "ended", "queued", "host"):
        (tmp_path / JOBS / f"{key}.json").write_text(
            json.dumps(job(1, 5, 30).model_dump() | {key: text})
        )
    (tmp_path / JOBS / "e.json").write_text("{")
    write_report(tmp_path)
    assert "\x1b" not in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(("shares", "said_so"), [((0.0, 0.004), False), ((0.0, 0.12), True)])
def test_heat_that_slowed_a_gpu_is_a_caution(
    shares: tuple[float, float], said_so: bool, tmp_path: Path
) -> None:
    """With the run that was slowed for most of its training; a hundredth of it is none."""
    runs = sweep(["lora", "head"])
    share = dict(zip(("lora", "head"), shares, strict=True))
    made = [
        run.model_copy(
            update={"metrics": run.metrics | {"slowed_by_heat": share[run.spec.method.name]}}
        )
        for run in runs
    ]
    cautions = said("cautions", load(tmp_path, made))
    told = "Heat lowered a GPU's clock in 5 runs, most in head, seed 0, for 12 % of the training."
    assert (told in cautions) is said_so


@pytest.mark.parametrize("full", ["float32", "bfloat16", None])
def test_residual_streams_of_two_types_are_a_caution(full: str | None, tmp_path: Path) -> None:
    """With the methods that have each, and what gives all the same; records of before say none."""
    types = {"lora": "bfloat16", "head": "bfloat16", "full": full}
    made = [
        run.model_copy(
            update={"environment": run.environment | {"residual": types[run.spec.method.name]}}
        )
        for run in sweep(list(types))
    ]
    cautions = said("cautions", load(tmp_path, made))
    told = re.search(r"The residual stream is ([^,]*), since embeddings", cautions)
    parts = {"float32 in full", "bfloat16 in lora and head", "bfloat16 in head and lora"}
    assert (told is not None) is (full == "float32")
    assert told is None or sum(part in told[1] for part in parts) == 2
