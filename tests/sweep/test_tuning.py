"""Tuning: equal trials for all methods, never on the test rows, resumed, and its result in suite
file and report.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from rich.console import Console

from helpers import made_records, tiny
from helpers.commands import called
from hpml_bench.cli.commands.tune import hints
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.launch import launcher as launch
from hpml_bench.launch import preparation
from hpml_bench.records import tuning as records
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import load_record
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunRecord, protocol_id
from hpml_bench.records.tuning import Trial, TunedMethod, TuningRecord
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, RunSpec, TaskSpec
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.sweep.tune import (
    FIRST_SEED,
    TuningRequest,
    next_rate,
    run_tuning,
    validation_for_test,
)
from hpml_bench.system.files import read_model
from hpml_bench.training.request import RunRequest

Tuned = tuple[Path, Path, Result]
ACCURACY = next(metric for metric in made_records.DEFINITIONS if metric.name == "test_accuracy")


def tune(suite: Path, out: Path, *options: str, status: int = 0) -> Result:
    return called("tune", suite, "--out", out, *options, status=status)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A tuning of two methods x two trials: suite, its folder, and what the command said."""
    folder = tmp_path_factory.mktemp("tuned")
    suite = tiny.local_suite(folder, world_size=1)
    return suite, folder / "out/colours/tuning", tune(suite, folder / "out", "--trials", "2")


def read(folder: Path) -> TuningRecord:
    return read_model(folder / "trials.json", TuningRecord)


def section(folder: Path) -> Any:
    """Return a report's section on the tuning; None without one."""
    made = registry.get("sections", "training").sections(Results.load(folder))
    return next((one for one in made if one is not None and one.slug == "tuning"), None)


def rate(method: str) -> float:
    return load_suite("quickstart").method(method).lr


def trial(
    number: int = 0, lr: float = 1e-3, accuracy: float | None = 0.5, loss: float = 1.0, **more: Any
) -> Trial:
    values = {
        "seed": FIRST_SEED + number,
        "status": "ok",
        "seconds": 2.0,
        "samples": 32,
        "parameters": 9,
    }
    own = {"number": number, "lr": lr, "score": accuracy, "loss": loss, "run_id": "r"}
    return Trial.model_validate(own | values | more)


def method(*trials: Trial, name: str = "lora") -> TunedMethod:
    spec = MethodSpec(name=name, method=name, lr=1e-3)
    return TunedMethod(spec=spec, low=1e-4, high=1e-2, trials=trials, better="higher")


def made_up(*methods: TunedMethod) -> TuningRecord:
    return TuningRecord(
        suite=made_records.sweep(("lora",), 1)[0].spec.suite,
        sampler="qmc",
        factor=10,
        settings=made_records.SETTINGS,
        digests={},
        methods=methods,
        validation_rows=500,
        headline=ACCURACY,
    )


class Launcher:
    """Stands in for the launcher: made-up outcomes at once, or an interruption or failure at a
    chosen run.
    """

    def __init__(self, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.specs: list[RunSpec] = []
        self.interrupt_at: int | None = None
        self.diverging: set[str] = set()
        prepared = tiny.NOTHING.model_copy(
            update={"data": str(tmp_path), "digests": made_records.DIGESTS}
        )
        patch.setattr(preparation, "prepare", lambda *_: prepared)
        patch.setattr(launch, "run", self.run)

    def run(self, request: RunRequest, *_: object) -> RunRecord:
        """Return a record whose accuracy is best at three times the suite's rate."""
        spec = request.spec
        self.specs.append(spec)
        if len(self.specs) - 1 == self.interrupt_at:
            raise KeyboardInterrupt
        status = "diverged" if spec.method.name in self.diverging else "ok"
        accuracy = 0.9 - abs(float(np.log10(spec.method.lr / 3e-2))) / 10
        return made_records.sweep(("lora",), 1)[0].model_copy(
            update={
                "status": status,
                "spec": spec,
                "run_id": spec.run_id,
                "metrics": {
                    "test_accuracy": accuracy,
                    "test_loss": 1 - accuracy,
                    "trainable_parameters": 5.0,
                },
            }
        )

    @property
    def rates(self) -> list[tuple[str, float, int]]:
        return [(spec.method.name, spec.method.lr, spec.seed) for spec in self.specs]


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Launcher:
    return Launcher(monkeypatch, tmp_path)


def test_every_method_gets_the_same_trials_and_budget(tuned: Tuned) -> None:
    """Two trials each, with the same seeds and samples, the first at the suite's rate, all within
    the range.

    The result is a suite that loads from elsewhere, under its own name, with the chosen rate and
    otherwise the same.
    """
    record = read(tuned[1])
    assert {method.name: len(method.trials) for method in record.methods} == {"lora": 2, "head": 2}
    for one in record.methods:
        assert [t.seed for t in one.trials] == [10_000, 10_001]
        assert {t.samples for t in one.trials} == {4 * 8}
        assert one.trials[0].lr == one.spec.lr
        assert all(one.spec.lr / 10 <= t.lr <= one.spec.lr * 10 for t in one.trials)
    multiples = [one.trials[1].lr / one.spec.lr for one in record.methods]
    assert multiples[0] == pytest.approx(multiples[1], rel=0.06)  # two significant digits
    path, before = tuned[1] / "colours-tuned.yaml", load_suite(str(tuned[0]))
    after = load_suite(str(path))
    assert (after.name, after.settings, after.seeds) == (
        "colours-tuned",
        before.settings,
        before.seeds,
    )
    assert after.method("lora").lr == next(
        one.chosen for one in record.methods if one.name == "lora"
    )
    assert after.methods["head"] == before.methods["head"]  # its rate reaches no parameter
    assert str(path) in tuned[2].output
    assert "validation accuracy" in tuned[2].output


def test_the_test_rows_are_never_evaluated(tuned: Tuned) -> None:
    """Every trial predicts the 16 validation rows, and its result is the last validation point;
    24 are for the test.
    """
    folder = tuned[1]
    for path in folder.glob("*/run.json"):
        run = load_record(path)
        points = {point.metric: point.value for point in read_points(path.parent)}
        frame = read_predictions(path.parent)
        assert (
            len(frame) == run.spec.settings.validation_samples == read(folder).validation_rows == 16
        )
        assert run.metrics["test_accuracy"] == points["validation_accuracy"]
        assert run.metrics["test_loss"] == pytest.approx(points["validation_loss"])
        assert "none of which is read" in run.notes["a trial of tuning"]
        assert run.digests.data != read(folder).digests["data"]


def test_ranks_get_no_path_to_the_test_rows(tmp_path: Path) -> None:
    """The folder they are given leads to training and validation rows only."""
    original = tiny.prepared(tmp_path)
    with validation_for_test(original) as substituted:
        places = {path.name: path.resolve().name for path in Path(substituted.data).iterdir()}
    assert places == {"train": "train", "validation": "validation", "test": "validation"}


def test_a_second_call_runs_nothing(tuned: Tuned, tmp_path: Path) -> None:
    """trials.json counts, even where a trial's own record is gone; the result is the same."""
    shutil.copytree(tuned[1], tmp_path / "colours/tuning")
    shutil.rmtree(next((tmp_path / "colours/tuning").glob("lora-*")))
    before = (tmp_path / "colours/tuning/trials.json").read_text()
    result = tune(tuned[0], tmp_path, "--trials", "2")
    assert "4 of 4 runs are recorded already" in result.output
    assert (tmp_path / "colours/tuning/trials.json").read_text() == before


def go(tmp_path: Path, **more: Any) -> Any:
    values: dict[str, Any] = {"trials": 4, "methods": ("lora", "full")} | more
    request = SweepRequest(load_suite("quickstart"), tmp_path / "out", values.pop("methods"))
    return run_tuning(TuningRequest(request, **values), Console(quiet=True))


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_an_interrupted_tuning_tries_what_a_whole_one_does(
    launcher: Launcher, tmp_path: Path, sampler: Any
) -> None:
    """Interrupted in the sixth run: equal trials until then, no suite file; resumed, the same
    eight runs.
    """
    go(tmp_path / "a", sampler=sampler)
    unbroken, launcher.specs = launcher.rates, []
    launcher.interrupt_at = 5
    cut = go(tmp_path / "b", sampler=sampler)
    assert cut.ending.how == "interrupted"
    assert sorted(len(one.trials) for one in read(cut.folder).methods) == [2, 3]
    assert not list(cut.folder.glob("*.yaml"))
    launcher.interrupt_at = None
    done = go(tmp_path / "b", sampler=sampler)
    assert launcher.rates == [*unbroken[:5], unbroken[5], *unbroken[5:]]
    assert [len(one.trials) for one in done.record.methods] == [4, 4]


def test_a_trial_lost_by_a_kill_counts(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between a trial's record and trials.json: the next call takes it and
    runs the rest.
    """

    def die(request: RunRequest, *_: object) -> RunRecord:
        digests = request.prepared.digests
        ids = {"digests": digests, "protocol_id": protocol_id(request.spec.settings, digests)}
        RunFolder(request.folder).begin()
        RunFolder(request.folder).commit(launcher.run(request).model_copy(update=ids))
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(launch, "run", die)
        with pytest.raises(SystemExit):
            go(tmp_path, trials=1)
    done = go(tmp_path, trials=1)
    assert len(launcher.rates) == 2
    assert [[t.lr for t in one.trials] for one in done.record.methods] == [
        [rate("lora")],
        [rate("full")],
    ]


def test_a_failing_method_spends_its_trials_too(launcher: Launcher, tmp_path: Path) -> None:
    """All its trials count, it keeps its rate, and a sentence says so; the other is tuned as if
    alone.
    """
    launcher.diverging = {"full"}
    result = go(tmp_path)
    lora, full = result.record.methods
    assert [t.status for t in full.trials] == ["diverged"] * 4
    assert (full.best, full.chosen) == (None, rate("full"))
    assert load_suite(str(result.suite_file)).methods["lora"].lr == lora.best.lr
    assert any("full: no trial ended well" in hint for hint in hints(result.record))


def test_other_conditions_are_another_tuning(launcher: Launcher, tmp_path: Path) -> None:
    """With other steps nothing is taken over; with other methods the earlier ones stay in the
    record.
    """
    go(tmp_path, trials=1)
    both = go(tmp_path, trials=1, methods=("head",))
    assert [one.name for one in both.record.methods] == ["lora", "full", "head"]
    launcher.specs = []
    suite = load_suite("quickstart", ["steps=3"])
    request = SweepRequest(suite, tmp_path / "out", ("lora",))
    result = run_tuning(TuningRequest(request, 1), Console(quiet=True))
    assert len(launcher.specs) == 1
    assert [one.name for one in result.record.methods] == ["lora"]


def test_the_best_is_the_most_accurate_then_the_lowest_loss() -> None:
    """A failed trial is never it, and a tie in accuracy goes to the lower loss."""
    failed = trial(3, 1e-1, None, status="diverged")
    assert (
        method(failed, trial(0, 1, 0.0), trial(1, 2, 0.6, 0.9), trial(2, 3, 0.6, 0.8)).chosen == 3
    )
    assert method(failed).chosen == 1e-3


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_estimator_goes_the_metrics_way(better: str) -> None:
    """Towards the rates with the better scores, of which a failed trial has the worst there can
    be.
    """
    made = [trial(k, 10 ** (-4 + k / 5), 0.09 * k) for k in range(10)] + [
        trial(10, 1e-3, None, status="failed")
    ]
    metric = ACCURACY.model_copy(update={"better": better})
    record = made_up().model_copy(update={"sampler": "tpe", "headline": metric})
    rate = next_rate(record, method().spec, made)
    assert (1e-3 < rate <= 1e-2) if better == "higher" else (1e-4 <= rate < 1e-3)


@pytest.mark.parametrize(("best", "edge"), [(1e-4, True), (1e-3, False), (1e-2, True)])
def test_a_best_rate_at_the_edge_is_told(best: float, edge: bool) -> None:
    """The hint names the side to go on at; within the range there is none."""
    one = method(
        *(trial(k, lr, 0.9 if lr == best else 0.5) for k, lr in enumerate((1e-3, 1e-4, 1e-2)))
    )
    told = hints(made_up(one))
    assert bool(told) == edge
    assert not edge or ("below 0.0001" if best == 1e-4 else "above 0.01") in told[0]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--sampler", "tpe", "pip install 'optuna"),
        ("--write", "my best!.yaml", "--write my best!.yaml: the file's name becomes the suite's"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    option: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs: a sampler whose library is missing, and a name that no suite can
    have.
    """
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = tune(Path("quickstart"), tmp_path, option, value, status=2)
    assert said in result.stderr


def sentences(folder: Path, **changes: Any) -> str:
    """Return what the page says of a tuning, of which some fields are others."""
    made_records.write(folder, made_records.sweep(("lora", "full"), 2))
    (folder / "tuning").mkdir()
    digests = {key: value for key, value in made_records.DIGESTS if value}
    record = made_up(method(trial())).model_copy(update={"digests": digests, **changes})
    (folder / "tuning/trials.json").write_text(record.model_dump_json())
    return " ".join(section(folder).blocks[0].sentences)


def pooled(how: str) -> dict[str, Any]:
    task = TaskSpec(name="sequence_classification", options={"pooling": how})
    return {"settings": made_records.SETTINGS.model_copy(update={"task": task})}


NEVER = "never on the test rows"
OTHER_DATA = made_records.DIGESTS.model_dump(exclude_none=True) | {"data": "d" * 64}
RANK_64 = method(trial()).model_copy(
    update={
        "spec": MethodSpec(
            name="lora", method="lora", lr=1e-3, options=made_records.OPTIONS["lora"] | {"r": 64}
        )
    }
)


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        (pooled("last"), NEVER, "differ"),  # a default that is written out
        (
            pooled("mean"),
            "The tuning's settings were not those of these runs: task differ.",
            " rows of other data",
        ),
        (
            {"digests": OTHER_DATA},
            "validation rows of other data, which may hold test rows of these runs",
            NEVER,
        ),
        ({"digests": OTHER_DATA}, "by their digests, other data.", NEVER),
        (
            {"methods": (RANK_64,)},
            "These runs had other options than the tuning's trials: lora (r).",
            " rows of other data",
        ),
    ],
)
def test_differences_of_a_tuning_are_named(
    changes: dict[str, Any], said: str, unsaid: str, tmp_path: Path
) -> None:
    """In settings, data, of which nothing is then said about test rows, and options of a method."""
    text = sentences(tmp_path, **changes)
    assert said in text
    assert unsaid not in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "learning rates tuned alike, 1 trials each"),
        (
            {"settings": made_records.SETTINGS.model_copy(update={"eval_batch": 3})},
            "learning rates tuned alike, 1 trials each",
        ),
        (
            {"settings": made_records.SETTINGS.model_copy(update={"max_length": 48})},
            "learning rates tuned in other settings, 1 trials each",
        ),
    ],
)
def test_the_first_screen_says_how_rates_were_tuned(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """By the rule of the section on tuning: those that bear on training were not those of the
    runs.
    """
    sentences(tmp_path, methods=(method(trial()), method(trial(), name="full")), **changes)
    assert answer_of(Results.load(tmp_path)).setup.rates == said


@pytest.mark.parametrize("damage", ["", "[]", '{"schema_version": 99}', None])
def test_a_report_without_a_readable_tuning_has_no_section(
    tmp_path: Path, damage: str | None
) -> None:
    """Missing, torn, or of another version: left out, and no error."""
    made_records.write(tmp_path, made_records.sweep(("lora",), 2))
    (tmp_path / "tuning").mkdir()
    if damage is not None:
        (tmp_path / "tuning/trials.json").write_text(damage)
    assert section(tmp_path) is None


def test_a_packaged_suite_brings_its_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the folder has none, the committed record of that suite is shown; a tuned suite
    finds its original's.
    """
    committed = made_up(method(trial()))
    monkeypatch.setattr(records, "packaged", lambda *_: tmp_path / "packaged")
    (tmp_path / "packaged").mkdir()
    (tmp_path / f"packaged/{committed.suite}.json").write_text(committed.model_dump_json())
    assert records.find(tmp_path / "results", committed.suite) == committed
    assert records.find(tmp_path / "results", f"{committed.suite}-tuned") == committed
    assert records.find(tmp_path / "results", "another") is None


def test_committed_records_are_those_of_their_suites() -> None:
    """Every benchmarks/tuning/SUITE.json can be read, is that suite's, and its choices are the
    suite's rates.
    """
    for path in (Path(__file__).parents[2] / "benchmarks/tuning").glob("*.json"):
        found = read_model(path, TuningRecord)
        assert found is not None, path
        suite = load_suite(path.stem)
        assert found.suite == suite.name
        assert len({len(one.trials) for one in found.methods}) == 1
        for one in found.methods:
            assert suite.method(one.name).lr == pytest.approx(one.chosen), (path, one.name)
        assert "/home/" not in json.dumps(found.model_dump(mode="json"))
