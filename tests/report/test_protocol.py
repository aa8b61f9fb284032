"""What the report enforces: which runs may be compared, what one seed may say, and what is flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_sections import load, said, section, with_metrics

from helpers import made_records
from helpers.made_records import record, sweep
from hpml_bench.plugins.dataset import FEWER
from hpml_bench.records.files import POINTS, PREDICTIONS
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import digests_of, wrong_id
from hpml_bench.records.run import Check, Consumed, RunRecord
from hpml_bench.report.answer import words
from hpml_bench.report.answer.facts import facts as screen_facts
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.render import facts
from hpml_bench.report.results import TIME, Results

STEADY = (
    made_records._metric("timed_steps", "timed steps", "", "neither", spec=".0f"),
    made_records._metric("timed_seconds", "timed window", "s", "neither", spec=".2f"),
    made_records._metric("step_time_cv", "step time variation", "", "lower", spec=".1%"),
    *(
        made_records._metric(f"step_time_drift{end}", f"step time drift{end}", "", "neither", spec=".1%")
        for end in ("", "_low", "_high")
    ),
)
CALM = {
    "timed_steps": 100.0, "timed_seconds": 3.0, "step_time_cv": 0.02, "step_time_drift": 0.01,
    "step_time_drift_low": -0.01, "step_time_drift_high": 0.03,
}  # fmt: skip


def change(results: Results, method: str, seed: int, edit: Any) -> Results:
    """Edit one run's predictions (a frame), give its record their digest, and read the folder again."""
    run = next(r for r in results.compared if (r.spec.method.name, r.spec.seed) == (method, seed))
    folder = results.folder / run.run_id
    edit(pd.read_parquet(folder / PREDICTIONS)).to_parquet(folder / PREDICTIONS, index=False)
    RunFolder(folder).commit(run.model_copy(update={"files": digests_of(folder)}))
    return Results.load(results.folder)


def test_a_changed_or_missing_file_is_a_problem(tmp_path: Path) -> None:
    """Predictions that are not the recorded file, or points that are gone, leave the run out, to be run again."""
    results = load(tmp_path, sweep(["lora", "full"], 3))
    first, second = (results.folder / r.run_id for r in results.runs("lora")[:2])
    frame = pd.read_parquet(first / PREDICTIONS)
    frame.assign(loss=frame.loss + 1).to_parquet(first / PREDICTIONS, index=False)
    (second / POINTS).unlink()
    results = Results.load(tmp_path)
    assert [r.spec.seed for r in results.runs("lora")] == [2]
    assert set(results.left_out.problems) == {
        f"{first.name}/{PREDICTIONS} is not the file that was recorded; it is left out, and run-all will run it again",
        f"{second.name}/{POINTS} is missing; it is left out, and run-all will run it again",
    }
    assert {RunFolder(first).damage(), RunFolder(second).damage()} == {
        f"{PREDICTIONS} is not the file that was recorded", f"{POINTS} is missing"
    }  # fmt: skip


@pytest.mark.parametrize(
    "edit",
    [
        lambda f: f.head(0),
        lambda f: f.assign(index=[None, "x"] * (len(f) // 2)),
        lambda f: f[["reference"]],
        lambda f: f.assign(reference=-1),
        lambda f: f.assign(reference=2**40),
        lambda f: f.assign(prediction="World"),
    ],
)
def test_predictions_that_cannot_be_read_are_none(tmp_path: Path, edit: Any) -> None:
    """No rows, odd indices or labels, or a missing column count as no predictions; such a run is not compared."""
    results = change(load(tmp_path, sweep(["lora", "full"], 2)), "lora", 1, edit)
    assert list(results.aligned.units["lora"]) == [0]
    why = f"its {PREDICTIONS} is missing, or can't be read or scored here, so that its scores can't be checked"
    assert f"not believed: {why}" in said("failures", results)
    assert section("comparisons", results)


def test_predictions_that_the_record_does_not_name_prove_nothing(tmp_path: Path) -> None:
    """A run whose record names no predictions is not compared, whether there is such a file beside it or not."""
    results = load(tmp_path, sweep(["lora", "full"], 2))
    for run in results.runs("lora"):
        kept = {name: value for name, value in run.files.items() if name != PREDICTIONS}
        made_records.rewrite(tmp_path / run.run_id, run.model_copy(update={"files": kept}))
    (tmp_path / results.runs("lora")[0].run_id / PREDICTIONS).unlink()
    results = Results.load(tmp_path)
    assert results.methods == ("full",)
    assert said("failures", results).count(f"not believed: its record names no {PREDICTIONS}") == 2


@pytest.mark.parametrize("score", ["test_accuracy", "test_macro_f1", "test_loss"])
@pytest.mark.parametrize("value", [None, float("nan"), 0.5])
def test_a_score_must_be_that_of_the_predictions(tmp_path: Path, score: str, value: float | None) -> None:
    """A recorded score that is missing, no number, or another than the predictions give sets the run apart."""
    results = load(tmp_path, sweep(["lora", "full"], 2))
    run = results.runs("lora")[1]
    RunFolder(tmp_path / run.run_id).commit(run.model_copy(update={"metrics": run.metrics | {score: value}}))
    results = Results.load(tmp_path)
    assert [r.spec.seed for r in results.runs("lora")] == [0]
    told = "recorded as 0.5000" if value == 0.5 else "not recorded"
    name = score.removeprefix("test_").replace("_", "-")
    assert f"not believed: its {name} is {told}, and its predictions give " in said("failures", results)


def test_the_page_says_that_there_were_fewer_rows_than_asked_for(tmp_path: Path) -> None:
    """The budget at its head is of the rows there were, and the protocol names what was asked for."""
    settings = made_records.SETTINGS.model_copy(update={"train_samples": 4000})
    short = "train_samples asks for 4,000 rows, there are 3,000, and all of them are taken"
    for notes, rows in (({FEWER: short}, "all"), ({}, "4,000")):
        results = load(tmp_path / rows, sweep(["lora", "full"], 1, settings=settings, notes=notes))
        assert facts(results)["Budget"].endswith(f"from {rows} training rows")
        assert (short in said("protocol", results)) == bool(notes)


def test_a_failed_check_is_shown_and_not_ranked(tmp_path: Path) -> None:
    """A run that failed a self-check enters no number, whatever its status says, and the check is named."""
    checks = (Check(name="samples", passed=False, detail="1,504 of 1,520 samples"),)
    liar, honest = record("adapter", 0, checks=checks), record("head", 0, checks=checks, status="invalid")
    results = load(tmp_path, [*sweep(["lora", "full"]), liar, honest])
    assert set(results.methods) == {"lora", "full"}
    assert set(results.absent) == {"adapter", "head"}
    assert "invalid: self-check failed: samples: 1,504 of 1,520 samples" in said("failures", results)
    assert "head | 0 | invalid | a self-check failed | samples: 1,504" in said("failures", results)


def budget(steps: int, seed: int = 0) -> Consumed:
    """Return what a run of so many steps consumed."""
    return Consumed(steps=steps, samples=16 * steps, real_tokens=1, padded_tokens=1, order=f"{steps} {seed}")


@pytest.mark.parametrize("day", [1, 3])
def test_one_budget_for_all_seeds(tmp_path: Path, day: int) -> None:
    """Of two budgets with as many runs the larger is compared in all seeds, however the records are ordered."""
    long = [record("lora", seed, consumed=budget(200, seed)) for seed in (0, 1)]
    started = f"2026-01-0{day}T00:00:00+00:00"
    short = [record("head", seed, consumed=budget(100, seed), started=started) for seed in (0, 1)]
    results = load(tmp_path, [*long, *short])
    assert results.methods == ("lora",)
    assert "consumed other data than the rest of seed 0: steps 100 instead of 200" in said("failures", results)


def test_a_seed_of_another_budget_is_set_apart(tmp_path: Path) -> None:
    """A seed whose every run had another budget enters no mean, and is told from the runs compared."""
    apart = [record("lora", 9, consumed=budget(50)), record("full", 8, consumed=budget(200))]
    results = load(tmp_path, [*sweep(["lora", "full"], 2), *apart])
    assert results.seeds == (0, 1)
    text = said("failures", results)
    assert "consumed other data than the runs compared: steps 50 instead of 100, samples 800" in text


def test_one_value_is_no_exact_metric(tmp_path: Path) -> None:
    """Times of methods that have a single run each are not taken for numbers without noise."""
    results = load(tmp_path, [record("lora", 0), record("full", 0), record("head", 1)])
    assert all(not c.exact and not c.differs for c in results.comparisons("train_seconds"))


def test_one_seed_is_judged_over_its_rows_alone(tmp_path: Path) -> None:
    """The first screen says that verdicts are for these trained models; costs of one seed rank nothing."""
    answer = answer_of(load(tmp_path, sweep(seeds=1)))
    assert (answer.over, answer.judged) == ("row", "other test rows, these trained models")
    assert {pair.verdict for pair in answer.pairs["score"]} <= {"different", "equivalent", "undecided"}
    assert set(answer.pairs) == {"score"}
    assert answer.unranked == "ranks take three seeds that all methods share"
    assert next(fact.text for fact in screen_facts(answer) if fact.label == "Sure?").startswith(
        "Only for these trained models: another seed may order the methods otherwise."
    )
    assert "1 seed" in words.setup_line(answer)


DRIFT, PAUSE = "seed 0: drift [{}]", "seed 0: one step took about {} % of the time"


@pytest.mark.parametrize(("drift", "variation", "notes"), [
    ((-0.01, 0.03), 0.02, {}),
    ((-0.05, 0.05), 0.02, {}),
    ((-0.1, 0.15), 0.02, {}),
    ((-0.01, 0.03), 1.9, {}),
    ((-0.01, 0.03), 2.1, {"¶": PAUSE.format(21)}),
    ((0.051, 0.09), 0.02, {"†": DRIFT.format("+5.1 %, +9.0 %")}),
    ((-0.2, -0.06), 0.02, {"†": DRIFT.format("−20.0 %, −6.0 %")}),
    ((0.1, 0.2), 3.0, {"†": DRIFT.format("+10.0 %, +20.0 %"), "¶": PAUSE.format(30)}),
    ((-0.4, 0.6), 0.02, {"§": "drift [−15.1 %, +17.8 %] over its runs"}),
    ((None, None), 0.02, {"§": "too few steps in 1 of 3 runs"}),
])  # fmt: skip
def test_windows_that_are_not_steady_are_marked(
    tmp_path: Path, drift: tuple[float | None, float | None], variation: float, notes: dict[str, str]
) -> None:
    """One that drifts by over 5 % or holds a pause, and a method's that are too short to tell; with the reason."""
    made = [
        with_metrics(r, **CALM).model_copy(update={"definitions": (*r.definitions, *STEADY)})
        for r in sweep(["lora", "full"], 3)
    ]
    ends = dict(zip(("step_time_drift_low", "step_time_drift_high"), drift, strict=True))
    made[0] = with_metrics(made[0], step_time_cv=variation, **ends)
    results = load(tmp_path, made)
    lines = said("throughput", results).splitlines()
    assert {mark for mark in "†§¶" if mark in "".join(lines)} == notes.keys()
    for mark, clause in notes.items():
        (note,) = [line for line in lines if line.startswith(mark) and line.endswith(").")]
        assert note.endswith(f": lora ({clause}).")
        assert [line.split(" | ")[0] for line in lines if mark in line and "|" in line] == ["lora", "lora"]
    assert ("Step times drift for lora (see Throughput)." in said("summary", results)) == ("†" in notes)


# Records that define metrics otherwise


def apart(results: Results) -> dict[str, str]:
    """Return run_id -> why it is set apart."""
    return {r.run_id: group.reason for group in results.left_out.excluded for r in group.records}


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
    """The newest run calls longer training better, has another unit, range, grid or score: it is left out alone."""
    *others, newest = sweep(["head", "full"])
    results = load(tmp_path, [*others, turned(newest, **changes)])
    assert results.definitions[TIME].better == "lower"
    assert results.definitions[TIME].unit == "s"
    assert list(apart(results)) == [newest.run_id]
    assert "it defines metrics otherwise than most runs: train_seconds has " in apart(results)[newest.run_id]
    by_f1 = load(tmp_path / "f1", [*others, newest.model_copy(update={"headline": "test_macro_f1"})])
    assert (by_f1.quality, list(apart(by_f1))) == ("test_accuracy", [newest.run_id])


def test_another_order_of_rows_is_none(tmp_path: Path) -> None:
    """Rows may be stored in any order, and scores may differ by what float32 rounds away."""
    results = change(load(tmp_path, sweep(["lora", "full"], 3)), "lora", 1, lambda f: f.iloc[::-1])
    assert len(results.compared) == 6
    before = load(tmp_path / "before", sweep(["lora", "full"], 3))
    assert (results.aligned.units["lora"][1] == before.aligned.units["lora"][1]).all()
    barely = change(results, "lora", 2, lambda f: f.assign(loss=f.loss.astype(float) * (1 + 1e-8)))
    assert len(barely.compared) == 6


def test_a_record_goes_by_its_folders_name(tmp_path: Path) -> None:
    """A moved run folder is a run like others, and its files are looked for where it lies."""
    results = load(tmp_path, sweep(["lora", "full"], 2))
    moved = results.runs("lora")[0].run_id
    (tmp_path / moved).rename(tmp_path / "elsewhere")
    results = Results.load(tmp_path)
    assert results.runs("lora")[0].run_id == "elsewhere"
    assert len(results.aligned.units["lora"]) == 2
    assert results.curve("train_loss", "lora", 0)
