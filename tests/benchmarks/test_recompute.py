"""The auditor (`benchmarks/recompute.py`) agrees with the package's answers and tables, and finds changed figures."""

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
from audit import answer, answers, command, over_suites, reading, rows, steps, tables
from audit.page import EXACT, Audit, Table, read_table
from audit.study import Study

from helpers import made_records, made_task_records, plugin_tasks
from helpers.without_charts import without_charts
from hpml_bench.plugins.scorer import make_scorer
from hpml_bench.records.run import Digests, RunRecord, protocol_id
from hpml_bench.report.answer.model import Answer
from hpml_bench.report.render import load, page_over, write_page, write_report
from hpml_bench.suite import registry
from hpml_bench.suite.settings import DatasetSpec, RunSpec

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reports/reference/quickstart"


def remade(target: Path) -> Path:
    """Copy the reference's records and let the package make its page of them."""
    shutil.copytree(REFERENCE, target, ignore=shutil.ignore_patterns("figures", "tables", "report.*"))
    return report(target)


def report(folder: Path) -> Path:
    """Let the package make a folder's answer and tables."""
    with without_charts():
        write_report(folder, None, ("md", "csv"))
    return folder


def answer_in(folder: Path) -> Any:
    """Return a folder's answer as it lies there."""
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def problems_in(folder: Path) -> list[str]:
    """Return what disagrees; made-up records don't agree with their points."""
    problems = command.audit_page(reading.read_study(folder), folder).problems
    return [problem for problem in problems if not problem.startswith("Records |") or "scores of" in problem]


def changed(value: Any) -> Any:
    """Return a leaf of an answer changed by as little as must be found."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, str):
        last = re.search(r"\d(?=\D*$)", value)
        return f"{value[: last.start()]}{(int(last[0]) + 5) % 10}{value[last.end() :]}" if last else "?"
    if isinstance(value, float):
        return value * (1 + 1e-5) or 1e-3
    return value + 1 if isinstance(value, int) else ["?"]


def unfound_leaves(study: Study, given: Any) -> list[str]:
    """Return the paths of a study's answer at which a change goes unfound."""
    return unfound(answer.answer_of(study), given)


def unfound(recomputed: Any, given: Any) -> list[str]:
    """Return the paths of an answer at which a change goes unfound."""
    expected = dict(answer.leaves(recomputed))
    return [path for path, value in answer.leaves(given) if answer.same(changed(value), expected[path])]


KEYS_AND_WORDS = {"Meaning", "Asked", "Metric", "Log", "Hardware", "Neighbours"}
"""Columns of words, and of what names a row."""


def unfound_cells(study: Study, table: Table) -> list[str]:
    """Return the columns of a table in which a changed figure goes unfound: of each column the last one."""
    unfound = []
    for at, column in enumerate(table.header[1:], 1):
        found = [row for row, cells in enumerate(table.rows) if re.search(r"\d", cells[at])]
        if not found or column in KEYS_AND_WORDS:
            continue
        audit, rows = Audit(), [list(cells) for cells in table.rows]
        cell = rows[found[-1]][at]
        rows[found[-1]][at] = f"{changed(float(cell)):.11e}" if EXACT.fullmatch(cell) else changed(cell)
        tables.check_table(audit, Table(table.name, table.header, rows), study)
        unfound += [] if audit.problems else [f"{table.name} | {column}: {cell} as {rows[found[-1]][at]}"]
    return unfound


@pytest.fixture(scope="module")
def remade_quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reference with its page remade."""
    return remade(tmp_path_factory.mktemp("recompute") / "quickstart")


@pytest.fixture(scope="module")
def study(remade_quickstart: Path) -> Study:
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
    for said, expected in itertools.product(texts, texts):
        assert answers.SCORERS[name](said, expected) == pytest.approx(scorer.score(said, expected)), (said, expected)


def test_it_imports_nothing_of_the_package() -> None:
    """A second implementation shares no code with the first."""
    files = [ROOT / "benchmarks/recompute.py", *(ROOT / "benchmarks/audit").glob("*.py")]
    assert len(files) > 10
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not [name for name in imported if name.startswith("hpml")], file


def test_it_finds_nothing_wrong(remade_quickstart: Path, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure of answer and tables is what the records give."""
    audit = command.audit_page(study, remade_quickstart)
    assert audit.problems == []
    assert audit.checked.total() > 3000
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
    assert problems_in(report(folder)) == []
    assert "groups" in answer_in(folder)["rows_text"]


@pytest.mark.parametrize(("largest", "used"), [(0.3, True), (0.2, False)])
def test_it_knows_a_declared_largest_difference(largest: float, used: bool, tmp_path: Path) -> None:
    """Rows of ROUGE-L that keep to it are tested by it; where a row doesn't, by the range."""
    folder = tmp_path / "faq"
    shutil.copytree(REFERENCE.parent / "faq", folder, ignore=shutil.ignore_patterns("figures", "tables", "report.*"))
    for path in folder.glob("*/run.json"):
        margin = {"quality": None, "cost": 0.05, "largest_difference": largest}
        record = json.loads(path.read_text(encoding="utf-8")) | {"declared": {"seeds": 3, "margin": margin}}
        path.write_text(json.dumps(record), encoding="utf-8")
    assert load(report(folder)).difference_span == pytest.approx(largest if used else 1.0)
    assert problems_in(folder) == []


@pytest.mark.parametrize("field", Answer.model_fields)
def test_it_finds_a_changed_leaf(field: str, remade_quickstart: Path, study: Study) -> None:
    """Every leaf of the answer is held: a change of any is found, of real numbers one of a hundred thousandth."""
    assert unfound_leaves(study, {field: answer_in(remade_quickstart)[field]}) == []


@pytest.mark.parametrize("name", sorted(path.stem for path in (REFERENCE / "tables").glob("*.csv")))
def test_it_finds_a_changed_cell(name: str, remade_quickstart: Path, study: Study) -> None:
    """A changed figure in any column of any table is found."""
    assert unfound_cells(study, read_table(remade_quickstart / "tables" / f"{name}.csv")) == []


@pytest.mark.parametrize("name", ["chat", "tagging", "regression"])
def test_it_finds_changes_of_other_tasks(name: str) -> None:
    """The committed answer and tables of a language model, of tags and of numbers: none disagrees, any change does."""
    folder = REFERENCE.parent / name
    study = reading.read_study(folder)
    assert command.audit_page(study, folder).problems == []
    assert unfound_leaves(study, answer_in(folder)) == []
    read = map(read_table, sorted((folder / "tables").glob("*.csv")))
    assert [line for table in read for line in unfound_cells(study, table)] == []


def test_it_names_what_no_rule_covers(remade_quickstart: Path, study: Study) -> None:
    """A new leaf, a new column and a new table with figures fail by their path; a leaf or a row left out does, too."""
    audit, given = Audit(), answer_in(remade_quickstart)
    given["setup"]["watts"] = 3.5
    del given["methods"][0]["v"]["score"]["lo"]
    answer.check_answer(audit, given, study)
    assert [problem.partition(":")[0] for problem in audit.problems] == [
        "report.json | setup.watts",
        "report.json | methods.0.v.score.lo",
    ]
    audit, memory = Audit(), read_table(remade_quickstart / "tables" / "memory.csv")
    tables.check_table(audit, Table("memory", [*memory.header, "Watts"], [[*row, "3.5"] for row in memory.rows]), study)
    tables.check_table(audit, Table("watts", ["Host", "Watts"], [["vm", "3.5"]]), study)
    assert len(audit.problems) == 6
    audit, summary = Audit(), read_table(remade_quickstart / "tables" / "summary.csv")
    tables.check_table(audit, Table("summary", summary.header, summary.rows[1:]), study)
    assert [problem for problem in audit.problems if "| rows" in problem]
    audit = Audit()
    tables.check_tables(audit, [], study)
    assert len(audit.problems) == 5


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
    assert any(problem.startswith("report.json | runs:") for problem in problems_in(folder))
    assert command.audit_page(reading.read_study(report(folder)), folder).problems == []
    assert (answer_in(folder)["runs"], answer_in(folder)["planned"]) == (20, 21)


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
    assert command.audit_page(reading.read_study(report(folder)), folder).problems == []
    assert answer_in(folder)["runs"] == 21


def test_it_knows_a_tuning_in_other_settings(tmp_path: Path) -> None:
    """Answer and auditor say the same."""
    folder = remade(tmp_path / "quickstart")
    tuned = json.loads((ROOT / "benchmarks/tuning/quickstart.json").read_text(encoding="utf-8"))
    tuned["settings"]["max_length"] = 48
    (folder / "tuning").mkdir()
    (folder / "tuning/trials.json").write_text(json.dumps(tuned), encoding="utf-8")
    assert "report.json | setup.rates" in " ".join(problems_in(folder))
    assert "rates tuned in other settings, " in answer_in(report(folder))["setup"]["rates"]
    assert problems_in(folder) == []


def test_it_finds_a_page_of_other_times(tmp_path: Path) -> None:
    """A page made of times that the points don't give is found, as if it had been made before they were checked."""
    folder = remade(tmp_path / "quickstart")
    for file in folder.glob("lora-*/run.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        record["metrics"]["train_seconds"] /= 10
        file.write_text(json.dumps(record), encoding="utf-8")
    assert any(problem.startswith("report.json | runs:") for problem in problems_in(folder))


def page_of(folder: Path, records: list[RunRecord], seeds: int) -> Path:
    """Return the folder of made-up records with their page."""
    made_records.write(folder, records)
    suite = {"name": "example", "seeds": seeds, "methods": dict.fromkeys(sorted(made_records.METHODS))}
    (folder / "suite.json").write_text(json.dumps(suite))
    return report(folder)


def on(host: Callable[[RunRecord], str], records: list[RunRecord]) -> list[RunRecord]:
    """Return the records as made on hosts."""
    return [item.model_copy(update={"environment": item.environment | {"hosts": [host(item)]}}) for item in records]


@pytest.mark.parametrize(("host", "hosts", "unranked"), [
    (lambda item: f"n{item.spec.seed % 2}", "2 hosts", None),
    (lambda item: f"of-{item.spec.method.method}", "5 hosts", "seeds were spread over hosts"),
    (lambda item: "n9" if item.order == 7 else "n1", "n1", None),
], ids=["a seed a host", "a method a host", "a stray run"])  # fmt: skip
def test_it_knows_the_hosts(host: Callable[[RunRecord], str], hosts: str, unranked: str | None, tmp_path: Path) -> None:
    """Costs of a seed on one host, or of none ranked: answer and auditor take the same."""
    folder = page_of(tmp_path / "hosts", on(host, made_records.sweep()), 5)
    assert (answer_in(folder)["setup"]["host"], answer_in(folder)["unranked"]) == (hosts, unranked)
    assert problems_in(folder) == []


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
    assert answer_in(folder)["runs"] == 20
    assert problems_in(folder) == []
    assert unfound_cells(reading.read_study(folder), read_table(folder / "tables/checkpointing.csv")) == []


@pytest.mark.parametrize("host", ["n1", "n2"])
def test_it_knows_which_runs_scale(host: str, tmp_path: Path) -> None:
    """A speed-up of runs that share a host has its interval; of runs on another host there is none."""
    one = made_records.SETTINGS.model_copy(update={"world_size": 1})
    alone = on(lambda _: host, made_records.sweep(["lora"], 3, settings=one))
    folder = page_of(tmp_path / "ranks", [*on(lambda _: "n1", made_records.sweep(seeds=4)), *alone], 4)
    assert (folder / "tables/scaling.csv").exists() == (host == "n1")
    assert problems_in(folder) == []


def test_it_reads_failures_and_two_seeds(tmp_path: Path) -> None:
    """The runs that ended otherwise than well, and what is not shown to be above guessing."""
    bad = [made_records.failed("full", seed, status, "x") for seed, status in ((4, "diverged"), (5, "timeout"))]
    folder = page_of(tmp_path / "failed", [*made_records.sweep(seeds=4), *bad], 4)
    assert len(answer_in(folder)["failures"]) == 2
    assert problems_in(folder) == []
    study = reading.read_study(folder)
    assert unfound_leaves(study, answer_in(folder)) == []
    assert unfound_cells(study, read_table(folder / "tables/failures.csv")) == []
    folder = page_of(tmp_path / "two", made_records.sweep(seeds=2), 2)
    assert answer_in(folder)["tested"] == 0
    assert problems_in(folder) == []


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


def test_it_recomputes_an_error_and_an_f1(of_task: Path) -> None:
    """Every figure of RMSE, or of entity F1, is what the records give, by scores of its own; changed ones are found."""
    assert problems_in(of_task) == []
    study = reading.read_study(of_task)
    assert unfound_leaves(study, answer_in(of_task)) == []
    read = map(read_table, sorted((of_task / "tables").glob("*.csv")))
    assert [line for table in read for line in unfound_cells(study, table)] == []


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
    assert [problem for problem in problems_in(folder) if "scores of the rows" in problem and run.name in problem]


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
    """Costs of the runs alone, or of none ranked; where each ran; costs by hardware; changed figures are found."""
    assert problems_in(of_jobs) == []
    assert (answer_in(of_jobs)["unranked"] is not None) == (of_jobs.name == "all")
    study = reading.read_study(of_jobs)
    for name in ("places", "costs_by_hardware"):
        assert unfound_cells(study, read_table(of_jobs / f"tables/{name}.csv")) == []


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
    """Without a folder the script says how it is called, and of one without tables how to make them."""
    bare = shutil.copytree(REFERENCE, tmp_path / "bare", ignore=shutil.ignore_patterns("tables"))
    for arguments, said in (
        ([], "python benchmarks/recompute.py"),
        ([str(tmp_path)], "python benchmarks/recompute.py"),
        ([str(bare)], f"`hpml-bench report {bare} --format md,csv` makes them"),
    ):
        script = [sys.executable, str(ROOT / "benchmarks/recompute.py"), *arguments]
        done = subprocess.run(script, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert said in done.stdout


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
    assert command.audit_page(reading.read_study(report(folder)), folder).problems == []
    scaling = read_table(folder / "tables/scaling.csv")
    assert [row[4:7] for row in scaling.rows][1][1] == "[1.70, 1.70]"
    assert unfound_cells(reading.read_study(folder), scaling) == []


def suites_of(folder: Path) -> list[Path]:
    """Return the folders of nine suites in which head is last, and of one that has the data of another.

    The first method is full in some, lora in others, both in one, and varies with the seeds; one suite lacks adapter.
    """
    noise, folders = np.random.default_rng(0), []
    for n in range(10):
        data, records = DatasetSpec(name="newswire", options={"of": f"data {n % 9}"}), []
        for run in made_records.sweep(("lora", "full", "head", *(["adapter"] if n else [])), 3):
            near = 0.0 if n == 4 else round(noise.normal(0.02 * (n % 3 - 0.7), 0.01), 3)
            score = {"lora": 0.8, "full": 0.8 + near, "head": 0.5, "adapter": 0.7}[run.spec.method.name]
            own = made_records.in_suite(run, f"suite-{n}", data)
            records.append(own.model_copy(update={"metrics": own.metrics | {"test_accuracy": score}}))
        folders.append(made_records.write(folder / f"suite-{n}", records))
        (folders[-1] / "suite.json").write_text(json.dumps({"name": f"suite-{n}", "seeds": 3, "methods": {}}))
    return folders


@pytest.fixture(scope="module", params=["reference", "made"])
def of_suites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Return the page of three committed suites, too few for a test, or of nine made-up ones; and their folders."""
    place = tmp_path_factory.mktemp("over")
    reference = [REFERENCE.parent / name for name in ("quickstart", "minilm", "chat")]
    folders = reference if request.param == "reference" else suites_of(place)
    with without_charts():
        page = page_over([load(folder) for folder in folders], place / "page")
        write_page(page, place / "page", ("md", "csv"))
    return place / "page", folders


def test_it_recomputes_a_page_over_suites(
    of_suites: tuple[Path, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every leaf and cell of a page over suites is what their records give; a change of any is found."""
    page, folders = of_suites
    assert command.main(["--over", *map(str, (page, *folders))], "") == 0
    assert "figures checked, 0 disagree" in capsys.readouterr().out
    assert command.main(["--over", *map(str, (page, folders[0]))], "") == 2
    assert command.main(["--over", *map(str, (page / "none", *folders))], "") == 2
    assert "--format md,csv` makes them" in capsys.readouterr().out
    over = over_suites.read_over(folders)
    recomputed = over_suites.answer_over(over)
    assert unfound(recomputed, answer_in(page)) == []
    verdicts = {"different", "undecided"} if over.tested else {"untested"}
    assert {pair["v"] for pair in answer_in(page)["pairs"]["score"]} == verdicts
    expected, missed = over_suites.tables_over(over, recomputed), []
    for table in map(read_table, sorted((page / "tables").glob("*.csv"))):
        for row, column in itertools.product(range(len(table.rows)), range(len(table.header))):
            audit, cells = Audit(), [list(cells) for cells in table.rows]
            cell = cells[row][column]
            cells[row][column] = f"{changed(float(cell)):.11e}" if EXACT.fullmatch(cell) else changed(cell)
            over_suites.check_cells(audit, Table(table.name, table.header, cells), expected[table.name])
            missed += [] if audit.problems else [f"{table.name} | {table.header[column]}: {cell}"]
        for header, cells in ((table.header, table.rows[1:]), ([*table.header, "W"], [[*r, "3"] for r in table.rows])):
            over_suites.check_cells(audit := Audit(), Table(table.name, header, cells), expected[table.name])
            missed += [] if audit.problems else [f"{table.name}: a row left out, or a column added"]
    assert missed == []
