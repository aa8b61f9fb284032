"""Every registered section, over results of every awkward kind; and what each section must and must not say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from helpers import made_records
from helpers.made_records import METHODS, SETTINGS, failed, metrics, record, sweep
from hpml_bench import registry, statistics
from hpml_bench.config.settings import DatasetSpec, MethodSpec
from hpml_bench.config.suite import Margin, MethodEntry, Suite
from hpml_bench.records.run import Consumed, Point, RunRecord
from hpml_bench.report.blocks import Figure, Section, Table, Text
from hpml_bench.report.render import summary_table, write_report
from hpml_bench.report.results import Results

EVIL = "<script>alert(1)</script> | a|b \n# h $x^2$ \x1b[31mred\x1b[0m `c` [l](javascript:1) & \\ \u202e % _x_ {} -->"


SCORES = ("test_accuracy", "test_macro_f1", "test_loss")
"""What a run's predictions give; one that lacks them is not compared."""


def measured(change: Callable[[str, float | None], float | None], keep: tuple[str, ...] = SCORES) -> list[RunRecord]:
    """Return a sweep whose metrics, but for those kept, went through `change`."""
    return [
        r.model_copy(update={"metrics": {k: v if k in keep else change(k, v) for k, v in r.metrics.items()}})
        for r in sweep(seeds=3)
    ]


def of(changes: dict[str, dict[str, list[float]]], seeds: int = 5) -> list[RunRecord]:
    """Return a sweep of methods with metrics of their own: method -> metric -> a value a seed."""
    return [
        with_metrics(r, **{name: values[r.spec.seed] for name, values in changes[r.spec.method.name].items()})
        for r in sweep(list(changes), seeds)
    ]


def with_metrics(run: RunRecord, **own: float | None) -> RunRecord:
    """Return a run with other values of some metrics."""
    return run.model_copy(update={"metrics": run.metrics | own})


def elsewhere(run: RunRecord) -> RunRecord:
    """Return a run as if it came from another machine."""
    return run.model_copy(update={"environment": made_records.ENVIRONMENT | {"fingerprint": "another"}})


def without(method: str, *seeds: int) -> list[RunRecord]:
    """Return a sweep in which a method lacks seeds."""
    return [r for r in sweep() if not (r.spec.method.name == method and r.spec.seed in seeds)]


ONE_RANK = SETTINGS.model_copy(update={"world_size": 1})


def hostile() -> list[RunRecord]:
    """Return records with everything a text field can do to a page."""
    definitions = tuple(m.model_copy(update={"title": EVIL, "definition": EVIL}) for m in made_records.DEFINITIONS)
    odd: dict[str, Any] = {
        "definitions": definitions,
        "notes": {EVIL: EVIL},
        "environment": {EVIL: [EVIL], "packages": EVIL},
    }
    return [*sweep(seeds=3, suite=EVIL, **odd), failed("lora", 9, "failed", EVIL)]


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
    "hostile text": hostile,
    "many methods": lambda: sweep([f"m{i}" for i in range(14)], 3),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Read the case's records back from a folder."""
    folder = tmp_path_factory.mktemp("results")
    curves = request.param in {"whole", "one seed", "missing seeds", "hostile text", "two machines"}
    course = made_records.points if curves else lambda *_: []
    rows = 1 if request.param == "one row" else 200
    return Results.load(made_records.write(folder, CASES[request.param](), course, rows))


def load(folder: Path, records: list[RunRecord]) -> Results:
    """Write records and read them as a report does."""
    return Results.load(made_records.write(folder, records))


def section(name: str, results: Results) -> Section | None:
    """Return one registered section of the results."""
    made: Section | None = registry.get("sections", name).section(results)
    return made


def said(name: str, results: Results) -> str:
    """Return all text of a section."""
    made = section(name, results)
    lines: list[str] = []
    for block in made.blocks if made else ():
        if isinstance(block, Text):
            lines += block.sentences
        elif isinstance(block, Table):
            lines += [*block.notes, *(" | ".join(row) for row in block.rows)]
    return "\n".join(lines)


@pytest.mark.parametrize("name", registry.names("sections"))
def test_every_section_copes(name: str, results: Results) -> None:
    """A section gives well-formed blocks or nothing, whatever the records lack, and never the word nan."""
    assert isinstance(registry.get("sections", name).order, int)
    made = section(name, results)
    if made is None:
        return
    assert made.blocks
    for block in made.blocks:
        if isinstance(block, Table):
            assert {len(row) for row in block.rows} == {len(block.columns)}
            assert block.values is not None
            assert [len(row) for row in block.values] == [len(row) for row in block.rows]
            assert all(cell.isprintable() for row in block.rows for cell in row)
            assert not {"nan", "inf", "None"} & {word for row in block.rows for cell in row for word in cell.split()}
        elif isinstance(block, Figure):
            root = ET.fromstring(block.svg)
            assert not [e for e in root.iter() if e.tag.rpartition("}")[2] in {"script", "image", "foreignObject"}]
            assert block.alt
        else:
            assert all(block.sentences)


def test_slugs_and_names_are_unique(tmp_path: Path) -> None:
    """Anchors, table files and figure files of one report do not collide."""
    results = load(tmp_path, [*sweep(["lora", "full"], 2), failed("lora", 9, "timeout", "too slow")])
    sections = [made for name in registry.names("sections") if (made := section(name, results))]
    names = [block.name for made in sections for block in made.blocks if not isinstance(block, Text)]
    kinds = [type(block).__name__ for made in sections for block in made.blocks if not isinstance(block, Text)]
    assert len({made.slug for made in sections}) == len(sections)
    assert len(set(zip(kinds, names, strict=True))) == len(names)


def test_takeaways_name_real_leads(tmp_path: Path) -> None:
    """A lead beyond the noise is claimed with its size and interval; who is undecided is named, with what it takes."""
    text = said("takeaways", load(tmp_path, sweep()))
    assert text.startswith(
        "full has the highest mean accuracy: 87.5 %; full is better than adapter by 1.3 points [0.4, 2.2], "
        "prompt_tuning by 3.0 points [2.0, 4.1] and head by 8.1 points [6.7, 9.6]. Undecided against lora (5 seeds "
        "could have found 3.2 points; no number of seeds up to 10,000 would decide on 1,000 test rows)."
    )
    assert (
        "head trained fastest on average: 0.900 s; adapter took 2.00 times [1.96, 2.05] as long as head, "
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
        "lora took 2.00 times [1.97, 2.03] as long as head." in text
    )
    assert results.interval("lora", "train_seconds").mean == pytest.approx(2.025)  # type: ignore[union-attr]


@pytest.mark.parametrize("seeds", [1, 2])
def test_takeaways_of_few_seeds_rank_nothing(tmp_path: Path, seeds: int) -> None:
    """Under three seeds no pair has a verdict: values are named, leads, ranks and places on the front are not."""
    results = load(tmp_path, sweep(seeds=seeds))
    text = said("takeaways", results)
    have = "one seed" if seeds == 1 else "2 seeds"
    assert f"No method is called better than another: the runs have {have}, and a verdict needs two methods" in text
    assert "Accuracy lies between " in text
    assert "; no pair has the seeds for a verdict." in text
    assert not [word for word in ("has the highest", "fastest", "least memory", "Pareto", "quivalent") if word in text]
    table = summary_table(results)
    assert not [column for column in table.columns if "ank" in column or "Pareto" in column]
    assert not any("rank" in note for note in table.notes)


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


def test_equivalence_is_said_with_its_margin(tmp_path: Path) -> None:
    """Methods shown to lie within the margin are called equivalent to the leader, and by which margin."""
    same = {"test_accuracy": [0.9, 0.91, 0.92, 0.91, 0.9], "test_loss": [0.3] * 5}
    slower = same | {"test_accuracy": [0.9, 0.91, 0.92, 0.91, 0.901]}
    results = load(tmp_path, of({"lora": same, "full": slower}))
    assert "full has the highest mean accuracy: 90.8 %" in said("takeaways", results)
    assert "Equivalent to it: lora (within 1 point)." in said("takeaways", results)
    assert "full − lora | equivalent |" in said("comparisons", results)


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
    assert "(within 10 points)" in said("takeaways", results)
    assert "a difference of 10 points of a score, 50 % of a cost or more" in said("comparisons", results)
    assert "lora / full | lora is better, within the margin |" in said("comparisons", results)


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


# Guessing and training


def test_guessing_stands_beside_the_scores(tmp_path: Path) -> None:
    """What the most frequent class and chance get is beside every table of scores, with the figures of these rows."""
    labels = np.random.default_rng(8).integers(0, 4, 1000)  # made_records.answers draws them so
    most = np.bincount(labels).max() / 1000
    sentence = (
        f"gets {100 * most:.1f} % of the test rows right (macro-F1 {2 * most / (1 + most) / 4:.3f}); chance is 25.0 %."
    )
    several, one = load(tmp_path / "several", sweep(seeds=3)), load(tmp_path / "one", sweep(seeds=1))
    for name, count in (("takeaways", 1), ("summary", 1), ("comparisons", 2)):
        assert said(name, several).count(sentence) == count, name
    assert sentence in said("single_seed", one)


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


# Who is listed where


def test_every_record_is_somewhere(tmp_path: Path) -> None:
    """The compared runs are listed as runs, all others among the failures: none is in both, and none in neither."""
    other = SETTINGS.model_copy(update={"train_samples": 512})
    records = [
        *sweep(["lora", "full"], 2),
        record("lora", 0, 20, settings=other),
        record("adapter", 0, 21, consumed=None),
        failed("head", 0, "failed", "why"),
    ]
    results = load(tmp_path, records)
    runs, failures = said("runs", results), said("failures", results)
    assert [r.run_id in runs for r in records] == [True] * 4 + [False] * 3
    assert "adapter" in failures
    assert "train_samples 512 instead of 1024" in failures
    assert "head | 0 | failed" in failures
    assert "lora | 0 | 1" in failures
    assert write_report(results, tmp_path / "out", ("md",))
    assert "**Runs:** 4 compared, 2 set apart, 1 not ok ·" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("method", ["head", "lora"])
def test_runs_on_other_ranks_are_somewhere(tmp_path: Path, method: str) -> None:
    """A run that differs in the number of ranks alone is in the table of scaling, or is told to be set apart."""
    results = load(tmp_path, [*sweep(["lora", "full"], 2), record(method, 7, 30, settings=ONE_RANK)])
    scaled = [run.spec.seed for name in results.methods for run in results.scaled(name).get((1, 1), ())]
    apart = [run.spec.seed for group in results.left_out.excluded for run in group.records]
    assert 7 in (scaled if section("scaling", results) else []) + apart


def test_other_test_rows_are_another_protocol(tmp_path: Path) -> None:
    """Sound runs of another protocol with fewer test rows are told from it, and not called invalid for lacking rows."""
    made_records.write(tmp_path, sweep(["lora", "full"], 3))
    other = SETTINGS.model_copy(update={"test_samples": 500})
    made_records.write(tmp_path, sweep(["lora"], 2, settings=other), rows=500)
    text = said("failures", Results.load(tmp_path))
    assert "test_samples 500 instead of 1000" in text
    assert "invalid" not in text


def test_missing_seeds_are_said(tmp_path: Path) -> None:
    """A method that lacks seeds says so beneath the summary."""
    assert "lora lacks seed 1, 3." in said("summary", load(tmp_path, without("lora", 1, 3)))


def test_methods_stand_in_the_suites_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables list methods as the packaged suite does, and unknown ones after them."""
    suite = Suite(name="example", settings=SETTINGS, methods={"lora": MethodEntry(), "full": MethodEntry()})
    monkeypatch.setattr("hpml_bench.report.results.compared.packaged_suites", lambda: ("example",))
    monkeypatch.setattr("hpml_bench.report.results.compared.load_suite", lambda _: suite)
    assert load(tmp_path, sweep(["adapter", "full", "lora"], 2)).methods == ("lora", "full", "adapter")


def test_one_name_with_two_specifications_is_two_methods(tmp_path: Path) -> None:
    """Runs of one method name with other options are not averaged: each is called by what differs."""
    wide = MethodSpec(name="lora", method="lora", options=made_records.OPTIONS["lora"] | {"r": 16}, lr=3e-3)
    results = load(tmp_path, [*sweep(["lora"], 2), *(record("lora", s, method_spec=wide) for s in range(2))])
    assert set(results.methods) == {"lora (r=8)", "lora (r=16)"}


def test_failures_show_status_reason_and_log(tmp_path: Path) -> None:
    """What failed is listed with its reason and log; unsupported methods give their reason."""
    bad = [
        failed("peft", 0, "unsupported", "needs convolutions"),
        failed("full", 9, "oom_host", "killed by the kernel"),
    ]
    results = load(tmp_path, [*sweep(["lora"]), *bad])
    text = said("failures", results)
    assert "the method can't run with this model | unsupported: needs convolutions" in text
    assert f"{bad[1].run_id}/rank0.log" in text
    assert "No comparable run: " in said("summary", results)


TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 60, in start
    execute(spec)
    ^^^^^^^^^^^^^
%s  File "method.py", line 7, in after_step
    raise ArithmeticError("the raising line of %s")
ArithmeticError: %s
"""


def raising(name: str, message: str = "<b>told</b>", calls: int = 0) -> RunRecord:
    """Return the record of a run that raised."""
    deep = "".join(f'  File "deep.py", line {number}, in call\n    call()\n' for number in range(calls))
    bad = failed("lora", len(name), "failed", message)
    assert bad.error is not None
    error = bad.error.model_copy(update={"traceback": TRACEBACK % (deep, name, message)})
    return bad.model_copy(update={"error": error})


def test_the_raising_line_is_on_both_pages(tmp_path: Path) -> None:
    """A rank's own traceback ends in the report as in the record: calls, raising line and exception, escaped."""
    load(tmp_path, [*sweep(["lora"], 2), raising("one run")])
    write_report(tmp_path)
    markdown, page = ((tmp_path / name).read_text() for name in ("report.md", "report.html"))
    assert '- raise ArithmeticError("the raising line of one run")' in markdown
    assert "raise ArithmeticError(&#34;the raising line of one run&#34;)" in page
    for text in (markdown, page):
        assert "line 60, in start" in text
        assert "ArithmeticError: &lt;b&gt;told&lt;/b&gt;" in text
        assert "Raised in lora, seed 7:" in text
        assert "^^^" not in text


def test_tracebacks_are_bounded(tmp_path: Path) -> None:
    """Deep calls and long messages leave the raising line in; equal ones are shown once, and five in all."""
    long = raising("x" * 20, "a line of many\n" * 500 + "y" * 5_000, calls=100)
    results = load(tmp_path, [long, *(raising("run " + "z" * number) for number in range(7))])
    made = section("failures", results)
    assert made
    *shown, rest = [block.sentences for block in made.blocks if isinstance(block, Text)]
    assert len(shown) == 5
    assert rest == ("Other tracebacks that are in run.json alone: 3.",)
    assert all(len(lines) <= 21 and max(map(len, lines)) <= 400 for lines in shown)
    assert f'raise ArithmeticError("the raising line of {"x" * 20}")' in said("failures", load(tmp_path / "1", [long]))
    same = raising("same")
    again = same.model_copy(update={"spec": same.spec.model_copy(update={"seed": 90}), "run_id": "z"})
    text = said("failures", load(tmp_path / "2", [same, again]))
    assert "Raised in lora, seed 4; lora, seed 90:" in text


def test_damaged_records_are_said(tmp_path: Path) -> None:
    """A record that can't be read is named; the others are reported."""
    made_records.write(tmp_path, sweep(["lora"]))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"schema_version": 1, ')
    assert "torn/run.json" in said("failures", Results.load(tmp_path))


def test_repeatability_is_said(tmp_path: Path) -> None:
    """The environment says that CPU runs repeat exactly, and why those on cuda do not."""
    text = said("environment", load(tmp_path, sweep(["lora"], 1)))
    assert "identical losses and predictions; on cuda it differs in the last digits, since some backward" in text


def test_a_percentile_of_few_is_called_what_it_is(tmp_path: Path) -> None:
    """A p99 of fewer than 200 examples is said to be nearly the maximum, and one of many is not."""
    for samples in (50, 1000):
        settings = SETTINGS.model_copy(update={"latency_samples": samples})
        text = said("inference", load(tmp_path / str(samples), sweep(["lora"], 2, settings=settings)))
        assert ("nearly the slowest" in text) == (samples == 50)


def test_reaching_a_target_before_any_step_takes_nothing(tmp_path: Path) -> None:
    """A run that stands at the target in an evaluation at step 0 got there in 0 s with 0 samples."""
    course = [Point(metric="validation_accuracy", step=0, value=0.9), *made_records.points("lora", 0)]
    results = Results.load(made_records.write(tmp_path, sweep(["lora"], 1), lambda *_: course))
    reached = registry.get("sections", "time_to_quality").reached
    assert reached(results, results.compared[0], 0.85) == (0.0, 0.0)


def test_the_chart_says_that_no_difference_is_shown(tmp_path: Path) -> None:
    """Where no difference is shown the chart of cost and accuracy says so, and nothing is ringed."""
    for seeds, real in ((1, False), (5, True)):
        made = section("cost_quality", load(tmp_path / str(seeds), sweep(["lora", "head"], seeds)))
        captions = [block.caption for block in made.blocks if isinstance(block, Figure)] if made else []
        assert len(captions) == 2
        assert all(("None of these differences is shown" in caption) != real for caption in captions)
        assert all(("Ringed: shown to be on the Pareto front" in caption) == real for caption in captions)


def test_error_bars_are_those_of_the_interval() -> None:
    """An interval that reaches further to one side is drawn so."""
    from hpml_bench.report.figures import _arms
    from hpml_bench.statistics import Interval

    assert _arms(Interval(40, 2.0, 1.0, 1.5, 3.0), 10) == [[5.0], [10.0]]
    assert _arms(Interval(1, 2.0, None, None, None), 10) == [[0.0], [0.0]]


def test_document_does_not_compare_unequal_budgets(tmp_path: Path) -> None:
    """Samples/s times runtime shows 150,000 against 120,000 samples, and the section says what follows."""
    text = said("published", load(tmp_path, sweep()))
    assert "150,000 samples for Prompt Tuning, 120,000 samples for LoRA and 120,000 samples for Adapter Tuning" in text
    assert "budgets were not equal" in text
    assert "Prompt Tuning | document | 93.88 | 0.2193 | 2,345 | 63.96 | 3,577 | 12.88 | ≈ 149,986" in text


def test_document_needs_a_shared_method(tmp_path: Path) -> None:
    """A suite with none of the document's methods has nothing beside it."""
    assert section("published", load(tmp_path, sweep(["full", "head"]))) is None


def test_dominated_methods_are_named(tmp_path: Path) -> None:
    """Of accuracy and a cost, who is on the front, who is off it and by whom, and who is undecided are named."""
    text = said("cost_quality", load(tmp_path, sweep()))
    assert (
        "Accuracy against training time: on the front adapter, head and lora; undecided full; off it prompt_tuning "
        "(dominated by adapter, full and lora)." in text
    )
    assert "Accuracy against peak memory: on the front adapter, head, lora and prompt_tuning; undecided full." in text
    assert "full | undecided | – | 87.5 ± 0.4" in text


def test_places_need_shared_seeds(tmp_path: Path) -> None:
    """A method that shares two seeds with the others neither takes a place on the front nor denies one."""
    few = load(tmp_path / "few", without("head", 0, 1, 2))
    places = {method: of.place for method, of in few.front(few.headline).items()}
    assert places == {"lora": "undecided", "full": "undecided", "adapter": "undecided", "head": "undecided",
                      "prompt_tuning": "undecided"}  # fmt: skip
    assert "places of all methods are undecided" in said("cost_quality", few)
    enough = load(tmp_path / "enough", without("head", 0))
    assert enough.front(enough.headline)["head"].place == "on"


def test_a_caption_denies_no_place_that_is_shown(tmp_path: Path) -> None:
    """Where a method is shown to be off the front and none on it, the chart doesn't say that no place is shown."""
    accuracy = {"lora": [0.87, 0.88, 0.86, 0.87, 0.88], "full": [0.88, 0.86, 0.87, 0.88, 0.87], "head": [0.6] * 5}
    seconds = {"lora": [1.9, 2.0, 2.1, 2.0, 1.9], "full": [2.0, 1.9, 2.0, 2.1, 1.9], "head": [4.0, 4.1, 3.9, 4.2, 4.1]}
    made = of({m: {"test_accuracy": accuracy[m], "train_seconds": seconds[m]} for m in accuracy})
    results = load(tmp_path, made)
    front = results.front(("test_accuracy", "train_seconds"))
    assert {method: of.place for method, of in front.items()} == {
        "lora": "undecided",
        "full": "undecided",
        "head": "off",
    }
    shown = section("cost_quality", results)
    assert shown
    captions = [block.caption for block in shown.blocks if isinstance(block, Figure) and "seconds" in block.name]
    assert captions
    assert "No method's place is shown" not in captions[0]


def test_one_method_has_no_front(tmp_path: Path) -> None:
    """With a single method no place on a front is told, and nothing is ringed as shown."""
    made = section("cost_quality", load(tmp_path, sweep(["lora"])))
    texts = [t for b in made.blocks for t in (b.sentences if isinstance(b, Text) else (b.caption,))] if made else []
    assert not [text for text in texts if "on the front" in text or "shown to be on" in text]


def test_all_claims_of_a_page_are_one_family(tmp_path: Path) -> None:
    """A pair that differs by its metric alone, and not by Holm over all pairs of all metrics, is undecided everywhere.

    Of the two methods' differences in time p is 0.03, below the 4 % of a single pair and above a third of them.
    """
    seconds = {"full": [2.02, 2.3, 2.15, 2.52, 2.18], "lora": [1.9, 1.9, 2.0, 2.1, 2.1]}
    others = {"full": [0.86, 0.87, 0.88, 0.85, 0.86], "lora": [0.87, 0.86, 0.87, 0.86, 0.88]}
    own = {
        m: {"train_seconds": seconds[m], "test_accuracy": others[m], "peak_memory_mb": [1000 * v for v in others[m]]}
        for m in seconds
    }
    results = load(tmp_path, of(own))
    (pair,) = results.comparisons("train_seconds")
    assert pair.p is not None
    assert 0.04 / 3 < pair.p < 0.04
    assert pair.verdict == "undecided"
    assert statistics.decide([pair])[0].verdict == "different"
    assert "full / lora | undecided" in said("comparisons", results)
    takeaways = said("takeaways", results)
    assert (
        "lora trained fastest on average: 2.00 s; lora is not shown to be better than any other. "
        "Undecided against full" in takeaways
    )
    assert "family of 3 tested pairs" in takeaways
    assert results.ranks("train_seconds") == {"full": (1, 2), "lora": (1, 2)}
    assert {of.place for of in results.front(results.headline).values()} == {"undecided"}


def test_ranks_takeaways_and_front_follow_from_the_same_verdicts(tmp_path: Path) -> None:
    """What the table of pairs calls better is what ranks count and takeaways name."""
    results = load(tmp_path, sweep())
    for metric in results.headline:
        better = results.definitions[metric].better
        wins = [(c.winner(better), c.other(winner)) for c in results.family[metric] if (winner := c.winner(better))]
        assert results.ranks(metric) == {
            m: (1 + sum(loser == m for _, loser in wins), 5 - sum(winner == m for winner, _ in wins))
            for m in results.methods
        }
    adjusted = multipletests([c.p for of in results.family.values() for c in of], method="holm")[1] / 0.8
    assert [c.p_adjusted for of in results.family.values() for c in of] == pytest.approx(list(np.minimum(1, adjusted)))


def test_pairs_say_what_their_intervals_and_metrics_are(tmp_path: Path) -> None:
    """Intervals of pairs are said to be unadjusted, and the metrics that are compared are named."""
    results = load(tmp_path, sweep(["lora", "full"]))
    text, made = said("comparisons", results), section("comparisons", results)
    assert "Each 95 % interval is its own pair's, not adjusted for their number" in text
    assert "Compared by accuracy, training time and peak memory alone; the other metrics" in text
    assert [block.name for block in made.blocks if isinstance(block, Table)] == [  # type: ignore[union-attr]
        "intervals", "pairs_test_accuracy", "pairs_train_seconds", "pairs_peak_memory_mb", "pairs_on_these_rows",
        "crossed",
    ]  # fmt: skip


def test_memory_over_set_up_is_compared_where_it_is_measured(tmp_path: Path) -> None:
    """Net of set-up where that is measured, else the peak: one of the two memories is in the family."""
    net = made_records._metric("peak_memory_over_setup_mb", "memory over set-up", "MB", "lower", spec=",.0f")
    made = [
        with_metrics(r, peak_memory_over_setup_mb=50.0 + r.spec.seed).model_copy(
            update={"definitions": (*r.definitions, net)}
        )
        for r in sweep(["lora", "full"], 3)
    ]
    assert load(tmp_path / "net", made).headline == ("test_accuracy", "train_seconds", "peak_memory_over_setup_mb")
    assert load(tmp_path / "peak", sweep(["lora"], 3)).headline == ("test_accuracy", "train_seconds", "peak_memory_mb")


def test_the_table_on_these_rows_is_labelled(tmp_path: Path) -> None:
    """The paired t over seeds on these very rows stands apart, with Holm over its pairs, and calls no one better."""
    results = load(tmp_path, sweep())
    made = section("comparisons", results)
    assert made
    table = next(b for b in made.blocks if isinstance(b, Table) and b.name == "pairs_on_these_rows")
    assert "For other seeds on these 1,000 test rows alone" in table.notes[0]
    assert not any("better" in cell for row in table.rows for cell in row)
    assert table.values is not None
    p = [
        statistics.paired_t([of_a[s] - of_b[s] for s in of_a], grid=1 / 1000)
        for of_a, of_b in combinations(results.values("test_accuracy").values(), 2)
    ]
    assert [row[4] for row in table.values] == pytest.approx(p)
    assert [row[5] for row in table.values] == pytest.approx(list(multipletests(p, method="holm")[1]))


def test_equal_costs_tell_no_spread(tmp_path: Path) -> None:
    """Five equal factors of memory on no known grid tell no spread: undecided, and no number of seeds is named."""
    memory = {"lora": [500.0] * 5, "full": [600.0] * 5}
    results = load(tmp_path, of({method: {"peak_memory_mb": values} for method, values in memory.items()}))
    row = next(line for line in said("comparisons", results).splitlines() if line.startswith("full / lora | undecided"))
    assert row.startswith("full / lora | undecided | 1.200 | – | 0.062 |")
    assert "10,000" not in row
    text = said("takeaways", results)
    assert "Undecided against full (5 seeds don't tell its spread" in text
    assert "over 10,000 would decide" not in text


def test_a_known_grid_tells_equal_costs_apart(tmp_path: Path) -> None:
    """Where the memory's grid is known, five equal factors differ by no less than what the grid leaves open."""
    memory = {"lora": [500.0] * 5, "full": [600.0] * 5}
    definitions = tuple(
        m.model_copy(update={"grid": 0.004}) if m.name == "peak_memory_mb" else m for m in made_records.DEFINITIONS
    )
    made = of({method: {"peak_memory_mb": values} for method, values in memory.items()})
    results = load(tmp_path, [r.model_copy(update={"definitions": definitions}) for r in made])
    assert (
        "lora needed the least memory on average: 500 MB; full took 1.200 times [1.200, 1.200] as much as lora."
        in said("takeaways", results)
    )


def test_costs_of_zero_are_compared_in_their_unit(tmp_path: Path) -> None:
    """Where a cost is 0 there is no factor: differences in its unit stand instead."""
    memory = {"lora": [5.0, 5.1, 5.2, 5.0, 5.1], "full": [0.0] * 5}
    results = load(tmp_path, of({method: {"peak_memory_mb": values} for method, values in memory.items()}))
    assert (
        "full needed the least memory on average: 0.00 MB; full is better than lora by 5.08 MB [4.98, 5.18]."
        in said("takeaways", results)
    )
    assert "full − lora | full is better | −5.08 | [−5.18, −4.98]" in said("comparisons", results)


MACHINE_FREE = {
    "grad_norm", "grad_norm_per_sqrt_parameter", "skipped_steps", "trainable_parameters", "head_parameters",
    "total_parameters",
    "trainable_percent", "frozen_bf16_percent", "frozen_bytes", "timed_steps", "virtual_tokens", "saved_bytes",
    "allreduced_bytes_per_step", "within_nodes_bytes_per_step", "between_nodes_bytes_per_step",
    "forgetting", "retention_loss", "base_retention_loss",
    "merged_test_loss", "merged_test_score", "merged_answers_changed", "merged_logit_difference",
    "dequantized_test_loss", "dequantized_test_score", "dequantized_answers_changed", "dequantized_bytes",
}  # fmt: skip


def test_shares_of_time_depend_on_the_machine() -> None:
    """Of probes these metrics alone may be ranked over several machines, of tasks all; no share of time is one."""
    metrics = [metric for name in registry.names("probes") for metric in registry.plugin("probes", name).metrics]
    assert "communication_percent" in {metric.name for metric in metrics}
    assert {metric.name for metric in metrics if not metric.depends_on_machine} == MACHINE_FREE
    of_tasks = [metric for name in registry.names("tasks") for metric in registry.plugin("tasks", name).metrics]
    assert "test_accuracy" in {metric.name for metric in of_tasks}
    assert not [metric.name for metric in of_tasks if metric.depends_on_machine]
