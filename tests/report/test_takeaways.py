"""Takeaways and summary: who leads in what, over which runs, beside what guessing gets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from report_sections import elsewhere, load, of, said, with_metrics, without

from helpers import made_records
from helpers.made_records import SETTINGS, failed, metrics, record, sweep
from hpml_bench.builtin.sections.summary import summary_table
from hpml_bench.records.run import Consumed, Point
from hpml_bench.report.results import Results
from hpml_bench.suite.settings import DatasetSpec
from hpml_bench.suite.suite import Margin, MethodEntry, Suite


def test_takeaways_name_real_leads(tmp_path: Path) -> None:
    """A lead beyond the noise is claimed with its size and interval; who is undecided is named, with what it takes."""
    text = said("takeaways", load(tmp_path, sweep()))
    assert text.startswith(
        "full has the highest mean accuracy: 87.5 %; full is better than prompt_tuning by 3.0 points [1.5, 4.6] and "
        "head by 8.1 points [5.9, 10.3]. Undecided against adapter (5 seeds could have found 1.8 points; no number of "
        "seeds up to 10,000 would decide on 1,000 test rows) and lora (5 seeds could have found 1.9 points; "
    )
    assert (
        "head trained fastest on average: 0.900 s; adapter took 2.00 times [1.90, 2.11] as long as head, "
        "lora 2.10 times" in text
    )
    assert "head needed the least memory on average: 480.6 MB; " in text


def test_takeaways_claim_nothing_without_a_difference(tmp_path: Path) -> None:
    """Where the methods are the same but for noise, no sentence calls one better, and no place on the front is told."""
    records = sweep(["lora", "adapter", "full"])
    same = [r.model_copy(update={"metrics": metrics("lora", 10 * i)}) for i, r in enumerate(records)]
    text = said("takeaways", load(tmp_path, same))
    assert text.count(" is not shown to be better than any other. ") == 3
    assert (
        "lora has the highest mean accuracy: 87.4 %; lora is not shown to be better than any other. Undecided" in text
    )
    assert (
        "adapter trained fastest on average: 1.894 s; adapter is not shown to be better than any other. "
        "Equivalent to it" in text
    )
    assert "; better than" not in text
    assert " times [" not in text
    assert "Pareto" not in text


def test_a_noisy_leader_claims_nothing(tmp_path: Path) -> None:
    """Where the best mean is ahead of no one that is said, and the pair that does differ is in the table alone."""
    jumps = {"lora": [0.82, 0.98, 0.9], "full": [0.871, 0.869, 0.872], "head": [0.69, 0.689, 0.692]}
    results = load(tmp_path, of({method: {"test_accuracy": values} for method, values in jumps.items()}, 3))
    text = said("takeaways", results)
    assert text.startswith(
        "lora has the highest mean accuracy: 90.00 %; lora is not shown to be better than any other."
    )
    assert "Undecided against full (3 seeds could have found " in text
    assert "full − head | full is better |" in said("comparisons", results)
    assert "3 seeds are few: only large differences can be found." in text
    assert "verdicts of one family of 9 tested pairs" in text


def test_takeaways_of_runs_all_set_apart(tmp_path: Path) -> None:
    """Runs that ended well and were set apart are not called failed."""
    text = said("takeaways", load(tmp_path, sweep(["lora"], 2, consumed=None)))
    assert text.startswith("Every run that ended well was set apart")


def test_takeaways_of_a_metric_one_method_has(tmp_path: Path) -> None:
    """A metric that one method alone has is said to be its own, without a comparison."""
    records = [
        r if r.spec.method.name == "lora" else with_metrics(r, peak_memory_mb=None) for r in sweep(["lora", "full"], 3)
    ]
    assert "Peak memory was measured for lora alone: 512.7 MB." in said("takeaways", load(tmp_path, records))


def test_ratios_are_over_shared_seeds(tmp_path: Path) -> None:
    """A cost's factor compares two methods in the seeds both have: a slow seed that one lacks enters no number."""
    seconds = {"lora": [9.0, 2.02, 1.98, 2.1, 2.0], "head": [0.0, 1.0, 1.0, 1.05, 1.0]}
    made = of({method: {"train_seconds": values} for method, values in seconds.items()})
    results = load(tmp_path, [r for r in made if (r.spec.method.name, r.spec.seed) != ("head", 0)])
    text = said("takeaways", results)
    assert (
        "No method is shown to be better by training time than head, which has 1.01 s over the 4 seeds that all "
        "methods share; "
        "lora took 2.00 times [1.96, 2.05] as long as head." in text
    )
    assert results.interval("lora", "train_seconds").mean == pytest.approx(2.025)  # type: ignore[union-attr]


def test_unequal_consumption_is_set_apart(tmp_path: Path) -> None:
    """A run that consumed fewer samples than the rest of its seed enters no mean, and the difference is named."""
    short = Consumed(steps=90, samples=1440, real_tokens=38_000, padded_tokens=43_000, order=f"{0:064x}")
    results = load(tmp_path, [*sweep(["lora", "full"]), record("adapter", 0, consumed=short)])
    assert results.methods == ("full", "lora")
    assert "steps 90 instead of 100, samples 1440 instead of 1600" in said("failures", results)


def test_other_protocols_are_set_apart(tmp_path: Path) -> None:
    """Runs of another protocol are counted apart with the setting that differs, and their values reach no table."""
    other = SETTINGS.model_copy(
        update={"train_samples": 512, "dataset": DatasetSpec(name="newswire", options={"p": 0.5})}
    )
    results = load(tmp_path, [*sweep(), *sweep(["lora"], 2, settings=other)])
    assert len(results.compared) == 25
    text = said("failures", results)
    assert "train_samples 512 instead of 1024" in text
    assert "dataset.options.p 0.5 instead of 0.6" in text


def test_newest_protocol_wins_a_tie(tmp_path: Path) -> None:
    """Of two protocols with as many ok runs the newer one is the report's."""
    other = SETTINGS.model_copy(update={"train_samples": 512})
    newer = sweep(["lora"], 2, settings=other, started="2027-01-01T00:00:00+00:00")
    assert load(tmp_path, [*sweep(["lora"], 2), *newer]).reference.spec.settings.train_samples == 512


def test_costs_are_of_the_machine_that_most_share(tmp_path: Path) -> None:
    """Of runs of two machines scores are compared all the same; costs of the fewer enter no mean, pair or lead."""
    results = load(tmp_path, [*sweep(["lora", "full"]), *map(elsewhere, sweep(["head"]))])
    takeaways = said("takeaways", results)
    assert "full has the highest mean accuracy: 87.5 %; full is better than head by 8.1 points" in takeaways
    assert (
        "Costs are of the runs in the environment that most share; 5 of 15 compared runs ran on other hardware"
        in takeaways
    )
    assert "verdicts of one family of 5 tested pairs" in takeaways
    for cost in ("train_seconds", "peak_memory_mb", "samples_per_second", "latency_ms_p50"):
        assert set(results.values(cost)) == {"lora", "full"}
        assert [{c.a, c.b} for c in results.comparisons(cost)] == [{"lora", "full"}]
    assert set(results.values("trainable_parameters")) == {"lora", "full", "head"}
    row = next(row for row in summary_table(results).rows if row[0] == "head")
    assert row[4:7] == ("–", "–", "–")
    assert "Times and memory are of the runs in the environment that most share" in said("summary", results)
    assert "head, seed 0, 1, 2, 3, 4 | fingerprint | 0123456789ab | another" in said("environment", results)


def test_who_has_no_cost_is_not_beaten_at_it(tmp_path: Path) -> None:
    """A method that ran elsewhere alone is said not to be compared by time; no one is called fastest without it."""
    results = load(tmp_path, [*sweep(["lora", "full"]), *map(elsewhere, sweep(["head"]))])
    time = next(line for line in said("takeaways", results).splitlines() if "time" in line or "fastest" in line)
    assert "head" in time


def test_means_are_over_the_seeds_that_all_share(tmp_path: Path) -> None:
    """Where a method lacks seeds every mean is over those that all have, if two or more; a pair uses what it shares."""
    made = [
        r
        for r in sweep(["lora", "full", "head"])
        if (r.spec.method.name, r.spec.seed) not in {("lora", 1), ("head", 3)}
    ]
    results = load(tmp_path, made)
    assert [set(seeds) for seeds in results.shown("test_accuracy").values()] == [{0, 2, 4}] * 3
    assert results.interval("full", "test_accuracy").n == 3  # type: ignore[union-attr]
    assert {(c.a, c.b): c.difference.n for c in results.comparisons("test_accuracy")} == {
        ("full", "head"): 4, ("full", "lora"): 4, ("head", "lora"): 3
    }  # fmt: skip
    assert re.search(r"Means of accuracy, .* are over seeds 0, 2, 4\.", said("summary", results))
    assert "each mean is over the 3 that all share." in said("takeaways", results)


def test_means_without_shared_seeds_are_said_to_be_their_own(tmp_path: Path) -> None:
    """Where fewer than two seeds are shared each mean is over its method's own seeds, and nothing says otherwise."""
    results = load(tmp_path, [*(record("lora", s) for s in (0, 1, 2)), *(record("full", s) for s in (2, 3, 4))])
    assert results.interval("lora", "test_accuracy").n == 3  # type: ignore[union-attr]
    assert re.search(r"Means of accuracy, .* are over each method's own seeds\.", said("summary", results))
    assert "each mean is over its method's own seeds, so that means do not compare." in said("takeaways", results)
    assert "share" not in summary_table(results).caption


def test_seeds_are_said_of_the_metrics_that_lack_them(tmp_path: Path) -> None:
    """Where costs alone lack seeds, no sentence says that of the score, whose means are over all seeds."""
    made = [elsewhere(r) if (r.spec.method.name, r.spec.seed) in {("full", 1), ("full", 2)} else r for r in sweep()]
    results = load(tmp_path, made)
    assert results.interval("full", "test_accuracy").n == 5  # type: ignore[union-attr]
    assert results.interval("lora", "train_seconds").n == 3  # type: ignore[union-attr]
    assert re.search(r"Means of training time, .* are over seeds 0, 3, 4\.", said("summary", results))
    (line,) = [line for line in said("takeaways", results).splitlines() if line.startswith("Methods lack seeds")]
    assert line.startswith("Methods lack seeds in training time and peak memory: ")


def test_names_of_metrics_stay_as_they_are(tmp_path: Path) -> None:
    """A title at the beginning of a note keeps its capitals, as in Macro-F1."""
    assert "Macro-f1" not in said("summary", load(tmp_path, without("lora", 1)))


def test_equal_means_have_no_leader(tmp_path: Path) -> None:
    """Of two methods with the same mean none is said to have the highest accuracy or to need the least memory."""
    same = {"test_accuracy": [0.9, 0.91, 0.92], "test_loss": [0.3] * 3, "peak_memory_mb": [500.0, 501.0, 502.0]}
    text = said("takeaways", load(tmp_path, of({"lora": same, "full": same}, 3)))
    assert "has the highest" not in text
    assert "needed the least memory" not in text


def test_what_the_verdicts_hold_for_is_said(tmp_path: Path) -> None:
    """Scores are judged for other test rows; for other training rows too where each seed drew its own."""
    for vary, rows in (
        (False, "these training rows and other test rows"),
        (True, "other training rows and other test rows"),
    ):
        settings = SETTINGS.model_copy(update={"vary_data": vary})
        results = load(tmp_path / str(vary), sweep(["lora", "full"], 3, settings=settings))
        assert rows in said("takeaways", results)
        assert ("conditional on these training rows" in said("comparisons", results)) != vary


def test_one_test_row_tells_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a single test row no score is called better, however many seeds agree on it: verdicts are for other rows."""
    monkeypatch.setattr(
        made_records,
        "answers",
        lambda run, _, rows: (np.zeros(rows, int), np.full(rows, run.spec.method.name == "full", int)),
    )
    results = Results.load(made_records.write(tmp_path, sweep(["lora", "full"], 12), rows=1))
    assert [c.verdict for c in results.comparisons("test_accuracy")] == ["untested"]
    assert "better than full by 100" not in said("takeaways", results)


def test_methods_not_above_guessing_are_named(tmp_path: Path) -> None:
    """A method whose accuracy is not shown to be above the most frequent class's is named, and no other."""
    chance, well = [0.28, 0.27, 0.285], [0.8, 0.81, 0.8]
    results = load(tmp_path, of({"lora": {"test_accuracy": well}, "full": {"test_accuracy": chance}}, 3))
    assert "Not shown to be better than that: full." in said("takeaways", results)
    assert "Not shown" not in said("takeaways", load(tmp_path / "well", sweep(seeds=3)))


def test_under_trained_methods_are_named(tmp_path: Path) -> None:
    """Methods whose validation loss still fell by over 2 % at the last step are named, with how many of their runs."""
    ends = {"lora": [0.50, 0.49], "full": [0.50, 0.495], "head": [0.48, 0.50]}

    def course(method: str, seed: int) -> list[Point]:
        values = [1.0, *(ends[method] if seed else [0.5, 0.5])]
        return [
            Point(metric="validation_loss", step=step, value=v) for step, v in zip((5, 10, 15), values, strict=True)
        ]

    results = Results.load(made_records.write(tmp_path, sweep(list(ends), 3), course))
    assert "% below the evaluation before, for lora (2 of 3 runs); with more" in said("takeaways", results)


def test_other_test_rows_are_another_protocol(tmp_path: Path) -> None:
    """Sound runs of another protocol with fewer test rows are told from it, and not called invalid for lacking rows."""
    made_records.write(tmp_path, sweep(["lora", "full"], 3))
    other = SETTINGS.model_copy(update={"test_samples": 500})
    made_records.write(tmp_path, sweep(["lora"], 2, settings=other), rows=500)
    text = said("failures", Results.load(tmp_path))
    assert "test_samples 500 instead of 1000" in text
    assert "invalid" not in text


def test_two_seeds_leave_the_rows_to_say_what_is_above_guessing(tmp_path: Path) -> None:
    """86 % of 1,000 rows against 28 % for guessing: rows alone decide that, and the page says so."""
    results = load(tmp_path, of({"lora": {"test_accuracy": [0.86, 0.85]}, "full": {"test_accuracy": [0.28, 0.27]}}, 2))
    text = said("takeaways", results)
    assert (
        "Better than that in each of their runs, by the test rows alone: lora. Not shown to be better than that: full."
        in text
    )
    assert "which takes" not in text


def test_three_seeds_that_differ_leave_the_rows_to_say_what_is_above_guessing(tmp_path: Path) -> None:
    """86 % with a standard deviation of 4 points against 28 %: not shown over seeds, better in each run by its rows."""
    spread = {"lora": {"test_accuracy": [0.82, 0.86, 0.9]}, "full": {"test_accuracy": [0.28, 0.27, 0.28]}}
    wide = {f"m{n}": {"test_accuracy": [0.6, 0.75, 0.9]} for n in range(3)}
    text = said("takeaways", load(tmp_path, of(spread | wide, 3)))
    assert "by the test rows alone: lora, m0, m1 and m2. Not shown to be better than that: full." in text


def test_one_run_at_guessing_keeps_its_method_from_being_above_it(tmp_path: Path) -> None:
    """Of two runs each must be above guessing."""
    results = load(tmp_path, of({"lora": {"test_accuracy": [0.86, 0.27]}, "full": {"test_accuracy": [0.8, 0.8]}}, 2))
    assert "by the test rows alone: full. Not shown to be better than that: lora." in said("takeaways", results)


def test_failures_stand_in_the_takeaways(tmp_path: Path) -> None:
    """Two of five runs of full diverged: cause and count are said, and that claims hold for runs that end well."""
    bad = [failed("full", seed, "diverged", "the loss is NaN") for seed in (1, 3)]
    text = said("takeaways", load(tmp_path, [*without("full", 1, 3), *bad]))
    assert (
        "Runs that ended otherwise than well: full in 2 of 5 runs (diverged: 2). Claims hold for runs that end well"
        in text
    )
    assert "A time limit" not in text
    assert "ended otherwise" not in said("takeaways", load(tmp_path / "well", sweep()))


def test_slow_runs_that_a_limit_ended_are_told(tmp_path: Path) -> None:
    """Of timeouts the page says that costs of the others are too low; what a user interrupted says nothing."""
    bad = [failed("full", 1, "timeout", "took over 60 s"), failed("full", 2, "diverged", "NaN"),
           failed("head", 1, "interrupted", "Ctrl-C")]  # fmt: skip
    records = [r for r in without("full", 1, 2) if (r.spec.method.name, r.spec.seed) != ("head", 1)]
    text = said("takeaways", load(tmp_path, [*records, *bad]))
    assert "full in 2 of 5 runs (diverged: 1, timeout: 1)." in text
    assert "A time limit ends the slow runs, so that costs of the others are too low." in text


def test_failures_under_other_settings_are_of_another_comparison(tmp_path: Path) -> None:
    """A run that failed with another budget says nothing of these."""
    other = failed("full", 1, "diverged", "NaN", settings=SETTINGS.model_copy(update={"steps": 300}))
    assert "ended otherwise" not in said("takeaways", load(tmp_path, [*sweep(), other]))


def test_the_memory_sentence_says_what_it_ranks(tmp_path: Path) -> None:
    """What training adds is ranked; the peak of the whole process, which is another order, stands beside it."""
    net = made_records._metric("peak_memory_over_setup_mb", "peak memory over set-up", "MB", "lower", "train", ",.0f")
    values = {
        "lora": {"peak_memory_mb": [1472.0] * 5, "peak_memory_over_setup_mb": [40.0, 41, 40, 42, 40]},
        "full": {"peak_memory_mb": [480.0] * 5, "peak_memory_over_setup_mb": [62.0, 63, 62, 62, 61]},
    }
    made = [r.model_copy(update={"definitions": (*r.definitions, net)}) for r in of(values)]
    text = said("takeaways", load(tmp_path, made))
    assert "lora added the least memory over set-up on average: 40.6 MB" in text
    assert (
        "Ranked is what training adds; the peak of the whole process, not ranked, is 480 (full) to 1,472 MB (lora)."
        in text
    )


def test_the_margin_is_the_suites(tmp_path: Path) -> None:
    """What counts as no difference is what the suite beside the runs says, in verdicts and in words."""
    records = of({"lora": {"test_accuracy": [0.90, 0.91, 0.92]}, "full": {"test_accuracy": [0.91, 0.92, 0.91]}}, 3)
    wide = Suite(
        name="example",
        settings=SETTINGS,
        methods={"lora": MethodEntry(), "full": MethodEntry()},
        margin=Margin(quality=0.1, cost=0.5),
    )
    made_records.write(tmp_path, records)
    before = Results.load(tmp_path)
    assert before.comparisons("test_accuracy")[0].verdict == "undecided"
    (tmp_path / "suite.json").write_text(wide.model_dump_json())
    results = Results.load(tmp_path)
    assert results.comparisons("test_accuracy")[0].verdict == "equivalent"
    assert "a difference of 10.0 points of a score, 50 % of a cost or more" in said("comparisons", results)
    assert "lora / full | lora is better, within the margin |" in said("comparisons", results)
