"""Every registered section, over results of every awkward kind; and what each section must and must not say."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recorded
from recorded import METHODS, SETTINGS, failed, metrics, record, sweep

from hpml_bench import registry
from hpml_bench.records import Consumed, Figure, MethodSpec, Point, RunRecord, Section, Table, TaskSpec, Text
from hpml_bench.report.render import write_report
from hpml_bench.report.results import Results, machine_free
from hpml_bench.suite import MethodEntry, Suite

EVIL = "<script>alert(1)</script> | a|b \n# h $x^2$ \x1b[31mred\x1b[0m `c` [l](javascript:1) & \\ \u202e % _x_ {} -->"


def measured(change: Callable[[str, float | None], float | None]) -> list[RunRecord]:
    """Return a sweep whose metrics went through `change`."""
    return [r.model_copy(update={"metrics": {k: change(k, v) for k, v in r.metrics.items()}}) for r in sweep(seeds=3)]


def without(method: str, *seeds: int) -> list[RunRecord]:
    """Return a sweep in which a method lacks seeds."""
    return [r for r in sweep() if not (r.spec.method.name == method and r.spec.seed in seeds)]


def hostile() -> list[RunRecord]:
    """Return records with everything a text field can do to a page."""
    definitions = tuple(m.model_copy(update={"title": EVIL, "definition": EVIL}) for m in recorded.DEFINITIONS)
    odd: dict[str, Any] = {
        "definitions": definitions,
        "notes": {EVIL: EVIL},
        "environment": {EVIL: [EVIL], "packages": EVIL},
    }
    return [*sweep(seeds=2, suite=EVIL, **odd), failed("lora", 9, "failed", EVIL)]


CASES: dict[str, Callable[[], list[RunRecord]]] = {
    "whole": sweep,
    "one seed": lambda: sweep(seeds=1),
    "one method": lambda: sweep(["lora"]),
    "missing seeds": lambda: without("lora", 1, 3),
    "no shared seed": lambda: [record("lora", 0), record("lora", 1), record("full", 2), record("full", 3)],
    "nothing ok": lambda: [failed(method, 0, "oom_cuda", "out of memory") for method in METHODS],
    "failed early": lambda: [failed("lora", 0, "failed", "?", protocol_id=None, digests=None, environment={})],
    "no metrics": lambda: [r.model_copy(update={"metrics": {}}) for r in sweep()],
    "NaN": lambda: measured(lambda _, value: float("nan")),
    "None": lambda: measured(lambda name, value: None if len(name) % 2 else value),
    "huge": lambda: measured(lambda name, value: 1e300 if len(name) % 2 else float("inf")),
    "zero": lambda: measured(lambda _, value: 0.0),
    "hostile text": hostile,
    "many methods": lambda: sweep([f"m{i}" for i in range(14)], 2),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Read the case's records back from a folder."""
    folder = tmp_path_factory.mktemp("results")
    curves = request.param in {"whole", "one seed", "missing seeds", "hostile text"}
    return Results.load(recorded.write(folder, CASES[request.param](), recorded.points if curves else lambda *_: []))


def load(folder: Path, records: list[RunRecord]) -> Results:
    """Write records and read them as a report does."""
    return Results.load(recorded.write(folder, records))


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
    """A lead far above the noise is claimed with its size; the method within the noise is named as not told apart."""
    text = said("takeaways", load(tmp_path, sweep()))
    assert text.startswith("full reached the highest accuracy: 87.5 %; ahead of adapter by 1.3 points [0.5, 2.1]")
    assert "It can't be told apart from lora with 5 seeds." in text
    assert "head trained fastest: 0.900 s; adapter took 2.00 times that" in text
    assert "2.03 times adapter's" in text


def test_takeaways_claim_nothing_without_a_difference(tmp_path: Path) -> None:
    """Where the methods are the same but for noise, no sentence calls one better."""
    records = sweep(["lora", "adapter", "full"])
    same = [r.model_copy(update={"metrics": metrics("lora", 10 * i)}) for i, r in enumerate(records)]
    text = said("takeaways", load(tmp_path, same))
    assert text.count("the leader can't be told") == 4
    assert "adapter, full and lora: not told apart from any other in accuracy, training time and memory." in text
    assert "best in" not in text
    assert "ahead" not in text


def test_takeaways_name_the_pairs_that_differ_without_a_leader(tmp_path: Path) -> None:
    """Where the best mean is ahead of no one, the pairs that do differ are said; few seeds are called few."""
    jumps = {"lora": [0.85, 0.95, 0.9], "full": [0.871, 0.869, 0.872], "head": [0.79, 0.789, 0.792]}
    changed = [
        r.model_copy(update={"metrics": r.metrics | {"test_accuracy": jumps[r.spec.method.name][r.spec.seed]}})
        for r in sweep(list(jumps), 3)
    ]
    text = said("takeaways", load(tmp_path, changed))
    assert "ahead of no other significantly; full is above head by 8.0" in text
    assert "3 seeds are few" in text
    assert "Holm over all 9 pairs of the 3 metrics" in text


def test_takeaways_of_runs_all_set_apart(tmp_path: Path) -> None:
    """Runs that ended well and were set apart are not called failed."""
    text = said("takeaways", load(tmp_path, sweep(["lora"], 2, consumed=None)))
    assert text.startswith("Every run that ended well was set apart")


def test_takeaways_of_a_metric_one_method_has(tmp_path: Path) -> None:
    """A metric that one method alone has is said to be its own, without a comparison."""
    records = [
        r if r.spec.method.name == "lora" else r.model_copy(update={"metrics": {"train_seconds": 1.0 + r.spec.seed}})
        for r in sweep(["lora", "full"], 3)
    ]
    assert "Accuracy was measured for lora alone: 8" in said("takeaways", load(tmp_path, records))


def test_ratios_are_over_shared_seeds(tmp_path: Path) -> None:
    """A cost's factor compares two methods in the seeds both have: a slow seed that one lacks does not enter."""
    seconds = {"lora": [9.0, 2.0, 2.0, 2.1, 2.0], "head": [1.0, 1.0, 1.05, 1.0]}
    changed = [
        r.model_copy(update={"metrics": r.metrics | {"train_seconds": seconds[r.spec.method.name].pop()}})
        for r in sorted(sweep(["lora", "head"]), key=lambda r: -r.spec.seed)
        if (r.spec.method.name, r.spec.seed) != ("head", 0)
    ]
    assert "lora took 2.00 times that" in said("takeaways", load(tmp_path, changed))


def test_takeaways_of_one_seed_rank_nothing(tmp_path: Path) -> None:
    """One seed can't tell how seeds differ: values are named, leads are not."""
    text = said("takeaways", load(tmp_path, sweep(seeds=1)))
    assert "no method is called better" in text
    assert "ahead" not in text
    assert "rank" not in said("summary", load(tmp_path, sweep(seeds=1)))


def test_unequal_consumption_is_set_apart(tmp_path: Path) -> None:
    """A run that consumed fewer samples than the rest of its seed enters no mean, and the difference is named."""
    short = Consumed(steps=90, samples=1440, real_tokens=38_000, padded_tokens=43_000, order=f"{0:064x}")
    results = load(tmp_path, [*sweep(["lora", "full"]), record("adapter", 0, consumed=short)])
    assert results.methods == ("full", "lora")
    assert "steps 90 instead of 100, samples 1440 instead of 1600" in said("failures", results)


def test_other_protocols_are_set_apart(tmp_path: Path) -> None:
    """Runs of another protocol are counted apart with the setting that differs, and their values reach no table."""
    other = SETTINGS.model_copy(update={"train_samples": 512, "task": TaskSpec(name="newswire", options={"p": 0.5})})
    results = load(tmp_path, [*sweep(), *sweep(["lora"], 2, settings=other)])
    assert len(results.compared) == 25
    text = said("failures", results)
    assert "train_samples 512 instead of 1024" in text
    assert "task.options.p 0.5 instead of 0.6" in text


def test_newest_protocol_wins_a_tie(tmp_path: Path) -> None:
    """Of two protocols with as many ok runs the newer one is the report's."""
    other = SETTINGS.model_copy(update={"train_samples": 512})
    newer = sweep(["lora"], 2, settings=other, started="2027-01-01T00:00:00+00:00")
    assert load(tmp_path, [*sweep(["lora"], 2), *newer]).reference.spec.settings.train_samples == 512


def test_mixed_hardware_gives_no_ranking_of_cost(tmp_path: Path) -> None:
    """Runs of two machines are compared in accuracy; their times are shown without ranks, pairs or leads."""
    elsewhere = recorded.ENVIRONMENT | {"fingerprint": "another"}
    results = load(tmp_path, [*sweep(["lora", "full"]), *sweep(["head"], environment=elsewhere)])
    takeaways, comparisons = said("takeaways", results), section("comparisons", results)
    assert "training time, peak memory and throughput are not ranked" in takeaways
    assert "reached the highest accuracy" in takeaways
    assert "trained fastest" not in takeaways
    assert comparisons
    assert [block.name for block in comparisons.blocks if isinstance(block, Table)] == [
        "intervals",
        "pairs_test_accuracy",
    ]


def test_missing_seeds_are_said(tmp_path: Path) -> None:
    """A method that lacks seeds says so beneath the summary."""
    assert "lora lacks seed 1, 3." in said("summary", load(tmp_path, without("lora", 1, 3)))


def test_methods_stand_in_the_suites_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables list methods as the packaged suite does, and unknown ones after them."""
    suite = Suite(name="example", settings=SETTINGS, methods={"lora": MethodEntry(), "full": MethodEntry()})
    monkeypatch.setattr("hpml_bench.report.selection.packaged_suites", lambda: ("example",))
    monkeypatch.setattr("hpml_bench.report.selection.load_suite", lambda _: suite)
    assert load(tmp_path, sweep(["adapter", "full", "lora"], 2)).methods == ("lora", "full", "adapter")


def test_one_name_with_two_specifications_is_two_methods(tmp_path: Path) -> None:
    """Runs of one method name with other options are not averaged: each is called by what differs."""
    wide = MethodSpec(name="lora", method="lora", options=recorded.OPTIONS["lora"] | {"r": 16}, lr=3e-3)
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
    recorded.write(tmp_path, sweep(["lora"]))
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
    course = [Point(metric="validation_accuracy", step=0, value=0.9), *recorded.points("lora", 0)]
    results = Results.load(recorded.write(tmp_path, sweep(["lora"], 1), lambda *_: course))
    reached = registry.get("sections", "time_to_accuracy").reached
    assert reached(results, results.compared[0], 0.85) == (0.0, 0.0)


def test_the_chart_says_that_no_lead_is_real(tmp_path: Path) -> None:
    """Where no difference is significant the chart of cost and accuracy says so beneath its rings."""
    for seeds, real in ((1, False), (5, True)):
        made = section("cost_accuracy", load(tmp_path / str(seeds), sweep(["lora", "head"], seeds)))
        captions = [block.caption for block in made.blocks if isinstance(block, Figure)] if made else []
        assert captions
        assert all(("None of these leads is significant" in caption) != real for caption in captions)


def test_error_bars_are_those_of_the_interval() -> None:
    """An interval that reaches further to one side is drawn so."""
    from hpml_bench.report.figures import _arms
    from hpml_bench.statistics import Interval

    assert _arms(Interval(40, 2.0, 1.0, 1.5, 3.0), 10) == [[5.0], [10.0]]
    assert _arms(Interval(1, 2.0, None, None, None), 10) == [[0.0], [0.0]]


def test_document_does_not_compare_unequal_budgets(tmp_path: Path) -> None:
    """Samples/s times runtime shows 150,000 against 120,000 samples, and the section says what follows."""
    text = said("document", load(tmp_path, sweep()))
    assert "150,000 samples for Prompt Tuning, 120,000 samples for LoRA and 120,000 samples for Adapter Tuning" in text
    assert "budgets were not equal" in text
    assert "Prompt Tuning | document | 93.88 | 0.2193 | 2,345 | 63.96 | 3,577 | 12.88 | ≈ 149,986" in text


def test_document_needs_a_shared_method(tmp_path: Path) -> None:
    """A suite with none of the document's methods has nothing beside it."""
    assert section("document", load(tmp_path, sweep(["full", "head"]))) is None


def test_dominated_methods_are_named(tmp_path: Path) -> None:
    """A method that costs significantly more without being more accurate is named with those that do as well."""
    text = said("cost_accuracy", load(tmp_path, sweep()))
    assert "full costs significantly more training time than lora without being significantly more accurate." in text


def test_probabilities_are_of_shared_seeds(tmp_path: Path) -> None:
    """Where a method has 2 of 5 seeds no probability of the front is printed; with 4 there is one; both are said."""
    few = said("cost_accuracy", load(tmp_path / "few", without("lora", 0, 1, 2)))
    assert "head | yes | too few seeds |" in few
    assert "all methods share 2 of 5 seeds" in few
    enough = said("cost_accuracy", load(tmp_path / "enough", without("lora", 0)))
    assert "head | yes | 100 |" in enough
    assert "all methods share 4 of 5 seeds" in enough
    assert "lack seeds" not in said("cost_accuracy", load(tmp_path / "whole", sweep()))


def test_a_sentence_of_several_metrics_takes_holm_over_all(tmp_path: Path) -> None:
    """A pair that differs by its own metric's Holm but not by that over all a sentence cites is in no such sentence.

    Of the two methods' differences in time p is 0.03; it is above 5 % in a family of two metrics or three.
    """
    seconds = {"full": [2.02, 2.3, 2.15, 2.52, 2.18], "lora": [1.9, 1.9, 2.0, 2.1, 2.1]}
    others = {"full": [0.86, 0.87, 0.88, 0.85, 0.86], "lora": [0.87, 0.86, 0.87, 0.86, 0.88]}
    records = []
    for r in sweep(list(seconds)):
        method, seed = r.spec.method.name, r.spec.seed
        accuracy = others[method][seed]
        own = {"train_seconds": seconds[method][seed], "test_accuracy": accuracy, "peak_memory_mb": 1000 * accuracy}
        records.append(r.model_copy(update={"metrics": r.metrics | own}))
    results = load(tmp_path, records)
    (pair,) = results.comparisons("train_seconds")
    assert pair.p_adjusted is not None
    assert 0.025 < pair.p_adjusted < 0.05
    assert "full − lora | lora is better" in said("comparisons", results)
    takeaways = said("takeaways", results)
    assert "lora trained fastest" in takeaways
    assert "full and lora: not told apart from any other in accuracy, training time and memory." in takeaways
    assert "full costs significantly more" not in said("cost_accuracy", results)


def test_pairs_say_what_their_intervals_and_metrics_are(tmp_path: Path) -> None:
    """Intervals of pairs are said to be unadjusted, and the metrics that are compared are named."""
    text = said("comparisons", load(tmp_path, sweep(["lora", "full"])))
    assert "Each 95 % interval is its own pair's and not adjusted for the number of pairs" in text
    assert "Compared by accuracy, training time, throughput and peak memory alone; the other metrics" in text


def test_equal_differences_detect_nothing(tmp_path: Path) -> None:
    """Five equal differences of a point can't be told from none, and what is detectable is a dash, not zero."""
    values = {"lora": [0.81, 0.82, 0.83, 0.84, 0.85], "full": [0.8, 0.81, 0.82, 0.83, 0.84]}
    records = [
        r.model_copy(update={"metrics": r.metrics | {"test_accuracy": values[r.spec.method.name][r.spec.seed]}})
        for r in sweep(list(values))
    ]
    text = said("comparisons", load(tmp_path, records))
    row = next(line for line in text.splitlines() if line.startswith("full − lora"))
    assert row.startswith("full − lora | can't tell | −1.0 |")
    assert row.endswith("| – | –")


MACHINE_FREE = {
    "grad_norm", "grad_norm_per_sqrt_parameter", "trainable_parameters", "head_parameters", "total_parameters",
    "trainable_percent", "frozen_bf16_percent", "train_loss", "test_loss", "test_accuracy", "test_macro_f1",
    "timed_steps",
}  # fmt: skip


def test_shares_of_time_depend_on_the_machine() -> None:
    """Of all metrics of all probes these alone may be ranked over several machines: no share of time is among them."""
    metrics = [metric for name in registry.names("probes") for metric in registry.get("probes", name).metrics]
    assert "communication_percent" in {metric.name for metric in metrics}
    assert {metric.name for metric in metrics if machine_free(metric)} == MACHINE_FREE
