"""The auditor (`benchmarks/recompute.py`) agrees with the package's pages, and finds single changed figures."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audit import answers, command, reading, rows, steps
from click.testing import CliRunner

from helpers import made_records, made_task_records, plugin_tasks
from hpml_bench import registry
from hpml_bench.cli import main
from hpml_bench.plugins.scorer import make_scorer
from hpml_bench.records.run import Digests, RunRecord, protocol_id
from hpml_bench.suite.settings import RunSpec

ROOT = Path(__file__).parents[2]


def remade(target: Path) -> Path:
    """Copy the reference's records and let the package make its page of them."""
    shutil.copytree(ROOT / "reports/reference/quickstart", target, ignore=shutil.ignore_patterns("figures", "report.*"))
    return report(target)


def report(folder: Path) -> Path:
    """Let the package make a folder's page."""
    result = CliRunner().invoke(main, ["report", str(folder), "--format", "md"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def remade_quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reference with its page remade."""
    return remade(tmp_path_factory.mktemp("recompute") / "quickstart")


@pytest.fixture(scope="module")
def study(remade_quickstart: Path) -> object:
    """Return what the auditor makes of the records."""
    return reading.read_study(remade_quickstart)


@pytest.mark.parametrize("name", registry.names("scorers"))
def test_scores_are_counted_a_second_time(name: str) -> None:
    """Each scorer of the package has one in the auditor, which gives the same scores."""
    tables = [
        json.loads((ROOT / f"tests/files/{file}.json").read_text()) for file in ("peft_metamath", "lm_eval_gsm8k")
    ]
    texts = [text for table in tables for text in (*table["answers"], *table["expected"])]
    texts += [
        "3/2",
        "12:30",
        "x = 1.5",
        r"\frac{3}{2}",
        r"1\frac{1}{2} of 1,000 1/4",
        "-1 1/2",
        r"\frac{-3}{2} or 2 5/4",
        "10 \u2212 5 \u22125",
        "1e3 m",
        "år",
        "är",
        "東京です。",
        "京都です",
        "ไทย ฿5",
        "café",
        "Cafe\u0301",
    ]
    scorer = make_scorer(name)
    for answer, expected in itertools.product(texts, texts):
        assert answers.SCORERS[name](answer, expected) == pytest.approx(scorer.score(answer, expected)), (
            answer,
            expected,
        )


def test_it_imports_nothing_of_the_package() -> None:
    """A second implementation shares no code with the first."""
    files = [ROOT / "benchmarks/recompute.py", *(ROOT / "benchmarks/audit").glob("*.py")]
    assert len(files) > 10
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not [name for name in imported if name.startswith("hpml")], file


def test_it_finds_nothing_wrong(remade_quickstart: Path, study: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure of the remade page is what the records give; no takeaway is left unread."""
    audit = command.audit_page(study, remade_quickstart / "report.md")
    assert audit.problems == []
    assert audit.checked.total() > 1500
    assert not [line for line in audit.unchecked if "no way to check" in line or "Key takeaways" in line]
    assert command.main([str(remade_quickstart)], "") == 0
    assert f"{remade_quickstart}: {audit.checked.total()} figures checked, 0 disagree" in capsys.readouterr().out


@pytest.mark.parametrize("seeds", [5, 1])
def test_it_knows_groups_of_rows(tmp_path: Path, seeds: int) -> None:
    """A page whose test rows are in groups is recomputed by group, with one seed too."""
    folder = made_records.write(tmp_path / "grouped", made_records.sweep(seeds=seeds))
    (folder / "suite.json").write_text((ROOT / "reports/reference/quickstart/suite.json").read_text())
    for place in sorted(path.parent for path in folder.glob("*/predictions.parquet")):
        frame = pd.read_parquet(place / "predictions.parquet")
        frame["group"] = np.repeat(np.arange(200), np.resize((1, 9), 200)).astype(np.int32)
        frame.to_parquet(place / "predictions.parquet", index=False)
        record = json.loads((place / "run.json").read_text())
        record["files"]["predictions.parquet"] = hashlib.sha256(
            (place / "predictions.parquet").read_bytes()
        ).hexdigest()
        (place / "run.json").write_text(json.dumps(record))
    audit = command.audit_page(reading.read_study(report(folder)), folder / "report.md")
    named = [problem for problem in audit.problems if "test rows" in str(problem) or "Pairs" in str(problem)]
    assert named == []
    assert not [line for line in audit.unchecked if "test rows in" in line]


PAIRS = "Which differences are real"
CHANGES = {
    "a mean": (r"(\| lora \| 78\.)9", r"\g<1>8", "Summary"),
    "a deviation": (r"(\| full \| 79\.0 ± 0\.)6", r"\g<1>7", "Summary"),
    "a rank": (r"(\| adapter \| 75\.3 [^|]*rank )3–4", r"\g<1>3", PAIRS),
    "an end of an interval": (r"(\| head \| 72\.5 \\\[)72\.0", r"\g<1>72.1", PAIRS),
    "a verdict": (r"(\| lora − adapter \| )lora is better", r"\1undecided", PAIRS),
    "another verdict": (r"(\| lora − full \| )undecided", r"\1full is better", PAIRS),
    "a p": (r"(\| lora − full \| undecided .*? )0\.831", r"\g<1>0.832", PAIRS),
    "a small p": (r"(\| full − head \| full is better .*? )&lt; 0\.001", r"\g<1>0.001", PAIRS),
    "a detectable difference": (r"(\| lora − full \|.*? )3\.7 \| none", r"\g<1>3.8 | none", PAIRS),
    "seeds to decide": (r"(\| lora / prompt_tuning \| undecided .* )72 \|", r"\g<1>73 |", PAIRS),
    "a sign-flip p": (r"(\| lora − full \| −0\.1 .*)0\.875", r"\g<1>0.750", PAIRS),
    "the pairs of the family": (r"one family of 30 tested", "one family of 29 tested", "Key takeaways"),
    "a count at the head": ("25 compared", "24 compared", "head"),
    "a count beside it": ("25 compared", "25 compared, 1 set apart", "head"),
    "a sentence's factor": (r"took 1\.30 times", "took 1.31 times", "Key takeaways"),
    "a sentence's difference": (r"(\*\*head\*\* by 6\.)5 points", r"\g<1>4 points", "Key takeaways"),
    "a sentence's leader": (r"- \*\*full\*\* has the highest", "- **lora** has the highest", "Key takeaways"),
    "a claim left out": (r"\*\*adapter\*\* by 3\.7 points \\\[2\.2, 5\.3\\\] and ", "", "Key takeaways"),
    "a whole takeaway left out": (r"- Under-trained: .*\n", "", "Key takeaways"),
    "a method that is decided": (r"Undecided against \*\*lora\*\*", "Undecided against **head**", "Key takeaways"),
    "a place on the front": (r"on it: \*\*adapter\*\*, ", "on it: **lora**, ", "Key takeaways"),
    "a place in a table": (r"(\| adapter \| )on \|", r"\g<1>off |", "Cost against accuracy"),
    "what guessing gives": (r"gets 25\.0 %", "gets 25.1 %", "Key takeaways"),
    "under-trained runs": (r"(before, for \*\*lora\*\* \()3 of 5", r"\g<1>2 of 5", "Key takeaways"),
    "time to accuracy": (r"never \(2 of 5\)", "never (1 of 5)", "Time to accuracy"),
    "a share of time": (r"(\| lora \| 5 \| 37\.5 \| 20\.)2", r"\g<1>3", "Time budget"),
    "a count of parameters": (r"\| 65,536 \|", "| 65,537 |", "Parameters and gradients"),
    "tokens": (r"33,923–34,086", "33,923–34,087", "Protocol"),
    "a row left out": (r"\| lora − head \| lora is better .*\n", "", PAIRS),
    "the pairs of both adjustments": (r"over all 30 tested pairs", "over all 29 tested pairs", PAIRS),
    "a peak that isn't ranked": (r"(the whole process, not ranked, is )520\.5", r"\g<1>520.6", "Key takeaways"),
    "whose costs": (r"other seeds on vm;", "other seeds on n1;", "Key takeaways"),
    "the data of a tuning": (r"rows of other data, which may hold test rows of these runs",
                             "rows, never on the test rows", "Learning rates and their tuning"),
    "what a tuning started from": (r"other data\.", "other weights.", "Learning rates and their tuning"),
    "the rows of a target": ("are of 256 validation rows", "are of 256,000 validation rows", "Time to accuracy"),
    "a figure's description": (r"(against step\. lora ends at 0\.36)1", r"\g<1>2", "Training curves"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_it_finds_a_changed_figure(name: str, remade_quickstart: Path, study: object, tmp_path: Path) -> None:
    """One figure of the page is changed; the auditor names the section that it stands in."""
    pattern, new, section = CHANGES[name]
    text, count = re.subn(pattern, new, (remade_quickstart / "report.md").read_text(encoding="utf-8"), count=1)
    assert count == 1
    page = tmp_path / "report.md"
    page.write_text(text, encoding="utf-8")
    problems = command.audit_page(study, page).problems
    assert problems
    assert all(problem.startswith((f"{section} |", "Sentences |")) for problem in problems)


@pytest.mark.parametrize(("pattern", "new"), [
    ("Both Holm adjustments are over all 30 tested pairs", "Both Holm adjustments are over the page's 30 pairs"),
    ("For other seeds on these 1,000 test rows alone", "On these 1,000 test rows, for other seeds"),
    ("Training and evaluation are", "Of it training and evaluation take"),
    ("Rates were tried on 256", "Tried were rates on 256"),
])  # fmt: skip
def test_a_rule_that_no_sentence_meets_fails(
    pattern: str, new: str, remade_quickstart: Path, study: object, tmp_path: Path
) -> None:
    """A sentence in other words, which no rule reads any more, is no sentence that is right."""
    text = (remade_quickstart / "report.md").read_text(encoding="utf-8")
    assert text.count(pattern) == 1
    page = tmp_path / "report.md"
    page.write_text(text.replace(pattern, new), encoding="utf-8")
    assert [p for p in command.audit_page(study, page).problems if p.startswith("Sentences | rules |")]


def test_an_unknown_takeaway_is_named(remade_quickstart: Path, study: object, tmp_path: Path) -> None:
    """A sentence that is not recognised is reported as unchecked, also where only its end is new."""
    text = (remade_quickstart / "report.md").read_text(encoding="utf-8")
    for old, new in (
        ("- Guessing", "- **lora** wins.\n- Guessing"),
        ("Undecided against", "Far above **head**. Undecided against"),
    ):
        page = tmp_path / "report.md"
        page.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert [line for line in command.audit_page(study, page).unchecked if line.startswith("Key takeaways")]


def test_it_chooses_the_runs_by_itself(tmp_path: Path) -> None:
    """Failed, copied, edited and missing runs, and one from another machine: page and auditor leave out the same."""
    folder = remade(tmp_path / "quickstart")

    def edit(run: str, *path: str, value: object) -> None:
        file = next(folder.glob(run)) / "run.json"
        inner = record = json.loads(file.read_text(encoding="utf-8"))
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        file.write_text(json.dumps(record), encoding="utf-8")

    shutil.copytree(next(folder.glob("full-s3-*")), folder / "copy")
    shutil.rmtree(next(folder.glob("head-s4-*")))
    edit("lora-s1-*", "metrics", "test_accuracy", value=0.85)
    edit("adapter-s0-*", "consumed", "real_tokens", value=1)
    edit("prompt-tuning-s2-*", "status", value="failed")
    edit("head-s0-*", "environment", "packages", "torch", value="2.0")
    problems = command.audit_page(reading.read_study(folder), folder / "report.md").problems
    assert any("25 compared" in problem for problem in problems)
    audit = command.audit_page(reading.read_study(report(folder)), folder / "report.md")
    assert audit.problems == []
    assert "20 compared, 4 set apart, 1 not ok" in (folder / "report.md").read_text(encoding="utf-8")


def test_it_leaves_out_records_that_are_not_what_they_say(tmp_path: Path) -> None:
    """Times that the points don't give, no points, a metric turned round, a copy: both leave out the same."""
    folder = remade(tmp_path / "quickstart")

    def edited(run: str, change: Callable[[dict[str, Any]], None], to: str | None = None) -> Path:
        there = next(folder.glob(run))
        if to is not None:
            there = Path(shutil.copytree(there, folder / to))
        record = json.loads((there / "run.json").read_text(encoding="utf-8"))
        change(record)
        (there / "run.json").write_text(json.dumps(record), encoding="utf-8")
        return there

    def turned(record: dict[str, Any]) -> None:
        next(item for item in record["definitions"] if item["name"] == "train_seconds")["better"] = "higher"

    edited("lora-s1-*", lambda record: record["metrics"].update(train_seconds=record["metrics"]["train_seconds"] / 10))
    edited("adapter-s0-*", lambda record: record["metrics"].update(samples_per_second=9000.0))
    (edited("full-s2-*", lambda record: record["files"].pop("points.jsonl")) / "points.jsonl").unlink()
    edited("head-s4-*", turned)
    edited("prompt-tuning-s3-*", lambda record: record["spec"].update(seed=9), to="prompt-tuning-s9-copy")
    audit = command.audit_page(reading.read_study(report(folder)), folder / "report.md")
    assert audit.problems == []
    assert "21 compared, 5 set apart" in (folder / "report.md").read_text(encoding="utf-8")


def test_it_finds_a_page_of_other_times(tmp_path: Path) -> None:
    """A page made of times that the points don't give is found, as if it had been made before they were checked."""
    folder = remade(tmp_path / "quickstart")
    for file in folder.glob("lora-*/run.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        record["metrics"]["train_seconds"] /= 10
        file.write_text(json.dumps(record), encoding="utf-8")
    problems = command.audit_page(reading.read_study(folder), folder / "report.md").problems
    assert any("25 compared" in problem for problem in problems)


def page_of(folder: Path, records: list[RunRecord], seeds: int) -> Path:
    """Return the folder of made-up records with their page."""
    made_records.write(folder, records)
    suite = {"name": "example", "seeds": seeds, "methods": dict.fromkeys(sorted(made_records.METHODS))}
    (folder / "suite.json").write_text(json.dumps(suite))
    return report(folder)


def on(host: Callable[[RunRecord], str], records: list[RunRecord]) -> list[RunRecord]:
    """Return the records as made on hosts."""
    return [item.model_copy(update={"environment": item.environment | {"hosts": [host(item)]}}) for item in records]


@pytest.mark.parametrize(("host", "words"), [
    (lambda item: f"n{item.spec.seed % 2}", "on n0 and n1, where the runs of a seed share theirs"),
    (lambda item: f"of-{item.spec.method.method}", "the runs of a seed were spread over hosts"),
    (lambda item: "n9" if item.order == 7 else "n1", "1 of 25 compared runs ran on another host"),
], ids=["a seed a host", "a method a host", "a stray run"])  # fmt: skip
def test_it_knows_the_hosts(host: Callable[[RunRecord], str], words: str, tmp_path: Path) -> None:
    """Costs of a seed on one host, or of none ranked: page and auditor take the same."""
    folder = page_of(tmp_path / "hosts", on(host, made_records.sweep()), 5)
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert words in page
    assert page_problems(folder) == []
    (folder / "other.md").write_text(page.replace("n1", "n7").replace("of-lora", "of-none"), encoding="utf-8")
    assert page_problems(folder, folder / "other.md")


def test_it_recomputes_what_checkpointing_costs(tmp_path: Path) -> None:
    """Ratio and saving with their intervals, of the pairs that share a seed; one lone run is set apart."""
    again = made_records.SETTINGS.model_copy(update={"gradient_checkpointing": True})
    longer = [
        item.model_copy(
            update={"metrics": item.metrics | {"train_seconds": 5.0 + item.spec.seed, "peak_memory_mb": 300.0}}
        )
        for item in [*made_records.sweep(["lora"], 3, settings=again), made_records.record("lora", 8, settings=again)]
    ]
    folder = page_of(tmp_path / "both", [*made_records.sweep(seeds=4), *longer], 4)
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "20 compared, 3 with other checkpointing, 1 set apart" in page
    assert page_problems(folder) == []
    row = next(line for line in page.splitlines() if line.startswith("| lora | 3 | "))
    for cell in (5, 6, 10):
        cells = row.split(" | ")
        cells[cell - 1] = re.sub(r"\d+", "1", cells[cell - 1])
        (folder / "other.md").write_text(page.replace(row, " | ".join(cells)), encoding="utf-8")
        assert [p for p in page_problems(folder, folder / "other.md") if p.startswith("Gradient checkpointing")], cell


@pytest.mark.parametrize(("host", "counted"), [("n1", "3 on other ranks"), ("n2", "3 set apart")])
def test_it_knows_which_runs_scale(host: str, counted: str, tmp_path: Path) -> None:
    """A speed-up of runs that share a host has its interval; of runs on another host there is none."""
    one = made_records.SETTINGS.model_copy(update={"world_size": 1})
    alone = on(lambda _: host, made_records.sweep(["lora"], 3, settings=one))
    folder = page_of(tmp_path / "ranks", [*on(lambda _: "n1", made_records.sweep(seeds=4)), *alone], 4)
    assert counted in (folder / "report.md").read_text(encoding="utf-8")
    assert page_problems(folder) == []


def test_it_reads_failures_and_two_seeds(tmp_path: Path) -> None:
    """How many runs ended otherwise than well, and what the rows alone show to be above guessing."""
    bad = [made_records.failed("full", seed, status, "x") for seed, status in ((4, "diverged"), (5, "timeout"))]
    folder = page_of(tmp_path / "failed", [*made_records.sweep(seeds=4), *bad], 4)
    assert page_problems(folder) == []
    page = (folder / "report.md").read_text(encoding="utf-8")
    (folder / "other.md").write_text(page.replace("in 2 of 6 runs", "in 1 of 5 runs"), encoding="utf-8")
    assert page_problems(folder, folder / "other.md")
    folder = page_of(tmp_path / "two", made_records.sweep(seeds=2), 2)
    assert page_problems(folder) == []
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "Better than that in each of their runs, by the test rows alone" in page
    (folder / "other.md").write_text(re.sub(r"(rows alone: )\*\*\w+\*\*, ", r"\1", page), encoding="utf-8")
    assert page_problems(folder, folder / "other.md")


def test_drift() -> None:
    """Steps that follow their tokens do not drift, whatever their lengths; a tenth more at last is a tenth of drift."""
    tokens = np.random.default_rng(0).integers(200, 400, 90).astype(np.float64)
    seconds = 0.01 + 1e-4 * tokens
    assert steps.drift(seconds, tokens) == pytest.approx((1, 1, 1))
    seconds[60:] *= 1.1
    estimate, low, high = steps.drift(seconds, tokens)
    assert low <= estimate <= high
    assert estimate == pytest.approx(1.1, abs=0.01)


@pytest.fixture(scope="module", params=["rating", "naming"])
def of_task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a task that is no classification, of schema-2 records."""
    with plugin_tasks.installed(tmp_path_factory.mktemp("tasks")):
        folder = made_task_records.write(tmp_path_factory.mktemp("page") / request.param, request.param)
        (folder / "suite.json").write_text(
            json.dumps({"name": "example", "seeds": 5, "methods": dict.fromkeys(sorted(made_records.METHODS))})
        )
        return report(folder)


def page_problems(folder: Path, page: Path | None = None) -> list[str]:
    """Return what disagrees on a page; made-up records don't agree with their points."""
    audit = command.audit_page(reading.read_study(folder), page or folder / "report.md")
    return [problem for problem in audit.problems if not problem.startswith("Records |") or "scores of" in problem]


def test_it_recomputes_an_error_and_an_f1(of_task: Path) -> None:
    """Every figure of a page of RMSE, or of entity F1, is what the records give, by scores of its own."""
    assert page_problems(of_task) == []
    audit = command.audit_page(reading.read_study(of_task), of_task / "report.md")
    assert audit.checked.total() > 1300
    assert not [line for line in audit.unchecked if "no way to check" in line or "Key takeaways" in line]


CHANGES_OF_TASKS = {
    "a direction": (r"has the (?:lowest|highest) mean", "has the middle mean", "Key takeaways"),
    "a lead": (r"(is better than \*\*\w+\*\* by )[\d.]+", r"\g<1>9.99", "Key takeaways"),
    "a leader": (r"- \*\*full\*\* has the", "- **head** has the", "Key takeaways"),
    "what guessing gives": (r"(Guessing the mean of the test rows, |Tagging nothing gets )[\d.]+", r"\g<1>1.0", "head"),
    "a verdict": (r"(\| full − head \| )full is better", r"\1head is better", PAIRS),
    "an interval over rows": (r"(\| head \| 5 \| [^|]* \| [^|]* \| \\\[)[\d.]+", r"\g<1>0.0", PAIRS),
    "a target": (r"(\| method \| )[\d.]+", r"\g<1>0.01", "Time to"),
    "a rank": (r"(\| head \| [^\n]* \| )5( \| on \|)", r"\g<1>1\2", "Summary"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES_OF_TASKS)
def test_it_finds_a_changed_figure_of_a_task(name: str, of_task: Path, tmp_path: Path) -> None:
    """One figure is changed; the auditor finds it where it stands."""
    pattern, new, section = CHANGES_OF_TASKS[name]
    before, opening, after = (of_task / "report.md").read_text(encoding="utf-8").partition(f"## {section}")
    if section == "head":
        before, opening, after = "", "", before
    text, count = re.subn(pattern, new, after, count=1)
    assert count == 1
    page = tmp_path / "report.md"
    page.write_text(before + opening + text, encoding="utf-8")
    problems = page_problems(of_task, page)
    assert problems
    assert section == "head" or all(problem.startswith(section) for problem in problems)


def test_it_checks_the_scores_of_the_rows(of_task: Path, tmp_path: Path) -> None:
    """A stored score that isn't what the row's answer scores is found."""
    folder = tmp_path / of_task.name
    shutil.copytree(of_task, folder)
    run = next(folder.glob("lora-s0-*"))
    frame = pd.read_parquet(run / "predictions.parquet")
    frame.loc[0, "score"] += 0.5
    frame.to_parquet(run / "predictions.parquet", index=False)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256((run / "predictions.parquet").read_bytes()).hexdigest()
    record["files"]["predictions.parquet"] = digest
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert [problem for problem in page_problems(folder) if "scores of the rows" in problem and run.name in problem]


@pytest.fixture(scope="module", params=["some", "all"])
def of_jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a sweep by jobs on two kinds of nodes; some of its runs had neighbours, or all."""
    folder = tmp_path_factory.mktemp("jobs") / request.param
    records = []
    for item in made_records.by_jobs(made_records.sweep(seeds=6)):
        changes: dict[str, object] = {}
        if request.param == "all" or item.spec.seed == 3:
            changes["neighbours"] = ("x", "y")
        if item.spec.seed == 4:
            changes["environment"] = item.environment | {"fingerprint": "ffff00001111"}
        records.append(item.model_copy(update=changes))
    made_records.write(folder, records)
    made_records.write_jobs(folder, records)
    (folder / "suite.json").write_text(
        json.dumps({"name": "example", "seeds": 6, "methods": dict.fromkeys(sorted(made_records.METHODS))})
    )
    return report(folder)


def test_it_recomputes_what_jobs_did(of_jobs: Path) -> None:
    """Costs of the runs alone, or of none ranked; where each ran; costs by hardware; the jobs' times."""
    assert page_problems(of_jobs) == []
    audit = command.audit_page(reading.read_study(of_jobs), of_jobs / "report.md")
    assert not [line for line in audit.unchecked if "no way to check" in line or "Key takeaways" in line]
    assert {"Jobs and hosts | Costs by hardware and neighbours", "Jobs and hosts | Where the compared runs ran"} <= set(
        audit.checked
    )
    page = (of_jobs / "report.md").read_text(encoding="utf-8")
    assert ("Methods are not ranked by costs" in page) == (of_jobs.name == "all")


CHANGES_OF_JOBS = {
    "a host": (r"(\| lora \| 0 \| )n1", r"\1n2"),
    "a count of neighbours": (r"(\| head \| 3 \| [^\n]* )2 \|", r"\g<1>1 |"),
    "a cost on some hardware": (r"(\(ffff00001111\) \| \w+ \| full \| 1 \| \d)\.\d", r"\1.9"),
    "a time in the queue": (r"(6 jobs, summed: )\d+", r"\g<1>7"),
    "a time in runs": (r"queued, \d+", "queued, 8"),
    "how long it took": (r"idle; \d+", "idle; 9"),
    "how many had neighbours": (r"\d+ of 30 compared runs had neighbours", "6 of 30 compared runs had neighbours"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES_OF_JOBS)
def test_it_finds_a_changed_figure_of_jobs(name: str, of_jobs: Path, tmp_path: Path) -> None:
    """One figure of the section on jobs is changed; the auditor finds it."""
    pattern, new = CHANGES_OF_JOBS[name]
    before, opening, after = (of_jobs / "report.md").read_text(encoding="utf-8").partition("## Jobs and hosts")
    text, count = re.subn(pattern, new, after, count=1)
    assert count == 1
    page = tmp_path / "report.md"
    page.write_text(before + opening + text, encoding="utf-8")
    assert page_problems(of_jobs, page)


def test_an_id_of_schema_1_stands_for_one_protocol(remade_quickstart: Path, study: object, tmp_path: Path) -> None:
    """The report makes these ids anew: another one in one place of the page is found."""
    text = (remade_quickstart / "report.md").read_text(encoding="utf-8")
    known = re.search(r"- Protocol (\w{12}):", text)
    assert known
    page = tmp_path / "report.md"
    page.write_text(text.replace(known[0], "- Protocol 0123456789ab:"), encoding="utf-8")
    problems = command.audit_page(reading.read_study(remade_quickstart), page).problems
    assert [problem for problem in problems if problem.startswith("Protocol |")]


@pytest.mark.parametrize(("words", "found"), [
    ("O B-A I-A O", {(1, 2, "A")}),
    ("I-A I-A I-B B-B", {(0, 1, "A"), (2, 2, "B"), (3, 3, "B")}),
    ("B-A O I-A", {(0, 0, "A"), (2, 2, "A")}),
    ("O O", set()),
])  # fmt: skip
def test_entities_are_those_of_conlleval(words: str, found: set[tuple[int, int, str]]) -> None:
    """One begins at B-, and at I- after O or another type."""
    names = ("O", "B-A", "I-A", "B-B", "I-B")
    row = np.array([names.index(word) for word in words.split()])
    assert rows.entities(row, names) == found


def test_a_wrong_call(tmp_path: Path) -> None:
    """Without a folder that has a page there is nothing to check, and the script says how it is called."""
    for arguments in ([], [str(tmp_path)]):
        script = [sys.executable, str(ROOT / "benchmarks/recompute.py"), *arguments]
        done = subprocess.run(script, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "python benchmarks/recompute.py" in done.stdout


def slowed(place: Path, record: dict[str, Any]) -> None:
    """Let a run have taken 1.7 times as long, in its record and in its points."""
    points = [json.loads(line) for line in (place / "points.jsonl").read_text(encoding="utf-8").splitlines()]
    for point in points:
        point["value"] *= 1.7 if point["metric"] == "step_seconds" else 1.0
    (place / "points.jsonl").write_text("".join(f"{json.dumps(point)}\n" for point in points), encoding="utf-8")
    record["files"]["points.jsonl"] = hashlib.sha256((place / "points.jsonl").read_bytes()).hexdigest()
    record["metrics"]["samples_per_second"] /= 1.7
    record["metrics"]["train_seconds"] *= 1.7


def test_it_recomputes_scaling_over_nodes(tmp_path: Path) -> None:
    """The reference as if over two nodes, beside runs of one method on one rank of a machine like them."""
    folder = remade(tmp_path / "quickstart")
    for file in sorted(folder.glob("*/run.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["spec"]["method"]["name"] == "lora":
            alone = shutil.copytree(file.parent, folder / f"one-{file.parent.name}") / "run.json"
            one = json.loads(json.dumps(record))
            one["spec"]["settings"]["world_size"] = 1
            spec = RunSpec.model_validate(one["spec"])
            protocol = protocol_id(spec.settings, Digests.model_validate(one["digests"]))
            one |= {"run_id": spec.run_id, "protocol_id": protocol}
            slowed(alone.parent, one)
            alone.write_text(json.dumps(one), encoding="utf-8")
        where = record["environment"]
        where |= {"node_fingerprint": where["fingerprint"], "fingerprint": "two"}
        where["hardware"] |= {"nodes": 2, "ranks_per_node": [1, 1], "interconnect": "eth0"}
        record["metrics"] |= {"within_nodes_bytes_per_step": 0.0, "between_nodes_bytes_per_step": 8000.0}
        file.write_text(json.dumps(record), encoding="utf-8")
    audit = command.audit_page(reading.read_study(report(folder)), folder / "report.md")
    assert audit.problems == []
    (row,) = [line for line in (folder / "report.md").read_text(encoding="utf-8").splitlines() if "| 2 × 1 |" in line]
    assert "| 1.70 | \\[1.70, 1.70\\] | 85 |" in row
    page = (folder / "report.md").read_text(encoding="utf-8")
    (folder / "report.md").write_text(page.replace(row, row.replace("[1.70, ", "[1.60, ")), encoding="utf-8")
    problems = command.audit_page(reading.read_study(folder), folder / "report.md").problems
    assert [problem for problem in problems if problem.startswith("Scaling over ranks")]
    assert row.endswith("| 0 | 8,000 |")
