"""What the report enforces: which runs may be compared, what one seed may say, and what is flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import recorded
from recorded import record, sweep
from test_sections import said, section

from hpml_bench.records import Check, Consumed, RunRecord, Table
from hpml_bench.report.results import Results
from hpml_bench.store import PREDICTIONS

STEADY = (
    recorded._metric("timed_steps", "timed steps", "", "neither", spec=".0f"),
    recorded._metric("timed_seconds", "timed window", "s", "neither", spec=".2f"),
    recorded._metric("step_time_cv", "step time variation", "", "lower", spec=".1%"),
    recorded._metric("step_time_drift", "step time drift", "", "neither", spec=".1%"),
)


def load(folder: Path, records: list[RunRecord], rows: int = 0) -> Results:
    """Write records, with predictions where `rows` are given, and read them back."""
    recorded.write(folder, records)
    if rows:
        recorded.write_predictions(folder, records, rows)
    return Results.load(folder)


def change(results: Results, method: str, seed: int, edit: Any) -> Results:
    """Edit one run's predictions (a frame) and read the folder again."""
    run = next(r for r in results.records if (r.spec.method.name, r.spec.seed) == (method, seed))
    path = results.folder / run.run_id / PREDICTIONS
    edit(pd.read_parquet(path)).to_parquet(path, index=False)
    return Results.load(results.folder)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda f: pd.concat([f, f.head(3)]), "hold 3 test row(s) more than once"),
        (lambda f: f.drop(index=[5, 6]), "lack 2 of 1,000 test rows"),
        (lambda f: f.assign(label=(f.label + 1) % 4), "labels beside its predictions are not those of the other runs"),
        (lambda f: f.assign(prediction=f.label), "and its predictions give 1.0000"),
    ],
)
def test_impossible_predictions_make_a_run_invalid(tmp_path: Path, edit: Any, reason: str) -> None:
    """Duplicated or missing rows, other labels or another accuracy set that run apart, with the reason, alone."""
    results = change(load(tmp_path, sweep(["lora", "full"]), 1000), "lora", 2, edit)
    assert [r.spec.seed for r in results.runs("lora")] == [0, 1, 3, 4]
    assert len(results.runs("full")) == 5
    text = said("failures", results)
    assert "invalid: " in text
    assert reason in text


@pytest.mark.parametrize(
    "edit", [lambda f: f.head(0), lambda f: f.assign(index=[None, "x"] * (len(f) // 2)), lambda f: f[["label"]]]
)
def test_predictions_that_cannot_be_read_are_none(tmp_path: Path, edit: Any) -> None:
    """No rows, indices that can't be sorted, or a missing column count as no predictions, and nothing breaks."""
    results = change(load(tmp_path, sweep(["lora", "full"], 2), 1000), "lora", 1, edit)
    assert list(results.right("lora")) == [0]
    assert section("comparisons", results)


def test_a_failed_check_is_shown_and_not_ranked(tmp_path: Path) -> None:
    """A run that failed a self-check enters no mean, whatever its status says, and the check is named."""
    checks = (Check(name="samples", passed=False, detail="1,504 of 1,520 samples"),)
    liar, honest = record("adapter", 0, checks=checks), record("head", 0, checks=checks, status="invalid")
    results = load(tmp_path, [*sweep(["lora", "full"]), liar, honest])
    assert set(results.methods) == {"lora", "full"}
    assert "invalid: self-check failed: samples: 1,504 of 1,520 samples" in said("failures", results)
    assert "head | 0 | invalid | an arithmetic self-check failed | samples: 1,504" in said("failures", results)
    protocol = said("protocol", results)
    assert "adapter | 0 of 1 | seed 0 samples: 1,504 of 1,520 samples" in protocol
    assert "lora | 5 of 5 | none" in protocol


def test_unknown_consumption_is_set_apart(tmp_path: Path) -> None:
    """A run that didn't record what it consumed isn't taken to be equal to those that did."""
    results = load(tmp_path, [*sweep(["lora", "full"]), record("adapter", 0, consumed=None)])
    assert "adapter" not in results.methods
    assert "what it consumed is not recorded" in said("failures", results)


@pytest.mark.parametrize("flip", [False, True])
def test_one_budget_for_all_seeds(tmp_path: Path, flip: bool) -> None:
    """Of two budgets with as many runs the larger is compared in all seeds, however the records are ordered."""

    def runs(method: str, steps: int, seeds: tuple[int, ...]) -> list[RunRecord]:
        made = (Consumed(steps=steps, samples=16 * steps, real_tokens=1, padded_tokens=1, order=f"{s}") for s in seeds)
        return [record(method, s, consumed=of) for s, of in zip(seeds, made, strict=True)]

    order = {"started": f"2026-01-0{3 if flip else 1}T00:00:00+00:00"}
    short = [r.model_copy(update=order) for r in runs("head", 100, (0, 1))]
    results = load(tmp_path, [*runs("lora", 200, (0, 1)), *short])
    assert results.methods == ("lora",)
    assert "consumed other than the rest of seed 0: steps 100 instead of 200" in said("failures", results)


def test_a_seed_of_another_budget_is_set_apart(tmp_path: Path) -> None:
    """A seed whose every run had another budget enters no mean, and is told from the runs compared."""
    other = Consumed(steps=50, samples=800, real_tokens=1, padded_tokens=1, order="0")
    results = load(tmp_path, [*sweep(["lora", "full"], 2), record("lora", 9, consumed=other)])
    assert results.seeds == (0, 1)
    assert "consumed other than the runs compared: steps 50 instead of 100, samples 800" in said("failures", results)


def test_another_order_is_another_budget(tmp_path: Path) -> None:
    """The same numbers of samples and tokens in another order are set apart: seeds would not be paired."""
    other = Consumed(steps=100, samples=1600, real_tokens=38_000, padded_tokens=43_000, order="f" * 64)
    results = load(tmp_path, [*sweep(["lora", "full"]), record("adapter", 0, consumed=other)])
    assert "order ffff" in said("failures", results)
    assert "lora | 100 | 1,600 | 38,000–38,004 | 43,000 | 000000 | 4 of 5 seeds" in said("protocol", results)


@pytest.mark.parametrize("package", ["hpml-bench", "torch", "transformers", "peft"])
def test_mixed_versions_give_no_ranking_of_cost(tmp_path: Path, package: str) -> None:
    """Another version of what decides the cost leaves accuracy ranked, and no cost, front or seconds."""
    environment = recorded.ENVIRONMENT | {"packages": recorded.ENVIRONMENT["packages"] | {package: "0.0.1"}}  # type: ignore[operator]
    results = load(tmp_path, [*sweep(["lora", "full"]), *sweep(["head"], environment=environment)])
    assert results.comparisons("test_accuracy")
    for cost in ("train_seconds", "samples_per_second", "peak_memory_mb", "latency_ms_p50"):
        assert results.comparisons(cost) == ()
        assert results.ranks(cost) == {}
    assert results.comparisons("trainable_parameters")
    assert "no method is called efficient" in said("cost_accuracy", results)
    tables = {
        block.name
        for name in ("cost_accuracy", "time_to_accuracy")
        if (made := section(name, results))
        for block in made.blocks
        if isinstance(block, Table)
    }
    assert tables == {"samples_to_accuracy"}


def test_a_nan_is_said(tmp_path: Path) -> None:
    """A metric that is no number in one run is left out of the mean, and the summary says whose and which seed's."""
    records = sweep(["lora", "full"])
    odd = records[2].model_copy(update={"metrics": records[2].metrics | {"test_accuracy": float("nan")}})
    results = load(tmp_path, [*records[:2], odd, *records[3:]])
    assert results.interval("lora", "test_accuracy").n == 4  # type: ignore[union-attr]
    assert "lora has no accuracy of seed 1." in said("summary", results)


def test_one_value_is_no_exact_metric(tmp_path: Path) -> None:
    """Times of methods that have a single run each are not taken for numbers without noise."""
    results = load(tmp_path, [record("lora", 0), record("full", 0), record("head", 1)])
    assert all(not c.exact and not c.differs for c in results.comparisons("train_seconds"))


def test_one_seed_is_test_set_noise_only(tmp_path: Path) -> None:
    """With one seed there are Wilson's intervals and McNemar's p, labelled, and no rank anywhere."""
    results = load(tmp_path, sweep(seeds=1), 1000)
    text = said("single_seed", results)
    assert text.count("Test-set noise only") == 2
    assert "can't tell" in text
    assert "these two models differ" in text
    assert "better" not in text
    assert section("comparisons", results) is None


def test_crossed_intervals_are_offered_for_methods_and_pairs(tmp_path: Path) -> None:
    """With predictions, accuracy and its differences get an interval over seeds and rows, never the narrower one."""
    made = section("comparisons", load(tmp_path, sweep(["lora", "full"]), 1000))
    crossed = next(b for b in made.blocks if isinstance(b, Table) and b.name == "crossed") if made else None
    assert crossed
    assert [row[0] for row in crossed.rows] == ["full", "lora", "full − lora"]

    def width(text: str) -> float:
        low, high = text.strip("[]").replace("−", "-").split(", ")
        return float(high) - float(low)

    assert all(width(row[4]) >= width(row[3]) for row in crossed.rows)


def test_pareto_probabilities_are_printed(tmp_path: Path) -> None:
    """Each method stands with its place on the front over three metrics and how sure that is."""
    text = said("cost_accuracy", load(tmp_path, sweep()))
    assert "head | yes | 100 |" in text
    assert "full | yes | " in text
    assert "head | yes | too few seeds |" in said("cost_accuracy", load(tmp_path / "few", sweep(seeds=3)))


def test_never_reached_is_said(tmp_path: Path) -> None:
    """Targets lie between chance and the best; a method that reaches none in any seed says never, of how many."""
    text = said("time_to_accuracy", load(tmp_path, sweep()))
    assert "head | " in text
    assert "never (5 of 5)" in text
    full = next(line for line in text.splitlines() if line.startswith("full"))
    assert "never" not in full


def test_unsteady_windows_are_flagged(tmp_path: Path) -> None:
    """A window under 20 steps or 2 s, drifting over 5 % or with a pause is marked, with run and reason beneath."""
    steady = {"timed_steps": 95.0, "timed_seconds": 3.0, "step_time_cv": 0.02, "step_time_drift": 0.01}
    records = [
        r.model_copy(update={"definitions": (*r.definitions, *STEADY), "metrics": r.metrics | steady})
        for r in sweep(["lora", "full"], 3)
    ]
    assert "†" not in said("throughput", load(tmp_path / "steady", records))
    bad = {"timed_steps": 12.0, "timed_seconds": 0.4, "step_time_drift": -0.08}
    records[0] = records[0].model_copy(update={"metrics": records[0].metrics | bad})
    results = load(tmp_path / "drifting", records)
    text = said("throughput", results)
    assert "lora (seed 0: 12 steps, 0.40 s, drift −8.0 %)" in text
    assert "full (" not in text
    assert sum("†" in line and line.startswith("lora |") for line in text.splitlines()) == 2
    assert "Throughput is not in a steady state for lora" in said("summary", results)
    assert "Not shown to be a steady state for lora." in said("takeaways", results)
    pause = {"timed_steps": 100.0, "step_time_cv": 2.1}
    records[0] = records[0].model_copy(update={"metrics": records[1].metrics | pause})
    text = said("throughput", load(tmp_path / "paused", records))
    assert "(CV / √n > 0.2): lora (seed 0: one step took about 21 % of the time)." in text
    records[0] = records[0].model_copy(update={"metrics": records[0].metrics | {"step_time_cv": 1.9}})
    assert "†" not in said("throughput", load(tmp_path / "short pause", records))


def test_many_unsteady_windows_are_counted(tmp_path: Path) -> None:
    """Five runs of a method are named, however many are flagged."""
    short = {"timed_steps": 12.0, "timed_seconds": 3.0}
    records = [
        r.model_copy(update={"definitions": (*r.definitions, *STEADY), "metrics": r.metrics | short})
        for r in sweep(["lora", "full"], 8)
    ]
    text = said("throughput", load(tmp_path, records))
    assert "; seed 4: 12 steps; and 3 more)" in text
    assert "seed 5: 12 steps" not in text
