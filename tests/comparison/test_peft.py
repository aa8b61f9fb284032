"""Result files of PEFT's method comparison: what they give, what they lack, and our runs in their
shape.

tests/files/peft_result.json has their shape and made-up numbers; variants of it are made here.
"""

import copy
import json
import math
import re
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest

from helpers import made_records
from helpers.commands import called
from hpml_bench.comparison.inputs import InputScores
from hpml_bench.comparison.readers import peft, results
from hpml_bench.page.peft import as_peft
from hpml_bench.page.render import load, page_over, write_page, write_report
from hpml_bench.suite.settings import MethodSpec
from hpml_bench.system.errors import UserError

FILE = Path(__file__).parents[1] / "files/peft_result.json"
GIVEN: dict[str, Any] = json.loads(FILE.read_text())
Change = Callable[[dict[str, Any]], object]


def put(*path: Any) -> Change:
    *keys, last, value = path
    return lambda data: reduce(getitem, keys, data).__setitem__(last, value)


def drop(*path: Any) -> Change:
    *keys, last = path
    return lambda data: reduce(getitem, keys, data).__delitem__(last)


def renamed(old: str, new: str) -> Change:
    """Return a change that renames the keys of memory to those of files before August 2025."""
    return lambda data: data.update(
        train_info={k.replace(old, new): of for k, of in data["train_info"].items()}
    )


def both(*changes: Change) -> Change:
    return lambda data: [change(data) for change in changes]


def accuracy(value: Any) -> Change:
    return put("train_info", "metrics", -1, "test accuracy", value)


def images(data: dict[str, Any]) -> None:
    """Make it a result of the task image-gen, with its metrics and without those of MetaMathQA."""
    data["run_info"]["train_config"]["dataset_id"] = "example/cats"
    data["meta_info"]["dataset_info"] = {"sha": None, "created_at": None}
    data["train_info"]["metrics"][-1] = {
        "step": 30,
        "test dino_similarity": 0.5,
        "drift": 0.25,
        "train loss": 1.0,
    }


def written(
    folder: Path, change: Change = lambda _: None, name: str = "lora--made-up-rank2.json"
) -> Path:
    """Write the result, changed, and return its file."""
    data = copy.deepcopy(GIVEN)
    change(data)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(data))
    return path


def ended(status: str) -> Change:
    return both(put("train_info", "status", status), put("train_info", "metrics", []))


def named(name: str) -> Change:
    return put("run_info", "experiment_name", name)


def only(found: tuple[InputScores, ...]) -> InputScores:
    (one,) = found
    return one


def test_a_result_gives_score_rows_seed_and_costs(tmp_path: Path) -> None:
    """Throughput is the median window's; memory is bytes / 10^6; rows are GSM8K's test split."""
    path = written(tmp_path)
    assert peft.claims(path)
    assert peft.claims(tmp_path)
    one = only(peft.read(path, None))
    (line,) = one.lines.to_dict("records")
    assert line == {
        "system": "lora/made-up-rank2",
        "score": 330 / 1319,
        "seed": "0",
        "dataset": "MetaMathQA, example/model-3B",
        "rows": 1319.0,
        "where": str(path),
        "seconds_per_1000_samples": 40.0,
        "train_time": 70.25,
        "total_time": 90.5,
        "reserved_max_mb": 2500.0,
        "reserved_avg_mb": 1500.0,
        "file_size_mb": 0.004096,
        "trainable_parameters": 1024.0,
    }
    assert (one.score.name, one.score.better, one.score.low, one.score.high) == (
        "test accuracy",
        "higher",
        0.0,
        1.0,
    )
    titles = {cost.column: f"{cost.title} {cost.about}" for cost in one.costs}
    assert "loading" in titles["train_time"]
    assert "generation" in titles["train_time"]
    assert titles["reserved_max_mb"].startswith("reserved")
    remarks = " ".join(one.remarks)
    for said in ("1,319", "--metric forgetting"):
        assert said in remarks


def test_forgetting_is_compared_where_asked_for_and_never_made_up(tmp_path: Path) -> None:
    """Lower is better, runs without it are named, it has no number of rows, and all lacking it
    is an error.
    """
    written(tmp_path)
    old = both(named("old"), drop("train_info", "metrics", -1, "forgetting"))
    written(tmp_path, old, "old.json")
    one = only(peft.read(tmp_path, "forgetting"))
    assert (one.score.better, one.lines["score"].tolist()) == ("lower", [0.0625])
    assert one.lines["rows"].isna().all()
    assert any("left out: old" in remark for remark in one.remarks)
    with pytest.raises(UserError, match="no run has 'forgetting'"):
        peft.read(tmp_path / "old.json", "forgetting")
    with pytest.raises(
        UserError, match="'test accuracy', 'test dino_similarity', 'forgetting', 'drift'"
    ):
        peft.read(tmp_path, "speed")


def test_a_folder_of_both_tasks_gives_a_data_set_each(tmp_path: Path) -> None:
    """PEFT's own folder is read, results, temporary and cancelled ones; other files of it are
    not.
    """
    written(tmp_path / "MetaMathQA/results")
    canceled = both(ended("canceled"), put("run_info", "error_msg", "out of\nmemory"), named("big"))
    written(tmp_path / "MetaMathQA/cancelled_results", canceled, "big--2026.json")
    (tmp_path / "MetaMathQA/experiments").mkdir()
    (tmp_path / "MetaMathQA/experiments/adapter_config.json").write_text('{"r": 2}')
    written(tmp_path / "image-gen/results", images)
    math_task, image_task = peft.read(tmp_path, None)
    assert math_task.lines["dataset"].tolist() == ["MetaMathQA, example/model-3B"]
    assert [(run.system, run.status) for run in math_task.failed] == [
        ("big", "canceled: out of memory")
    ]
    assert (image_task.score.name, image_task.lines["score"].tolist()) == (
        "test dino_similarity",
        [0.5],
    )
    assert (
        image_task.lines["rows"].isna().all()
    )  # how similarity varies over 4 images isn't in the file
    assert only(peft.read(tmp_path, "drift")).score.better == "lower"


def test_the_whole_folder_gives_its_pages_and_says_what_isn_t_ranked(tmp_path: Path) -> None:
    """Tasks without a system in common, one of failures alone, an accuracy that is no share of
    the rows: status 0.
    """
    for name, share in (("a", 330 / 1319), ("b", 400 / 1319), ("c", 0.4321)):
        own = both(accuracy(share), named(name))
        written(tmp_path / "MetaMathQA/results", own, name + ".json")
        image = both(images, named(f"image-{name}"))
        written(tmp_path / "image-gen/results", image, name + ".json")
    failed = both(ended("cancelled"), put("run_info", "train_config", "model_id", "other/model"))
    written(tmp_path / "RLMath/cancelled_results", failed, "lora.json")
    done = called("compare", tmp_path, "--out", tmp_path / "pages", "--independent")
    assert len(list((tmp_path / "pages").glob("*/report.html"))) == 2
    said = " ".join(done.output.split())
    for what in (
        "No system has scores of MetaMathQA, other/model: its runs failed",
        "MetaMathQA, example/model-3B: no pair of scores is tested: the number of rows isn't known",
        "share fewer than two systems, so that nothing can be ranked over them",
    ):
        assert what in said, said
    page = next((tmp_path / "pages").glob("MetaMathQA*/report.md")).read_text(encoding="utf-8")
    assert "Nothing is tested by rows, since their number isn't known of c." in page


IMPORTED: dict[str, tuple[Change, dict[str, Any]]] = {
    "older memory": (
        renamed("accelerator_memory", "cuda_memory"),
        {"reserved_max_mb": 2500, "reserved_avg_mb": 1500},
    ),
    "no memory": (
        renamed("accelerator_memory", "no_memory"),
        {"reserved_max_mb": None, "reserved_avg_mb": None},
    ),
    "no train_time": (
        drop("train_info", "train_time"),
        {"train_time": None, "seconds_per_1000_samples": 40.0},
    ),
    "null train_time": (put("train_info", "train_time", None), {"train_time": None}),
    "checkpoint not saved": (put("train_info", "file_size", 99999999), {"file_size_mb": None}),
    "no windows": (
        lambda data: data["train_info"].update(metrics=data["train_info"]["metrics"][-1:]),
        {"seconds_per_1000_samples": None, "score": 330 / 1319},
    ),
    "window without samples": (
        drop("train_info", "metrics", 2, "train samples"),
        {"seconds_per_1000_samples": 1000 / 30},
    ),
    "window after one without samples": (
        drop("train_info", "metrics", 1, "train samples"),
        {"seconds_per_1000_samples": 50.0},
    ),
    "no run_info": (
        drop("run_info"),
        {"system": "lora--made-up-rank2", "seed": "", "total_time": None},
    ),
    "empty name": (put("run_info", "experiment_name", "\x00\n"), {"system": "lora--made-up-rank2"}),
    "no config": (
        drop("run_info", "train_config"),
        {"seed": "", "dataset": "MetaMathQA, unnamed model"},
    ),
    "no meta_info": (
        drop("meta_info"),
        {"dataset": "unnamed data, example/model-3B", "rows": None},
    ),
    "no data named": (
        put("meta_info", "dataset_info", None),
        {"dataset": "unnamed data, example/model-3B", "rows": None},
    ),
    "not a share of 1,319": (accuracy(0.25), {"score": 0.25, "rows": None}),
    "hostile name": (
        put(
            "run_info",
            "experiment_name",
            "<script>alert(1)</script>\x1b[31m\n\u202e../../etc/passwd",
        ),
        {"system": "<script>alert(1)</script> ../../etc/passwd"},
    ),
    "accuracy of 1 as a whole number": (accuracy(1), {"score": 1.0, "rows": 1319.0}),
}


@pytest.mark.parametrize("name", IMPORTED)
def test_a_variant_imports_and_what_it_lacks_is_missing(name: str, tmp_path: Path) -> None:
    """No missing value is replaced by another."""
    change, expected = IMPORTED[name]
    path = written(tmp_path, change)
    one = only(peft.read(path, None))
    (line,) = one.lines.to_dict("records")
    for column, value in expected.items():
        got = line.get(column)
        assert (got is None or math.isnan(got)) if value is None else got == value, column
    assert {cost.column for cost in one.costs} <= set(one.lines)
    assert (
        not one.lines.drop(columns="rows").isna().any(axis=None)
    )  # a cost that no run has is no column


REFUSED: dict[str, tuple[Change, str]] = {
    "NaN accuracy": (accuracy(math.nan), r"the last of train_info.metrics.test accuracy is nan"),
    "more than a float holds": (
        put("train_info", "train_time", 10**400),
        "train_info.train_time is 1000",
    ),
    "text for a number": (
        put("train_info", "file_size", "4 kB"),
        "train_info.file_size is '4 kB', and must be a valid number",
    ),
    "text in a window": (
        put("train_info", "metrics", 1, "train time", "1.0"),
        r"metrics\.1\.train time is '1.0'",
    ),
    "true for a number": (put("run_info", "total_time", True), "run_info.total_time is True"),
    "negative memory": (
        put("train_info", "accelerator_memory_max", -1),
        "accelerator_memory_max is -1, and must be greater than or equal to 0",
    ),
    "percent for a share": (
        accuracy(25.0),
        "test accuracy is 25.0, and must be less than or equal to 1",
    ),
    "no status": (drop("train_info", "status"), "has no train_info.status"),
    "metrics of no objects": (put("train_info", "metrics", [1, 2]), "train_info.metrics.0 is 1"),
    "seed as a text": (put("run_info", "train_config", "seed", "0"), "train_config.seed is '0'"),
    "config as a list": (put("run_info", "train_config", []), "run_info.train_config is"),
    "name as a number": (put("run_info", "experiment_name", 7), "run_info.experiment_name is 7"),
    "no train_info": (drop("train_info"), "has no train_info.status"),
    "success without metrics alone": (
        put("train_info", "metrics", []),
        "no run has 'test accuracy'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_variant_that_cannot_be_right_is_named(name: str, tmp_path: Path) -> None:
    """The sentence has the file and the key."""
    change, said = REFUSED[name]
    path = written(tmp_path, change)
    with pytest.raises(UserError, match=said) as error:
        peft.read(path, None)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [(FILE.read_text()[:-200], "isn't JSON"), ("[1, 2]", "holds no object"), ("", "isn't JSON")],
)
def test_a_file_that_is_none_of_these_is_named(text: str, said: str, tmp_path: Path) -> None:
    """Beside a good file too, which isn't read alone then."""
    written(tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    with pytest.raises(UserError, match=f"{re.escape(str(bad))}.*{said}"):
        peft.read(tmp_path, None)


@pytest.mark.parametrize("status", ["failed", "success"])
def test_a_run_without_a_score_is_shown_with_its_end(status: str, tmp_path: Path) -> None:
    """A failed or cancelled run, or one that was successful and has no accuracy, is no line; its
    costs aren't read.
    """
    written(tmp_path)
    path = written(
        tmp_path,
        both(ended(status), put("train_info", "train_time", None), named("other")),
        "other.json",
    )
    one = only(peft.read(tmp_path, None))
    assert one.lines["system"].tolist() == ["lora/made-up-rank2"]
    ((system, seed, said, where),) = [
        (run.system, run.seed, run.status, run.where) for run in one.failed
    ]
    assert (system, seed, where) == ("other", "0", str(path))
    assert one.source == f"PEFT's method comparison {tmp_path} (2 files)"
    assert {run.dataset for run in one.failed} == set(one.lines["dataset"])
    assert said.startswith(status)


@pytest.mark.parametrize("other", ["a.json", "z.json"])
def test_runs_of_one_data_set_that_have_different_scores_are_an_error(
    other: str, tmp_path: Path
) -> None:
    """In any order of the files; by --metric one is chosen, and the other run is without it."""
    written(tmp_path)
    change = both(named("other"), put("train_info", "metrics", -1, {"test dino_similarity": 0.5}))
    written(tmp_path, change, other)
    said = (
        "has the score test .* and .* has the score test .*, of one data set; choose one by "
        "--metric"
    )
    with pytest.raises(UserError, match=said):
        peft.read(tmp_path, None)
    one = only(peft.read(tmp_path, "accuracy"))
    assert (one.score.name, [run.system for run in one.failed]) == ("test accuracy", ["other"])


def test_two_files_of_one_run_are_an_error_and_two_seeds_are_two_runs(tmp_path: Path) -> None:
    """Which of two runs counts is not guessed."""
    first, second = written(tmp_path), written(tmp_path, name="again.json")
    with pytest.raises(UserError, match="both runs of lora/made-up-rank2 with seed 0") as error:
        peft.read(tmp_path, None)
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)
    written(tmp_path, put("run_info", "train_config", "seed", 1), "again.json")
    one = only(peft.read(tmp_path, None))
    assert sorted(one.lines["seed"]) == ["0", "1"]


def test_runs_of_other_models_and_budgets_are_told_apart(tmp_path: Path) -> None:
    """Another model is another data set; another budget and another GPU are remarks."""
    written(tmp_path, put("meta_info", "dataset_info", "gsm8k", "sha", "a" * 40))
    other = both(
        named("short"),
        put("run_info", "train_config", "max_steps", 10),
        put("meta_info", "system_info", "accelerator", "Another GPU"),
        put("meta_info", "dataset_info", "gsm8k", "sha", "b" * 40),
    )
    written(tmp_path, other, "short.json")
    one = only(peft.read(tmp_path, None))
    (said,) = [
        remark for remark in one.remarks if remark.startswith("Runs differ beside their methods")
    ]
    for what in (
        "accelerator (",
        "max_steps (",
        "revision of gsm8k (",
        "Another GPU",
        "30",
        "a" * 40,
    ):
        assert what in said
    larger = both(other, put("run_info", "train_config", "model_id", "example/model-8B"))
    written(tmp_path, larger, "short.json")
    assert len(peft.read(tmp_path, None)) == 2


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder of ours."""
    return made_records.write(
        tmp_path_factory.mktemp("quickstart"), made_records.sweep(("lora", "full"), 2)
    )


def test_our_runs_survive_the_shape_of_peft(suite: Path, tmp_path: Path) -> None:
    """Systems, seeds, accuracies, rows and costs that are read back are those of the records."""
    files = write_report(suite, tmp_path, ("peft",))
    assert {file.parent for file in files} == {tmp_path / "peft"}
    assert len(files) == 4
    back, ours = only(peft.read(tmp_path / "peft", None)), only(results.read(suite, None))
    own = ours.lines.groupby(["system", "seed"]).agg(
        score=("score", "mean"),
        rows=("row", "count"),
        train_time=("train_seconds", "first"),
        file_size_mb=("saved_bytes", lambda of: 1e-6 * of.iloc[0]),
    )
    read = back.lines.set_index(["system", "seed"])[list(own.columns)].sort_index()
    assert read.index.tolist() == own.index.tolist()
    for column in own:
        assert read[column].tolist() == pytest.approx(own[column].tolist(), abs=1e-12), column
    speeds = {
        (r.spec.method.name, str(r.spec.seed)): r.metrics["samples_per_second"]
        for r in load(suite).compared
    }
    for key, seconds in back.lines.set_index(["system", "seed"])[
        "seconds_per_1000_samples"
    ].items():
        assert 1000 / seconds == pytest.approx(
            speeds[key], rel=0.1
        )  # the record leaves the warm-up out
    assert any("training steps alone" in cost.about for cost in back.costs)
    for file in files:
        data = json.loads(file.read_text())
        assert all(keys.keys() <= data[section].keys() for section, keys in GIVEN.items())
        assert (
            data["run_info"]["peft_branch"]
            is data["train_info"]["accelerator_memory_reserved_avg"]
            is None
        )
        assert str(suite) not in file.read_text()
    protocol = load(suite).reference.protocol_id
    assert set(back.lines["dataset"]) == {f"newswire, embedded:newsgpt, protocol {protocol}"}


@pytest.mark.parametrize(
    ("method", "options", "kind", "dtype"),
    [
        ("peft", {"type": "dora", "r": 4}, "LORA", "float32"),
        ("peft", {"type": "ia3"}, "IA3", "float32"),
        ("qlora", {}, "LORA", "int4"),
        ("prompt_tuning", {"tokens": 4}, "PROMPT_TUNING", "float32"),
        ("adapter", {}, None, "float32"),
        ("gone", {"type": 1}, None, None),
        ("peft", {"type": 1}, None, None),
    ],
)
def test_the_type_is_said_where_the_method_is_one_of_peft(
    method: str, options: dict[str, Any], kind: str | None, dtype: str | None, suite: Path
) -> None:
    """And null of another method, of one that isn't installed, and of options that can't be; no
    option is lost.
    """
    run = made_records.record(
        "lora", 0, method_spec=MethodSpec(name="x", method=method, options=options, lr=1e-3)
    )
    found = as_peft(load(suite), "x", run)["run_info"]
    assert found["peft_config"] == {"peft_type": kind, "method": method, **options}
    assert found["train_config"]["dtype"] == dtype


def test_the_command_writes_runs_of_one_suite_alone(suite: Path, tmp_path: Path) -> None:
    """`hpml-bench report DIR --format peft` says how many; over suites it is refused, and no
    page is written.
    """
    done = called("report", suite, "--out", tmp_path / "one", "--format", "peft")
    assert f"4 runs in {tmp_path / 'one' / 'peft'}" in done.output
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["peft"]
    settings = made_records.SETTINGS.model_copy(update={"backbone": "hub:example/other"})
    records = made_records.sweep(("lora", "full"), 2, suite="other", settings=settings)
    other = made_records.write(tmp_path / "other", records)
    page = page_over([load(suite), load(other)], tmp_path / "both")
    with pytest.raises(UserError, match="one suite"):
        write_page(page, tmp_path / "both", ("html", "peft"))
    assert [path.name for path in (tmp_path / "both").iterdir()] == ["looks.json"]
