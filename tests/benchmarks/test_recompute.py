"""The auditor (`benchmarks/recompute.py`) agrees with the package's answers, and finds changed
figures.
"""

import ast
import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recompute
from audit import answer, over_suites, rows
from audit.study import Study, read_study

from helpers import golden, made_records, made_task_records
from hpml_bench.judge.summary import PageSummary
from hpml_bench.page.render import load, page_over, write_page, write_report
from hpml_bench.plugins.scorer import Scorer, make_scorer
from hpml_bench.records.run import RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.settings import DatasetSpec

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reports/reference/quickstart"


def remade(target: Path) -> Path:
    """Copy the reference's records and let the package make its page of them."""
    shutil.copytree(
        REFERENCE, target, ignore=shutil.ignore_patterns("figures", "tables", "report.*")
    )
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
    return answer.compared(answer_in(folder), answer.answer_of(read_study(folder)))[1]


def changed(value: Any) -> Any:
    """Return a leaf of an answer changed by as little as must be found."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, str):
        last = re.search(r"\d(?=\D*$)", value)
        return (
            f"{value[: last.start()]}{(int(last[0]) + 5) % 10}{value[last.end() :]}"
            if last
            else "?"
        )
    if isinstance(value, float):
        return value * (1 + 1e-5) or 1e-3
    return value + 1 if isinstance(value, int) else ["?"]


def unfound(recomputed: Any, given: Any) -> list[str]:
    """Return the paths of an answer at which a change goes unfound."""
    expected = dict(answer.leaves(recomputed))
    figures = [
        (path, value) for path, value in answer.leaves(given) if not answer.WORDS.fullmatch(path)
    ]
    return [path for path, value in figures if answer.same(changed(value), expected[path])]


@pytest.fixture(scope="module")
def remade_quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reference with its page remade."""
    return remade(tmp_path_factory.mktemp("recompute") / "quickstart")


@pytest.fixture(scope="module")
def study(remade_quickstart: Path) -> Study:
    """Return what the auditor makes of the records."""
    return read_study(remade_quickstart)


@pytest.mark.parametrize("name", registry.names("scorers"))
def test_scores_are_counted_a_second_time(name: str) -> None:
    """Each scorer of the package has one in the auditor, which gives the same scores."""
    tables = [
        json.loads((ROOT / f"tests/files/{file}.json").read_text())
        for file in ("peft_metamath", "lm_eval_gsm8k")
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
        "1,00,000",
        "1.234,5",
        "12.345.678",
        "1 000.5",
        "1\u2019000",
        "3.10.2",
        "2023-05-03",
        "7 m2",
        "7 m²",
        "$5",
        "5-10",
        "2 \u00d7 10³",
        "år",
        "är",
        "東京です。",
        "京都です",
        "ไทย ฿5",
        "café",
        "Cafe\u0301",
    ]
    check_second_count(name, make_scorer(name), texts)
    if name == "number":
        check_second_count("number with a decimal comma", make_scorer(name, "comma"), texts)


def check_second_count(name: str, scorer: Scorer, texts: list[str]) -> None:
    """Assert that the auditor scores each text against each that a run may expect as `scorer`."""
    may_be_expected = [text for text in texts if scorer.refusal(text) is None]
    assert len(may_be_expected) > 10
    for said, expected in itertools.product(texts, may_be_expected):
        again = rows.SCORERS[name](said, expected)
        assert again == pytest.approx(scorer.score(said, expected)), (said, expected)


def test_it_imports_nothing_of_the_package() -> None:
    """A second implementation shares no code with the first."""
    files = [ROOT / "benchmarks/recompute.py", *(ROOT / "benchmarks/audit").glob("*.py")]
    assert len(files) > 6
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = {
            name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for name in node.names
        }
        imported |= {
            node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        assert not [name for name in imported if name.startswith("hpml")], file


OF_SOME = {
    "declared_looks",
    "rounds",
    "ended",
    "most_runs",
    "changed",
    "checkpoints",
    "checkpoints_judged",
}
"""Fields of answers of races, of declared looks and of few seeds alone."""


def test_it_finds_nothing_wrong(
    remade_quickstart: Path, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every figure of the answer is what the records give, and a change of any is found, by a
    hundred thousandth.

    A new leaf fails by its path; one left out does, too.
    """
    given = answer_in(remade_quickstart)
    assert given.keys() == PageSummary.model_fields.keys() - OF_SOME
    assert unfound(answer.answer_of(study), given) == []
    assert recompute.main([str(remade_quickstart)]) == 0
    (checked,) = re.findall(
        r"quickstart: (\d+) figures checked, 0 disagree", capsys.readouterr().out
    )
    assert int(checked) > 800
    given["methods"][0]["watts"] = 3.5
    del given["methods"][0]["v"]["score"]["lo"]
    _, problems = answer.compared(given, answer.answer_of(study))
    wrong = [f"report.json | methods.0.{leaf}" for leaf in ("watts", "v.score.lo")]
    assert [problem.partition(":")[0] for problem in problems] == wrong


SHARED = "ranks take three seeds that all methods share"
UNEQUAL, SINGLE = np.repeat(np.arange(200), np.resize((1, 9), 200)), np.arange(1000)


def page_of(folder: Path, groups: Any = None) -> Path:
    """Return the folder of made-up records with their page."""
    (folder / "suite.json").write_text(json.dumps({"name": "example", "seeds": 5, "methods": {}}))
    return report(folder if groups is None else made_records.grouped(folder, groups))


NO_MEMORY = {"peak_memory_mb": 0.0, "peak_memory_over_setup_mb": 0.0}


def sweep(*arguments: Any, **more: Any) -> Callable[[], list[RunRecord]]:
    return lambda: made_records.sweep(*arguments, **more)


def without_memory(item: RunRecord) -> dict[str, Any]:
    return {"metrics": item.metrics | (NO_MEMORY if item.spec.method.name == "lora" else {})}


def of_its_own_host(item: RunRecord) -> dict[str, Any]:
    return {"environment": item.environment | {"hosts": [f"of-{item.spec.method.method}"]}}


def by_method(
    change: Callable[[RunRecord], dict[str, Any]], **more: Any
) -> Callable[[], list[RunRecord]]:
    return lambda: [run.model_copy(update=change(run)) for run in made_records.sweep(**more)]


MADE: dict[str, tuple[Callable[[], list[RunRecord]], Any, tuple[int, str | None, str]]] = {
    "means over two runs": (sweep(seeds=2), None, (10, SHARED, "row")),
    "groups": (sweep(seeds=1), UNEQUAL, (10, SHARED, "row")),
    "groups right or wrong": (sweep(seeds=1), SINGLE, (10, SHARED, "row")),
    "two methods": (sweep(["lora", "head"], seeds=1), None, (1, SHARED, "row")),
    "one method": (sweep(["lora"], seeds=4), None, (0, None, "seed")),
    "groups over seeds": (sweep(seeds=5), UNEQUAL, (30, None, "seed")),
    "a cost of zero": (by_method(without_memory, seeds=3), None, (20, None, "seed")),
    "a method a host": (
        by_method(of_its_own_host),
        None,
        (10, "seeds were spread over hosts", "seed"),
    ),
    "all with neighbours": (
        by_method(lambda _: {"neighbours": ("x",)}),
        None,
        (10, "runs had neighbours on their host", "seed"),
    ),
}
"""Records, groups of rows, and what the package's page says: pairs tested, why no cost ranks,
and over what.
"""


@pytest.mark.parametrize("name", MADE)
def test_made_pages_are_of_the_kind_that_they_are_named(name: str, tmp_path: Path) -> None:
    """Over rows alone, over groups and over seeds; costs that rank by none: no leaf disagrees,
    any change is found.
    """
    records, groups, said = MADE[name]
    folder = page_of(made_records.write(tmp_path / "page", records()), groups)
    found = answer_in(folder)
    assert (found["tested"], found["unranked"], found["over"]) == said
    assert_recomputed(folder)


TASKS = {
    "errors": ("regression", 5),
    "entities": ("token_classification", 5),
    "errors over rows": ("regression", 2),
}
"""Pages of tasks that are no classification, of schema-2 records: task and seeds."""
OTHERS: dict[str, Callable[[Path], Path]] = {
    **{
        name: lambda place, made=made: page_of(made(place / "page"))
        for name, made in golden.MADE.items()
    },
    **{
        name: lambda _, name=name: REFERENCE.parent / name
        for name in ("chat", "tagging", "regression", "trainers")
    },
    **{
        name: lambda place, task=task, seeds=seeds: page_of(
            made_task_records.write(place / task, task, seeds=seeds)
        )
        for name, (task, seeds) in TASKS.items()
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_it_recomputes_a_page(name: str, tmp_path: Path) -> None:
    """Of jobs, hosts, failures, looks and a tuning; committed ones of other tasks; of RMSE and
    of F1.
    """
    assert_recomputed(OTHERS[name](tmp_path))


def assert_recomputed(folder: Path) -> None:
    """Check that no leaf of a page disagrees with what the records give, and that any change is
    found.
    """
    study = read_study(folder)
    assert answer.compared(answer_in(folder), answer.answer_of(study))[1] == []
    assert unfound(answer.answer_of(study), answer_in(folder)) == []


@pytest.mark.parametrize(
    ("largest", "used", "seeds"), [(0.3, True, 3), (0.2, False, 3), (0.3, True, 1)]
)
def test_it_knows_a_declared_largest_difference(
    largest: float, used: bool, seeds: int, tmp_path: Path
) -> None:
    """Rows of ROUGE-L that keep to it are tested by it; where a row doesn't, by the range. Over
    rows alone, too.
    """
    folder = tmp_path / "faq"
    shutil.copytree(
        REFERENCE.parent / "faq",
        folder,
        ignore=shutil.ignore_patterns("figures", "tables", "report.*"),
    )
    for path in folder.glob("*/run.json"):
        if int(path.parent.name.rsplit("-s", 1)[1][0]) >= seeds:
            shutil.rmtree(path.parent)
            continue
        margin = {"quality": None, "cost": 0.05, "largest_difference": largest}
        record = json.loads(path.read_text(encoding="utf-8")) | {
            "declared": {"seeds": 3, "margin": margin}
        }
        path.write_text(json.dumps(record), encoding="utf-8")
    assert load(report(folder)).aligned.difference_span == pytest.approx(largest if used else 1.0)
    assert problems_in(folder) == []


def edited(place: Path, **changes: Any) -> None:
    """Set fields of a run's record, of mappings those that are named."""
    record = json.loads((place / "run.json").read_text(encoding="utf-8"))
    record |= {
        name: record[name] | of if isinstance(of, dict) else of for name, of in changes.items()
    }
    (place / "run.json").write_text(json.dumps(record), encoding="utf-8")


def test_it_chooses_the_runs_by_itself(tmp_path: Path) -> None:
    """Page and auditor leave out the same: failed, doubled, edited and missing runs, costs from
    another machine.
    """
    folder = remade(tmp_path / "quickstart")

    def only(run: str) -> Path:
        return next(folder.glob(f"{run}-*"))

    shutil.copytree(only("full-s3"), folder / "copy")
    shutil.rmtree(only("head-s4"))
    edited(only("lora-s1"), metrics={"test_accuracy": 0.85})
    edited(only("adapter-s0"), consumed={"real_tokens": 1})
    edited(only("prompt-tuning-s2"), status="failed")
    edited(only("head-s0"), environment={"packages": {"torch": "2.0"}})
    (only("full-s2") / "points.jsonl").unlink()
    assert any(problem.startswith("report.json | runs:") for problem in problems_in(folder))
    assert problems_in(report(folder)) == []
    assert (answer_in(folder)["runs"], answer_in(folder)["planned"]) == (19, 20)


def test_a_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a folder the script says how it is called, and of one without a report how to make
    it.
    """
    bare = shutil.copytree(
        REFERENCE, tmp_path / "bare", ignore=shutil.ignore_patterns("tables", "report.*")
    )
    usage = "python benchmarks/recompute.py FOLDER"
    told = {
        (): usage,
        (str(tmp_path),): usage,
        (str(bare),): f"`hpml-bench report {bare} --format md` makes it",
    }
    for arguments, said in told.items():
        assert recompute.main([*arguments]) == 2
        assert said in capsys.readouterr().out


def suites_of(folder: Path) -> list[Path]:
    """Return the folders of nine suites in which head is last, and of one that has the data of
    another.

    The first method is full in some, lora in others, both in one, and varies with the seeds; one
    suite lacks adapter.
    """
    noise, folders = np.random.default_rng(0), []
    for n in range(10):
        data, records = DatasetSpec(name="newswire", options={"of": f"data {n % 9}"}), []
        for run in made_records.sweep(("lora", "full", "head", *(["adapter"] if n else [])), 3):
            near = 0.0 if n == 4 else round(noise.normal(0.02 * (n % 3 - 0.7), 0.01), 3)
            score = {"lora": 0.8, "full": 0.8 + near, "head": 0.5, "adapter": 0.7}[
                run.spec.method.name
            ]
            own = made_records.in_suite(run, f"suite-{n}", data)
            records.append(
                own.model_copy(update={"metrics": own.metrics | {"test_accuracy": score}})
            )
        folders.append(made_records.write(folder / f"suite-{n}", records))
        (folders[-1] / "suite.json").write_text(
            json.dumps({"name": f"suite-{n}", "seeds": 3, "methods": {}})
        )
    return folders


@pytest.fixture(scope="module", params=["reference", "made"])
def of_suites(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Path]]:
    """Return the page of three committed suites, too few for a test, or of nine made-up ones;
    and their folders.
    """
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
