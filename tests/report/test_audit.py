"""Each finding of an audit of three reports, thirty edited folders and simulated nulls, as a folder or a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_sections import load, said

from helpers import made_records
from helpers.made_records import METHODS, SETTINGS, record, sweep
from hpml_bench.records.files import PREDICTIONS, RECORD
from hpml_bench.records.load import digests_of, load_record
from hpml_bench.records.run import Metric, RunRecord
from hpml_bench.report.render import facts
from hpml_bench.report.results import Results
from hpml_bench.statistics import OverSeeds, p_different
from hpml_bench.suite.schedule import step_seconds
from hpml_bench.sweep.plan import methods_of_seed


def edit(run: Path, **changes: Any) -> None:
    """Rewrite a run's record with other fields, and the digests of its files as they are now."""
    own = {"files": digests_of(run), **changes}
    made_records.rewrite(run, load_record(run / RECORD).model_copy(update=own))


def with_values(values: dict[str, dict[str, list[float]]]) -> list[RunRecord]:
    """Return a sweep with these values of metrics, by method, metric and seed."""
    made = []
    for method, metrics in values.items():
        for seed in range(len(next(iter(metrics.values())))):
            run = record(method, seed)
            own = {name: of[seed] for name, of in metrics.items()}
            made.append(run.model_copy(update={"metrics": run.metrics | own}))
    return made


def test_1_runs_set_apart_stay_out_of_scaling(tmp_path: Path) -> None:
    """A run on two ranks that failed a check gives no speed-up, though its samples/s are recorded."""
    one = SETTINGS.model_copy(update={"world_size": 1})
    records = [*sweep(["head"], 3), *sweep(["head"], 1, settings=one)]
    results = load(tmp_path, records)
    assert "head | 1 |" in said("scaling", results)
    run = tmp_path / records[-1].run_id
    edit(run, checks=(load_record(run / RECORD).checks[0].model_copy(update={"passed": False}),))
    assert said("scaling", Results.load(tmp_path)) == ""


def test_2_a_missing_run_does_not_turn_the_headline(tmp_path: Path) -> None:
    """Where the better method lacks its easiest seed, the page still says that it is better, and crowns no other."""
    easy = [0.0, 0.01, 0.02, 0.03, 0.09]
    records = with_values(
        {"lora": {"test_accuracy": [0.80 + e for e in easy]}, "full": {"test_accuracy": [0.86 + e for e in easy]}}
    )
    results = load(tmp_path, [r for r in records if (r.spec.method.name, r.spec.seed) != ("full", 4)])
    text = said("takeaways", results)
    assert "No method is shown to be better by accuracy than full" in text
    assert "better than lora by 6.0 points" in text
    assert "full is better" in said("comparisons", results)
    assert "lora has the highest" not in text


def test_3_claims_on_these_rows_are_no_claims_on_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models that err on 100 rows each, others in every seed alike: their means are apart on these rows only."""

    def answers(item: RunRecord, _: float, rows: int) -> tuple[np.ndarray, np.ndarray]:
        labels, place, seed = np.arange(rows) % 4, np.arange(rows), item.spec.seed
        lora = item.spec.method.name == "lora"
        wrong = place < 100 + seed % 2 if lora else (place >= 500) & (place < 613 + seed % 2)
        return labels, np.where(wrong, (labels + 1) % 4, labels)

    monkeypatch.setattr(made_records, "answers", answers)
    results = load(tmp_path, sweep(["lora", "full"]))
    (pair,) = results.on_these_rows()
    assert pair.p is not None
    assert pair.p < 0.001
    assert [c.verdict for c in results.comparisons("test_accuracy")] == ["undecided"]
    assert "by 1.3 points" not in said("takeaways", results)


def test_4_two_records_of_one_run_count_in_nothing(tmp_path: Path) -> None:
    """A rerun under another suite's name with other numbers overwrites nothing: neither counts, both are named."""
    twin = record("lora", 2, suite="renamed", started="2027-01-01T00:00:00+00:00")
    results = load(tmp_path, [*sweep(["lora", "full"]), twin])
    assert [run.spec.seed for run in results.runs("lora")] == [0, 1, 3, 4]
    assert facts(results)["Runs"] == "9 compared, 2 set apart"
    assert twin.run_id in said("failures", results)


def test_5_memory_is_compared_net_of_the_process(tmp_path: Path) -> None:
    """Of a peak of 501 MB over 439 held, and one of 490 over 428, the second needs no less for training."""
    net = Metric.model_validate(
        made_records.DEFINITIONS[0].model_dump() | {
            "name": "peak_memory_over_setup_mb", "title": "peak memory over set-up", "unit": "MB", "phase": "train",
            "format": ",.0f", "grid": 2.097152,
        }
    )  # fmt: skip
    values = {
        "adapter": {"peak_memory_mb": [500.6] * 5, "peak_memory_over_setup_mb": [61.2, 61.3, 61.2, 61.4, 61.2]},
        "head": {"peak_memory_mb": [489.7] * 5, "peak_memory_over_setup_mb": [62.1, 62.0, 62.1, 62.2, 62.1]},
    }
    made = [r.model_copy(update={"definitions": (*r.definitions, net)}) for r in with_values(values)]
    results = load(tmp_path, made)
    assert results.headline[-1] == "peak_memory_over_setup_mb"
    assert "adapter added the least memory over set-up on average: 61" in said("takeaways", results)


def test_6_a_score_without_its_predictions_is_not_believed(tmp_path: Path) -> None:
    """Predictions deleted and accuracy edited to 95 %: the run enters nothing, and is named."""
    records = sweep(["lora", "full"])
    load(tmp_path, records)
    run = tmp_path / records[0].run_id
    (run / PREDICTIONS).unlink()
    for digests in (load_record(run / RECORD).files, digests_of(run)):
        edited = load_record(run / RECORD).metrics | {"test_accuracy": 0.95}
        edit(run, metrics=edited, files=digests)
        results = Results.load(tmp_path)
        assert 0.95 not in results.values("test_accuracy")["lora"].values()
        assert run.name in said("failures", results) or "predictions" in said("failures", results)


@pytest.mark.parametrize("item", [{"driver": "570"}, {"kernel": "6.9"}, {"python": "3.13"}, {"numpy": "9"}])
def test_7_costs_of_another_environment_are_not_ranked(tmp_path: Path, item: dict[str, str]) -> None:
    """Another driver, kernel, Python or numpy in one method: it has no cost on the page, and the page says what."""
    packages: dict[str, str] = made_records.ENVIRONMENT["packages"] | {k: v for k, v in item.items() if k == "numpy"}  # type: ignore[operator, assignment]
    other = made_records.ENVIRONMENT | {k: v for k, v in item.items() if k != "numpy"} | {"packages": packages}
    results = load(tmp_path, [*sweep(["lora", "full"]), *sweep(["head"], environment=other)])
    assert "head" not in results.values("train_seconds")
    assert "head" in results.values("test_accuracy")
    assert next(iter(item.values())) in said("environment", results)


def test_8_no_method_keeps_its_place() -> None:
    """Over five seeds each of five methods comes in more than one place."""
    rows = [methods_of_seed(len(METHODS), seed, "quickstart") for seed in range(5)]
    assert all(len({row.index(method) for row in rows}) > 1 for method in range(5))


def test_9_equal_differences_are_no_less_sure() -> None:
    """+10 rows of 1,000 in five seeds are at least as sure as +10 in four and +9 in one."""
    equal, nearly = (OverSeeds.of(np.array(rows) / 1000, grid=1 / 1000) for rows in ([10] * 5, [10] * 4 + [9]))
    assert equal
    assert nearly
    assert p_different(equal) <= p_different(nearly)
    assert p_different(equal) < 0.001


def test_10_time_has_one_definition() -> None:
    """Two ranks slow in turns: their window takes what the slower needs in all, not the sum of the slower steps."""
    ranks = np.array([[1.0, 3.0, 1.0, 3.0], [3.0, 1.0, 3.0, 1.0]])
    assert step_seconds(ranks).sum() == 8.0
    assert ranks.max(axis=0).sum() == 12.0


def test_11_methods_that_never_met_are_said_to_be_so(tmp_path: Path) -> None:
    """Methods without a shared seed are called not tested, and no family of 0 pairs is told."""
    results = load(tmp_path, [*(record("lora", s) for s in range(3)), *(record("full", s) for s in range(3, 6))])
    text = said("takeaways", results)
    assert "a verdict needs two methods that share 3 or more" in text
    assert "0 pairs" not in text
    assert "told apart" not in text


def test_11_nothing_is_detectable_beyond_the_scale(tmp_path: Path) -> None:
    """With two seeds no detectable difference is told, and with three none above 100 points."""
    jumps = {"lora": {"test_accuracy": [0.5, 0.9]}, "full": {"test_accuracy": [0.9, 0.4]}}
    (pair,) = load(tmp_path / "two", with_values(jumps)).comparisons("test_accuracy")
    assert (pair.verdict, pair.detectable) == ("untested", None)
    jumps = {"lora": {"test_accuracy": [0.5, 0.9, 0.2]}, "full": {"test_accuracy": [0.9, 0.4, 0.9]}}
    results = load(tmp_path / "three", with_values(jumps))
    assert "could have found no difference on this scale" in said("takeaways", results)


def test_11_no_interval_is_a_point_by_luck(tmp_path: Path) -> None:
    """8 points in every seed is not [8, 8]: the grid of one row is in the interval."""
    same = {"lora": {"test_accuracy": [0.9] * 5}, "full": {"test_accuracy": [0.82] * 5}}
    (pair,) = load(tmp_path, with_values(same)).comparisons("test_accuracy")
    assert pair.difference.low is not None
    assert pair.difference.high is not None
    assert pair.difference.high - pair.difference.low > 0.001


def test_11_a_front_is_told_only_where_it_is_known(tmp_path: Path) -> None:
    """A method that costs the same but for noise is not off the front for a few samples a second."""
    noise = {"lora": [2.0, 2.1, 1.9, 2.05, 1.95], "full": [2.02, 1.95, 2.1, 1.9, 2.04]}
    results = load(tmp_path, with_values({m: {"train_seconds": of} for m, of in noise.items()}))
    places = {of.place for of in results.front(("test_accuracy", "train_seconds")).values()}
    assert places == {"undecided"}
