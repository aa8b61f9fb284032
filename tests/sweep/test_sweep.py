"""A whole suite: order, resumption, what is kept when something goes wrong."""

import os
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import Result
from faults import content
from rich.console import Console
from scipy.stats import chisquare

from helpers import tiny
from helpers.commands import called
from helpers.quick_runs import arrange, suite_of
from hpml_bench.launch import preparation
from hpml_bench.records.files import SET_ASIDE
from hpml_bench.records.load import load_record, load_records
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.settings import Digests, RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep import local as sweep
from hpml_bench.sweep.execute import SweepProgress
from hpml_bench.sweep.request import SweepRequest, methods_of_seed, shuffled

Finished = tuple[Path, Path, Result]


def run_all(suite: Path, out: Path, *options: str, status: int = 0) -> Result:
    return called("run-all", suite, "--out", out, "--wandb", "off", *options, status=status)


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A sweep of two methods x two seeds that went well: suite, results folder, and what the
    command said.
    """
    folder = tmp_path_factory.mktemp("colours")
    suite = tiny.local_suite(folder)
    return suite, folder / "out/colours", run_all(suite, folder / "out")


@pytest.fixture
def copy(finished_sweep: Finished, tmp_path: Path) -> Path:
    """A copy of its results to meddle with; the folder to give as --out."""
    shutil.copytree(finished_sweep[1], tmp_path / "colours")
    return tmp_path


def stamps(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/run.json")}


def test_a_sweep_ends_well(finished_sweep: Finished) -> None:
    """Status 0, four ok records of one protocol, and everything a later reader needs.

    All methods of seed 0 come before those of seed 1; within a seed all consumed the same samples
    in one order.
    """
    _, folder, result = finished_sweep
    loaded = load_records(folder)
    assert loaded.problems == ()
    pairs = {(record.spec.method.name, record.spec.seed) for record in loaded.records}
    assert pairs == {("lora", 0), ("lora", 1), ("head", 0), ("head", 1)}
    assert {record.status for record in loaded.records} == {"ok"}
    assert len({record.protocol_id for record in loaded.records}) == 1
    assert loaded.records[0].label_names == tiny.COLOURS
    assert "lora seed 1: ok" in result.output
    assert all(str(folder / name) in result.output for name in ("report.html", "report.md"))
    records = sorted(loaded.records, key=lambda record: record.order or 0)
    places = [(record.order, record.spec.seed, record.place) for record in records]
    assert places == [(1, 0, 1), (2, 0, 2), (3, 1, 1), (4, 1, 2)]
    assert [record.started for record in records] == sorted(record.started for record in records)
    first, second, third, fourth = (record.consumed for record in records)
    assert first == second != third == fourth
    assert None not in {first, third}


def test_what_is_missing_or_damaged_is_run_again(finished_sweep: Finished, copy: Path) -> None:
    """A record gone, one torn, predictions cut: said, kept aside, done anew at their old places, to
    the same bits.

    What is recorded stays as it is, to the byte's time stamp, also in a results folder that was
    moved.
    """
    folder = copy / "colours"
    before = stamps(folder)
    gone, torn, cut, whole = sorted(before)
    places = {run: load_record(folder / run / "run.json").order for run in before}
    shutil.rmtree(folder / gone)
    for run, name in ((torn, "run.json"), (cut, "predictions.parquet")):
        os.truncate(folder / run / name, 100)
        (folder / run / "leftover").write_text("of the earlier attempt")
    loaded = load_records(folder)
    assert [record.run_id for record in loaded.records] == [whole]
    assert [any(run in problem for problem in loaded.problems) for run in (torn, cut)] == [
        True,
        True,
    ]
    result = run_all(finished_sweep[0], copy)
    assert "1 of 4 runs are recorded already" in result.output
    after = stamps(folder)
    assert {run for run in after if after[run] != before[run]} == {gone, torn, cut}
    assert {run: load_record(folder / run / "run.json").order for run in after} == places
    assert content(folder) == content(finished_sweep[1])
    for run, name, ending in ((torn, "run.json", ".damaged"), (cut, "predictions.parquet", "")):
        assert f"{run}: {name} is" in result.output.replace("\n", "")
        assert not (folder / run / "leftover").exists()
        assert (folder / SET_ASIDE / f"{run}.1" / f"{name}{ending}").stat().st_size == 100


def test_a_failed_run_costs_the_others_nothing(finished_sweep: Finished, tmp_path: Path) -> None:
    """Status 1; what diverged is recorded with the reason, the rest is ok, and the report is
    written.
    """
    options = [
        "--methods",
        "full,head",
        "--seeds",
        "1",
        "--set",
        "methods.full.lr=1e30",
        "--set",
        "clip_norm=null",
    ]
    result = run_all(finished_sweep[0], tmp_path, *options, status=1)
    statuses = {r.spec.method.name: r.status for r in load_records(tmp_path / "colours").records}
    assert statuses == {"full": "diverged", "head": "ok"}
    assert "1 of 2 runs did not end well" in result.stderr
    assert "diverged" in (tmp_path / "colours/report.md").read_text()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("dataset.options.train=path:nowhere.csv", ["nowhere.csv"]),
        ("backbone=path:nowhere", ["nowhere"]),
        ("dataset.options.label=colour", ["colour", "text"]),
        ("max_length=1000", ["max_length", "1000", "64"]),
    ],
)
def test_what_cannot_be_had_is_told(
    finished_sweep: Finished, setting: str, words: list[str], tmp_path: Path
) -> None:
    """Files, model and rows are looked at once, before any run: status 2, and no record is
    written.
    """
    result = run_all(finished_sweep[0], tmp_path, "--set", setting, status=2)
    line, *others = result.stderr.splitlines()
    assert not others, result.stderr
    for word in words:
        assert word in line
    assert "Traceback" not in result.output
    assert stamps(tmp_path / "colours") == {}


# The order and the bookkeeping, with runs that take no time


def go(suite: Suite, out: Path, **options: object) -> sweep.SweepResult:
    return sweep.run_sweep(SweepRequest(suite, out, **options), Console(quiet=True))


def test_a_sweep_in_which_nothing_could_be_done_is_no_success(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Status 1 where every method is unsupported; one that is, is none."""
    arrange(monkeypatch, {"x": "unsupported"})
    suite = tmp_path / "quick.yaml"
    for methods, status in (("x", 1), ("x,y", 0)):
        suite.write_text(suite_of(*methods.split(","), seeds=1).model_dump_json())
        result = run_all(suite, tmp_path / methods, status=status)
        assert ("all 1 runs are unsupported" in result.stderr) is bool(status)


def test_a_record_that_is_lost_meanwhile_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may cut it after it was written: status 1, and the same command does that run
    again.
    """
    ran, finished = arrange(monkeypatch, {}), SweepProgress.finished
    suite = tmp_path / "quick.yaml"
    suite.write_text(suite_of("x", "y", seeds=1).model_dump_json())

    def cut(progress: SweepProgress, record: RunRecord) -> None:
        finished(progress, record)
        if record.spec.method.name == "x" and len(ran) <= 2:
            os.truncate(tmp_path / "quick" / record.run_id / "run.json", 100)

    monkeypatch.setattr(SweepProgress, "finished", cut)
    result = run_all(suite, tmp_path, status=1)
    assert "1 of 2 runs did not end well" in result.stderr
    run_all(suite, tmp_path)
    assert sorted(ran) == ["x-0", "x-0", "y-0"]


def names_by_seed(runs: list[RunSpec]) -> dict[int, str]:
    return {
        seed: "".join(run.method.name for run in runs if run.seed == seed)
        for seed in {run.seed for run in runs}
    }


def test_methods_take_turns_within_a_seed() -> None:
    """Seeds come one after the other, each with all methods; over many seeds each method has
    each place as often.
    """
    suite = suite_of(*"abcde", seeds=500)
    order = shuffled(suite.runs(), suite)
    assert [run.seed for run in order] == sorted(run.seed for run in order)
    by_seed = names_by_seed(order)
    assert all(sorted(names) == list("abcde") for names in by_seed.values())
    counts = [
        Counter(names[place] for names in by_seed.values())[method]
        for place in range(5)
        for method in "abcde"
    ]
    assert chisquare(counts).pvalue > 0.001
    assert shuffled(sorted(suite.runs(), key=lambda run: -run.seed), suite) == order


def test_an_order_stays_when_more_or_less_is_asked_for() -> None:
    """More seeds, one seed or some methods don't move the others; a method from outside the
    suite comes last.
    """
    suite = suite_of(*"abcde", seeds=3)
    whole = names_by_seed(shuffled(suite.runs(seeds=range(12)), suite))
    assert names_by_seed(shuffled(suite.runs(), suite)) == {seed: whole[seed] for seed in range(3)}
    assert names_by_seed(shuffled(suite.runs(seeds=[7]), suite)) == {7: whole[7]}
    some = names_by_seed(shuffled(suite.runs(["full", "d", "b"], range(12)), suite))
    assert some == {
        seed: "".join(name for name in whole[seed] if name in "bd") + "full" for seed in range(12)
    }


def test_ok_and_unsupported_are_settled_others_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second sweep runs only what ended otherwise; `unsupported` is a finding, not a failure."""
    statuses = {"a": "ok", "b": "unsupported", "c": "failed", "d": "timeout"}
    ran = arrange(monkeypatch, statuses)
    result = go(suite_of(*statuses, seeds=1), tmp_path)
    assert {record.spec.method.name: record.status for record in result.records} == statuses
    assert len(ran) == 4
    ran = arrange(monkeypatch, {})
    result = go(suite_of(*statuses, seeds=1), tmp_path)
    assert sorted(ran) == ["c-0", "d-0"]
    assert Counter(record.status for record in result.records) == {"ok": 3, "unsupported": 1}


def test_runs_on_other_rows_are_kept_and_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good record of other rows is no record of this sweep: it is set aside, whole, and the
    run is done anew.
    """
    arrange(monkeypatch, {})
    go(suite_of("a", seeds=1), tmp_path)
    (before,) = load_records(tmp_path / "quick").records
    ran = arrange(monkeypatch, {})
    changed = tiny.NOTHING.model_copy(
        update={"digests": Digests(weights="w", tokenizer="t", data="other")}
    )
    monkeypatch.setattr(preparation, "prepare", lambda *_: changed)
    go(suite_of("a", seeds=1), tmp_path)
    assert ran == ["a-0"]
    (after,) = load_records(tmp_path / "quick").records
    assert (before.protocol_id == after.protocol_id, before.run_id == after.run_id) == (False, True)
    (kept,) = (tmp_path / "quick" / SET_ASIDE).iterdir()
    assert (
        RunRecord.model_validate_json((kept / "run.json.damaged").read_text()).protocol_id
        == before.protocol_id
    )


def test_fresh_forgets_the_runs_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is run again; what someone else put into the folder stays."""
    arrange(monkeypatch, {})
    go(suite_of("a", "b"), tmp_path)
    (tmp_path / "quick/notes").mkdir()
    (tmp_path / "quick/notes/mine.txt").write_text("mine")
    ran = arrange(monkeypatch, {})
    go(suite_of("a"), tmp_path, fresh=True)
    assert sorted(ran) == ["a-0", "a-1"]
    assert (tmp_path / "quick/notes/mine.txt").exists()
    assert len(stamps(tmp_path / "quick")) == 2


def test_an_interruption_stops_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is started; what was done is in the result."""
    ran = arrange(monkeypatch, {"a": "interrupt"})
    result = go(suite_of("a", "b", seeds=3), tmp_path)
    assert (result.ending.how, ran[-1][0]) == ("interrupted", "a")
    assert len(result.records) == len(ran) - 1


def test_each_method_follows_each_other_as_often() -> None:
    """Over many seeds the 20 pairs of neighbours of five methods are equally frequent.

    In three seeds that follow each other both orders of two methods come; over many seeds each is
    as frequent.
    """
    rows = [methods_of_seed(5, seed, "some") for seed in range(1000)]
    neighbours = Counter(pair for row in rows for pair in pairwise(row))
    assert len(neighbours) == 20
    assert chisquare(list(neighbours.values())).pvalue > 0.001
    orders = [methods_of_seed(2, seed, "some") for seed in range(3000)]
    assert all(
        len({*three}) == 2 for three in zip(orders[::3], orders[1::3], orders[2::3], strict=True)
    )
    assert 1400 < orders.count((0, 1)) < 1600
    assert methods_of_seed(0, 3, "some") == (), (
        "of a suite that names none, with methods given on the command line"
    )
