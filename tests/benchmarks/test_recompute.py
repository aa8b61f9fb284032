"""The auditor (`benchmarks/recompute.py`) agrees with the package's answers, and finds changed figures."""

from __future__ import annotations

import ast
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
import pytest
import recompute
from audit import answer, answers, over_suites, reading
from audit.study import Study
from audit.values import Audit

from helpers import golden, made_records, made_task_records
from hpml_bench.plugins.scorer import make_scorer
from hpml_bench.records.run import RunRecord
from hpml_bench.report.answer.model import PageSummary
from hpml_bench.report.render import load, page_over, write_page, write_report
from hpml_bench.suite import registry
from hpml_bench.suite.settings import DatasetSpec

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reports/reference/quickstart"


def remade(target: Path) -> Path:
    """Copy the reference's records and let the package make its page of them."""
    shutil.copytree(REFERENCE, target, ignore=shutil.ignore_patterns("figures", "tables", "report.*"))
    return report(target)


def report(folder: Path) -> Path:
    """Let the package make a folder's answer."""
    write_report(folder, None, ("md",))
    return folder


def answer_in(folder: Path) -> Any:
    """Return a folder's answer as it lies there."""
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def problems_in(folder: Path) -> list[str]:
    """Return what disagrees."""
    return recompute.audit_page(reading.read_study(folder), folder).problems


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
    figures = [(path, value) for path, value in answer.leaves(given) if not answer.WORDS.fullmatch(path)]
    return [path for path, value in figures if answer.same(changed(value), expected[path])]


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
        "3/2", "12:30", "x = 1.5", r"\frac{3}{2}", r"1\frac{1}{2} of 1,000 1/4", "-1 1/2", r"\frac{-3}{2} or 2 5/4",
        "10 \u2212 5 \u22125", "1e3 m", "år", "är", "東京です。", "京都です", "ไทย ฿5", "café", "Cafe\u0301",
    ]  # fmt: skip
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
    """Every figure of the answer is what the records give."""
    audit = recompute.audit_page(study, remade_quickstart)
    assert audit.problems == []
    assert audit.checked > 800
    assert recompute.main([str(remade_quickstart)]) == 0
    assert f"{remade_quickstart}: {audit.checked} figures checked, 0 disagree" in capsys.readouterr().out


SHARED = "ranks take three seeds that all methods share"
UNEQUAL, SINGLE = np.repeat(np.arange(200), np.resize((1, 9), 200)), np.arange(1000)


def page_of(folder: Path, groups: Any = None) -> Path:
    """Return the folder of made-up records with their page."""
    (folder / "suite.json").write_text(json.dumps({"name": "example", "seeds": 5, "methods": {}}))
    return report(folder if groups is None else made_records.grouped(folder, groups))


def changed_in(records: list[RunRecord], change: Callable[[RunRecord], dict[str, Any]]) -> list[RunRecord]:
    return [item.model_copy(update=change(item)) for item in records]


NO_MEMORY = {"peak_memory_mb": 0.0, "peak_memory_over_setup_mb": 0.0}


@pytest.mark.parametrize(("records", "groups", "said"), [
    pytest.param(lambda: made_records.sweep(seeds=2), None, (10, SHARED, "row"), id="means over two runs"),
    pytest.param(lambda: made_records.sweep(seeds=1), UNEQUAL, (10, SHARED, "row"), id="groups"),
    pytest.param(lambda: made_records.sweep(seeds=1), SINGLE, (10, SHARED, "row"), id="groups right or wrong"),
    pytest.param(lambda: made_records.sweep(["lora", "head"], seeds=1), None, (1, SHARED, "row"), id="two methods"),
    pytest.param(lambda: made_records.sweep(["lora"], seeds=4), None, (0, None, "seed"), id="one method"),
    pytest.param(lambda: made_records.sweep(seeds=5), UNEQUAL, (30, None, "seed"), id="groups over seeds"),
    pytest.param(
        lambda: changed_in(made_records.sweep(seeds=3), lambda item: {"metrics": item.metrics | (
            NO_MEMORY if item.spec.method.name == "lora" else {})}),
        None, (20, None, "seed"), id="a cost of zero",
    ),
    pytest.param(
        lambda: changed_in(made_records.sweep(), lambda item: {
            "environment": item.environment | {"hosts": [f"of-{item.spec.method.method}"]}}),
        None, (10, "seeds were spread over hosts", "seed"), id="a method a host",
    ),
    pytest.param(
        lambda: changed_in(made_records.sweep(), lambda _: {"neighbours": ("x",)}),
        None, (10, "runs had neighbours on their host", "seed"), id="all with neighbours",
    ),
])  # fmt: skip
def test_it_recomputes_a_page(records: Callable[[], list[RunRecord]], groups: Any, said: Any, tmp_path: Path) -> None:
    """Over rows alone, over groups and over seeds; costs that rank by none: no leaf disagrees, any change is found."""
    folder = page_of(made_records.write(tmp_path / "page", records()), groups)
    found = answer_in(folder)
    assert (found["tested"], found["unranked"], found["over"]) == said
    assert problems_in(folder) == []
    assert unfound_leaves(reading.read_study(folder), found) == []


@pytest.mark.parametrize("name", golden.MADE)
def test_it_recomputes_a_golden_page(name: str, tmp_path: Path) -> None:
    """Of jobs, hosts, failures, looks and a tuning."""
    folder = page_of(golden.MADE[name](tmp_path / "page"))
    assert problems_in(folder) == []
    assert unfound_leaves(reading.read_study(folder), answer_in(folder)) == []


@pytest.mark.parametrize(("largest", "used", "seeds"), [(0.3, True, 3), (0.2, False, 3), (0.3, True, 1)])
def test_it_knows_a_declared_largest_difference(largest: float, used: bool, seeds: int, tmp_path: Path) -> None:
    """Rows of ROUGE-L that keep to it are tested by it; where a row doesn't, by the range. Over rows alone, too."""
    folder = tmp_path / "faq"
    shutil.copytree(REFERENCE.parent / "faq", folder, ignore=shutil.ignore_patterns("figures", "tables", "report.*"))
    for path in folder.glob("*/run.json"):
        if int(path.parent.name.rsplit("-s", 1)[1][0]) >= seeds:
            shutil.rmtree(path.parent)
            continue
        margin = {"quality": None, "cost": 0.05, "largest_difference": largest}
        record = json.loads(path.read_text(encoding="utf-8")) | {"declared": {"seeds": 3, "margin": margin}}
        path.write_text(json.dumps(record), encoding="utf-8")
    assert load(report(folder)).aligned.difference_span == pytest.approx(largest if used else 1.0)
    assert problems_in(folder) == []


OF_RACES = {"declared_looks", "rounds", "ended", "most_runs"}
"""Fields of answers of races alone, which the auditor doesn't recompute."""


def test_it_finds_a_changed_leaf(remade_quickstart: Path, study: Study) -> None:
    """Every figure of the answer is held: a change of any is found, of real numbers one of a hundred thousandth."""
    given = answer_in(remade_quickstart)
    assert given.keys() == PageSummary.model_fields.keys() - OF_RACES
    assert unfound_leaves(study, given) == []


@pytest.mark.parametrize("name", ["chat", "tagging", "regression", "trainers"])
def test_it_finds_changes_of_other_tasks(name: str) -> None:
    """The committed answer of a language model, tags, numbers, programs: none disagrees, any change does."""
    folder = REFERENCE.parent / name
    study = reading.read_study(folder)
    assert recompute.audit_page(study, folder).problems == []
    assert unfound_leaves(study, answer_in(folder)) == []


def test_it_names_what_no_rule_covers(remade_quickstart: Path, study: Study) -> None:
    """A new leaf fails by its path; one left out does, too."""
    audit, given = Audit(), answer_in(remade_quickstart)
    given["methods"][0]["watts"] = 3.5
    del given["methods"][0]["v"]["score"]["lo"]
    answer.compare_answer(audit, given, answer.answer_of(study))
    assert [problem.partition(":")[0] for problem in audit.problems] == [
        "report.json | methods.0.watts",
        "report.json | methods.0.v.score.lo",
    ]


def edited(place: Path, **changes: Any) -> None:
    """Set fields of a run's record by dotted path, with `__` for a point."""
    record = json.loads((place / "run.json").read_text(encoding="utf-8"))
    for key, value in changes.items():
        *parents, last = key.split("__")
        inner = record
        for part in parents:
            inner = inner[part]
        inner[last] = value
    (place / "run.json").write_text(json.dumps(record), encoding="utf-8")


def test_it_chooses_the_runs_by_itself(tmp_path: Path) -> None:
    """Page and auditor leave out the same: failed, doubled, edited and missing runs, costs from another machine."""
    folder = remade(tmp_path / "quickstart")

    def only(run: str) -> Path:
        return next(folder.glob(f"{run}-*"))

    shutil.copytree(only("full-s3"), folder / "copy")
    shutil.rmtree(only("head-s4"))
    edited(only("lora-s1"), metrics__test_accuracy=0.85)
    edited(only("adapter-s0"), consumed__real_tokens=1)
    edited(only("prompt-tuning-s2"), status="failed")
    edited(only("head-s0"), environment__packages__torch="2.0")
    (only("full-s2") / "points.jsonl").unlink()
    assert any(problem.startswith("report.json | runs:") for problem in problems_in(folder))
    assert recompute.audit_page(reading.read_study(report(folder)), folder).problems == []
    assert (answer_in(folder)["runs"], answer_in(folder)["planned"]) == (19, 20)


@pytest.fixture(scope="module", params=["regression", "token_classification", "regression over rows"])
def of_task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a task that is no classification, of schema-2 records."""
    task, _, over_rows = request.param.partition(" ")
    folder = made_task_records.write(tmp_path_factory.mktemp("page") / task, task, seeds=2 if over_rows else 5)
    suite = {"name": "example", "seeds": 5, "methods": dict.fromkeys(sorted(made_records.METHODS))}
    (folder / "suite.json").write_text(json.dumps(suite))
    return report(folder)


def test_it_recomputes_an_error_and_an_f1(of_task: Path) -> None:
    """Every figure of RMSE, or of entity F1, is what the records give, by scores of its own; changed ones are found."""
    assert problems_in(of_task) == []
    study = reading.read_study(of_task)
    assert unfound_leaves(study, answer_in(of_task)) == []


def test_a_wrong_call(tmp_path: Path) -> None:
    """Without a folder the script says how it is called, and of one without a report how to make it."""
    bare = shutil.copytree(REFERENCE, tmp_path / "bare", ignore=shutil.ignore_patterns("tables", "report.*"))
    for arguments, said in (
        ([], "python benchmarks/recompute.py"),
        ([str(tmp_path)], "python benchmarks/recompute.py"),
        ([str(bare)], f"`hpml-bench report {bare} --format md` makes it"),
    ):
        script = [sys.executable, str(ROOT / "benchmarks/recompute.py"), *arguments]
        done = subprocess.run(script, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert said in done.stdout


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
    page = page_over([load(folder) for folder in folders], place / "page")
    write_page(page, place / "page", ("md",))
    return place / "page", folders


def test_it_recomputes_a_page_over_suites(
    of_suites: tuple[Path, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every leaf of a page over suites is what their records give; a change of any is found."""
    page, folders = of_suites
    assert recompute.main(["--over", *map(str, (page, *folders))]) == 0
    assert "figures checked, 0 disagree" in capsys.readouterr().out
    assert recompute.main(["--over", *map(str, (page, folders[0]))]) == 2
    assert recompute.main(["--over", *map(str, (page / "none", *folders))]) == 2
    assert "--format md` makes it" in capsys.readouterr().out
    over = over_suites.read_over(folders)
    recomputed = over_suites.answer_over(over)
    assert unfound(recomputed, answer_in(page)) == []
    verdicts = {"different", "undecided"} if over.tested else {"untested"}
    assert {pair["v"] for pair in answer_in(page)["pairs"]["score"]} == verdicts
