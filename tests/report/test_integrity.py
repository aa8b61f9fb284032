"""Records that aren't what they say: times against points, copies, ids, definitions; each is left out with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_sections import load, said

from helpers import made_records
from helpers.made_records import record, sweep
from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD
from hpml_bench.records.load import digests_of, load_record, wrong_id
from hpml_bench.records.run import RunRecord
from hpml_bench.report.render import facts
from hpml_bench.report.results import TIME, Results
from hpml_bench.suite.settings import MethodSpec


def edit(run: Path, **changes: Any) -> None:
    """Rewrite a run's record with other fields, and the digests of its files as they are now."""
    own = {"files": digests_of(run), **changes}
    made_records.rewrite(run, load_record(run / RECORD).model_copy(update=own))


def apart(results: Results) -> dict[str, str]:
    """Return run_id -> why it is set apart."""
    return {r.run_id: group.reason for group in results.left_out.excluded for r in group.records}


def only(folder: Path, method: str, seed: int) -> Path:
    """Return a run's folder."""
    return next(folder.glob(f"{method}-s{seed}-*"))


@pytest.mark.parametrize(("metric", "factor"), [("train_seconds", 0.1), ("samples_per_second", 10.0)])
def test_times_are_those_of_the_points(tmp_path: Path, metric: str, factor: float) -> None:
    """A tenth of a method's time in run.json makes it no faster: its runs are left out, and both times are named."""
    load(tmp_path, sweep(["lora", "full"]))
    for seed in range(5):
        run = only(tmp_path, "full", seed)
        edit(run, metrics=(m := load_record(run / RECORD).metrics) | {metric: factor * (m[metric] or 0.0)})
    results = Results.load(tmp_path)
    assert results.methods == ("lora",)
    assert all(f"not believed: its {metric} is recorded as " in why for why in apart(results).values())
    assert "and its points give" in said("failures", results)


def test_a_run_without_points_is_left_out(tmp_path: Path) -> None:
    """points.jsonl deleted, and its digest with it: nothing tells the run's times any more."""
    records = sweep(["lora", "full"])
    load(tmp_path, records)
    run = only(tmp_path, "full", 2)
    (run / POINTS).unlink()
    edit(run)
    results = Results.load(tmp_path)
    assert apart(results) == {
        run.name: "not believed: its record names no points.jsonl, so that its times can't be checked"
    }


def test_seeds_that_are_copies_are_no_seeds(tmp_path: Path) -> None:
    """Five seeds copied as 5 to 9, ids made anew: files of two seeds are the same, and none of them counts."""
    records = sweep(["lora", "full"])
    load(tmp_path, records)
    for item in records:
        spec = item.spec.model_copy(update={"seed": item.spec.seed + 5})
        shutil.copytree(tmp_path / item.run_id, tmp_path / spec.run_id)
        edit(tmp_path / spec.run_id, spec=spec, run_id=spec.run_id)
    results = Results.load(tmp_path)
    assert not results.compared
    assert len(apart(results)) == 20
    assert all("its points.jsonl is that of" in why for why in apart(results).values())


def test_a_method_under_another_name_is_no_second_method(tmp_path: Path) -> None:
    """A copy of lora called mine: neither says which is the copy, so that neither is compared."""
    records = sweep(["lora", "full"])
    load(tmp_path, records)
    for item in (r for r in records if r.spec.method.name == "lora"):
        spec = item.spec.model_copy(update={"method": item.spec.method.model_copy(update={"name": "mine"})})
        shutil.copytree(tmp_path / item.run_id, tmp_path / spec.run_id)
        edit(tmp_path / spec.run_id, spec=spec, run_id=spec.run_id)
    results = Results.load(tmp_path)
    assert results.methods == ("full",)
    assert facts(results)["Runs"].startswith("5 compared, 10 set apart")


def test_an_order_of_samples_is_of_one_seed(tmp_path: Path) -> None:
    """A seed whose samples came in the order of another seed's is a copy, whatever its points: neither is compared."""
    runs = sweep(["lora", "full"], 4)
    same = runs[0].consumed
    copied = [
        run.model_copy(update={"consumed": same}) if (run.spec.method.name, run.spec.seed) == ("lora", 3) else run
        for run in runs
    ]
    results = load(tmp_path, copied)
    found = apart(results)
    assert sorted(found) == sorted(r.run_id for r in copied if r.spec.method.name == "lora" and r.spec.seed in {0, 3})
    assert all("its order of samples is that of lora-s" in why for why in found.values())


def test_runs_that_answer_alike_are_no_copies(tmp_path: Path) -> None:
    """One method under two names gives the same predictions in the same seed, at times of its own."""
    twin = MethodSpec(name="twin", method="lora", options=made_records.OPTIONS["lora"], lr=3e-3)
    one, other = (written(tmp_path, item) for item in (record("lora", 0), record("lora", 0, method_spec=twin)))
    shutil.copy(one / PREDICTIONS, other / PREDICTIONS)
    edit(other, metrics=load_record(one / RECORD).metrics)
    assert len(Results.load(tmp_path).compared) == 2


def written(folder: Path, item: RunRecord) -> Path:
    """Write a run, and return its folder."""
    return made_records.write(folder, [item]) / item.run_id


Change = Callable[[dict[str, Any]], None]


def other_epochs(content: dict[str, Any]) -> None:
    """Say another budget in the settings; the ids stay."""
    content["spec"]["settings"]["steps"] = 300


def other_rank(content: dict[str, Any]) -> None:
    """Say another option of the method; the ids stay."""
    content["spec"]["method"]["options"]["r"] = 64


def other_digest(content: dict[str, Any]) -> None:
    """Say other data; the ids stay."""
    content["digests"]["data"] = "d" * 64


@pytest.mark.parametrize(("change", "words"), [
    (other_epochs, "is not that of its settings, method and seed"),
    (other_rank, "is not that of its settings, method and seed"),
    (other_digest, "is not that of its settings and digests"),
])  # fmt: skip
def test_ids_are_recomputed(tmp_path: Path, change: Change, words: str) -> None:
    """Settings edited in all records with the ids kept: no run is compared under settings that it didn't have."""
    load(tmp_path, sweep(["lora"], 3))
    for path in tmp_path.glob(f"*/{RECORD}"):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    results = Results.load(tmp_path)
    assert not results.compared
    assert all(words in why for why in apart(results).values())


def test_ids_of_unknown_plugins_are_not_judged() -> None:
    """Without a plug-in its defaults are unknown, which ids leave out."""
    run = record()
    assert wrong_id(run, run.run_id) is None
    assert wrong_id(run, "another-id") is not None
    unknown = run.spec.method.model_copy(update={"method": "of_a_package"})
    gone = run.model_copy(update={"spec": run.spec.model_copy(update={"method": unknown})})
    assert wrong_id(gone, "another-id") is None


def turned(item: RunRecord, **changes: Any) -> RunRecord:
    """Return a run that defines the training time otherwise."""
    own = [m.model_copy(update=changes) if m.name == TIME else m for m in item.definitions]
    return item.model_copy(update={"definitions": tuple(own)})


@pytest.mark.parametrize(
    "changes", [{"better": "higher"}, {"unit": "ms"}, {"bounds": (0.0, 100.0)}, {"grid": 7.0}, {"noisy": False}]
)
def test_one_record_does_not_turn_the_page(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The newest run calls longer training better, or has another unit, range or grid: it is left out alone."""
    *others, newest = sweep(["head", "full"])
    results = load(tmp_path, [*others, turned(newest, **changes)])
    assert results.definitions[TIME].better == "lower"
    assert results.definitions[TIME].unit == "s"
    assert list(apart(results)) == [newest.run_id]
    assert "it defines metrics otherwise than most runs: train_seconds has " in apart(results)[newest.run_id]


def test_another_score_does_not_lead_the_page(tmp_path: Path) -> None:
    """The newest run says that methods are ranked by macro-F1: it is left out."""
    *others, newest = sweep(["head", "full"])
    results = load(tmp_path, [*others, newest.model_copy(update={"headline": "test_macro_f1"})])
    assert results.quality == "test_accuracy"
    assert list(apart(results)) == [newest.run_id]


def test_words_of_a_definition_may_differ(tmp_path: Path) -> None:
    """A version that says the same in other words makes no other metric."""
    first, *others = sweep(["head", "full"])
    assert len(load(tmp_path, [turned(first, definition="Otherwise said."), *others]).compared) == 10
