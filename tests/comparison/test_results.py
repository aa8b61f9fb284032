"""Results folders of this project as an input: rows, seeds, groups, costs, failures, and no two
protocols together.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import made_records
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.inputs import read
from hpml_bench.comparison.readers import results
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summarize import summarize
from hpml_bench.judge.summary import PageSummary
from hpml_bench.judge.verdicts import judge
from hpml_bench.page.render import write_report
from hpml_bench.records.run import Declared
from hpml_bench.suite.settings import MethodSpec
from hpml_bench.suite.suite import Margin
from hpml_bench.system.errors import UserError

REFERENCE = Path(__file__).parents[2] / "reports/reference"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with a failed run."""
    records = [
        *made_records.sweep(("lora", "full"), 3),
        made_records.failed("adapter", 0, "oom_cuda", "no\nmemory"),
    ]
    return made_records.write(tmp_path_factory.mktemp("suite"), records)


def one_answer(folder: Path) -> PageSummary:
    """Return the answer to a folder, which is the same whichever command takes it."""
    (scores,) = assemble(read([folder]))
    answer = summarize(judge(scores))
    assert answer == answer_of(Results.load(folder))
    return answer


def test_rows_give_the_records_scores_and_costs(suite: Path) -> None:
    """The mean of a run's rows is its accuracy; its costs are the same in all its rows."""
    one_answer(suite)  # failed runs and methods without a run are in both
    (one,) = results.read(suite)
    assert (one.score.name, one.score.better, one.score.low, one.score.high) == (
        "test_accuracy",
        "higher",
        0.0,
        1.0,
    )
    assert [cost.column for cost in one.costs] == ["train_seconds", "peak_memory_mb", "saved_bytes"]
    runs = one.lines.groupby(["system", "seed"])
    for record in Results.load(suite).compared:
        rows = runs.get_group((record.spec.method.name, str(record.spec.seed)))
        assert rows["score"].mean() == pytest.approx(record.metrics["test_accuracy"], abs=1e-12)
        assert rows["train_seconds"].unique().tolist() == [record.metrics["train_seconds"]]
        assert rows["row"].tolist() == [str(n) for n in range(1000)]
        assert rows["where"].iat[7] == f"{suite / record.run_id / 'predictions.parquet'}, row 7"
    assert [(run.system, run.seed, run.status) for run in one.failed] == [
        ("adapter", "0", "oom_cuda: no memory")
    ]
    assert one.source == f"results of hpml-bench {suite} (6 files)"
    assert {run.dataset for run in one.failed} == set(one.lines["dataset"])


def test_groups_of_test_rows_are_kept(tmp_path: Path) -> None:
    """Rows of one group in all runs; without groups there is no such column."""
    folder = made_records.write(tmp_path, made_records.sweep(("lora", "full"), 2))
    assert "group" not in results.read(folder)[0].lines
    (one,) = results.read(made_records.grouped(folder, np.arange(1000) // 4))
    for _, rows in one.lines.groupby(["system", "seed"]):
        assert rows["group"].tolist() == [str(n // 4) for n in range(1000)]


def test_another_protocol_is_another_data_set(suite: Path, tmp_path: Path) -> None:
    """Runs of one suite by another budget are never ranked with it, within a folder of suites or
    beside it.
    """
    longer = made_records.SETTINGS.model_copy(update={"steps": 200})
    other = made_records.write(
        tmp_path / "other", made_records.sweep(("lora", "full"), 3, settings=longer)
    )
    shutil.copytree(suite, tmp_path / "shorter")
    names = [
        [one.lines["dataset"].iat[0] for one in results.read(path)]
        for path in (tmp_path, suite, other)
    ]
    assert sorted(names[0]) == sorted(names[1] + names[2])
    assert len(set(names[0])) == 2
    assert all(name.startswith("example, protocol ") for name in names[0])


def test_the_headline_is_the_one_metric_with_rows(suite: Path) -> None:
    """Its name is taken in each of its forms, and another one is an error."""
    for name in ("test_accuracy", "accuracy"):
        assert results.read(suite, name)[0].score.name == "test_accuracy"
    with pytest.raises(UserError, match="row scores of test_accuracy alone"):
        results.read(suite, "test_macro_f1")


@pytest.mark.parametrize(
    "folder", sorted(path.name for path in REFERENCE.iterdir() if (path / "suite.json").exists())
)
def test_report_and_compare_give_one_answer(folder: str) -> None:
    """Numbers, verdicts and words of a folder are the same, whichever command takes it."""
    one_answer(REFERENCE / folder)


def test_looks_and_neighbours_are_in_both(tmp_path: Path) -> None:
    """Seeds that were added later are another look, and runs that shared a host rank no costs,
    in PEFT's shape too.
    """
    runs = [
        run.model_copy(
            update={"declared": Declared(seeds=3 if run.spec.seed < 3 else 5, margin=Margin())}
        )
        for run in made_records.sweep(("lora", "full"), 5, neighbours=("other",))
    ]
    folder = made_records.write(tmp_path / "runs", runs)
    answer = one_answer(folder)
    assert (answer.look, answer.unranked) == (2, "runs had neighbours on their host")
    write_report(folder, tmp_path, ("peft",))
    (scores,) = assemble(read([tmp_path / "peft"]))
    assert set(judge(scores).unranked.values()) == {"runs had neighbours on their host"}


@pytest.mark.parametrize(
    ("shape", "hosts"),
    [
        ("folders", ("n1", "n1")),
        ("folders", ("n1", "n2")),
        ("files of PEFT's shape", ("n1", "n2")),
    ],
)
def test_costs_of_folders_are_ranked_on_one_host_alone(
    shape: str, hosts: tuple[str, str], tmp_path: Path
) -> None:
    """Two folders of one protocol, a method each: of several hosts their costs show the hosts."""
    given = []
    for name, host in zip(("lora", "full"), hosts, strict=True):
        own = made_records.sweep(
            (name,), 5, environment=made_records.ENVIRONMENT | {"hosts": [host]}
        )
        folder = made_records.write(tmp_path / name, own)
        if shape != "folders":
            write_report(folder, tmp_path / "files" / name, ("peft",))
        given.append(folder if shape == "folders" else tmp_path / "files" / name / "peft")
    (scores,) = assemble(read(given))
    found = judge(scores)
    assert bool(found.costs) is (hosts[0] == hosts[1])
    assert set(found.unranked.values()) == (
        set() if found.costs else {"seeds were spread over hosts"}
    )


def test_a_peak_is_ranked_by_the_same_memory_in_both(tmp_path: Path) -> None:
    """Also where memory over set-up is equal in all runs: that tells nothing, and the peak must
    not take its place.
    """
    peak = next(metric for metric in made_records.DEFINITIONS if metric.name == "peak_memory_mb")
    over = peak.model_copy(
        update={"name": "peak_memory_over_setup_mb", "title": "memory over set-up"}
    )
    records = []
    for record in made_records.sweep(("lora", "full"), 3):
        memory = {
            "peak_memory_mb": 100.0 if record.spec.method.name == "lora" else 300.0,
            over.name: 4.0,
        }
        changed = {"metrics": record.metrics | memory, "definitions": (*record.definitions, over)}
        records.append(record.model_copy(update=changed))
    one_answer(made_records.write(tmp_path, records))


@pytest.mark.parametrize("bounds", [(0.0, 0.5), (0.0, 100.0)])
def test_a_range_of_right_and_wrong_is_its_own(suite: Path, bounds: tuple[float, float]) -> None:
    """Another one would change the guard, or nothing at all."""
    with pytest.raises(UserError, match="--range is for the scores of rows"):
        assemble(read([suite]), bounds=bounds)


def test_long_labels_of_one_name_are_compared(tmp_path: Path) -> None:
    """Two specifications of a name are told apart by their options, also where that takes over
    100 characters.
    """
    records = []
    for end in "ab":
        options = {f"option_{at}": "x" * 30 + end for at in range(4)}
        spec = MethodSpec(name="lora", method="lora", options=options, lr=3e-3)
        records += [made_records.record("lora", seed, seed, method_spec=spec) for seed in range(3)]
    folder = made_records.write(tmp_path, records)
    (scores,) = assemble(read([folder]))
    assert len(summarize(judge(scores)).methods) == 2
