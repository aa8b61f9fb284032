"""The examples of docs/adding.md, installed as another package's and run."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from helpers import made_records, plugin_packages, tiny
from helpers.commands import called
from hpml_bench.data.prepare import prepare
from hpml_bench.judge.results import Results
from hpml_bench.plugins.task import make_task
from hpml_bench.plugins.tracker import make_trackers
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import load_records
from hpml_bench.records.predictions import Predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.profile import load_profile
from hpml_bench.suite.settings import MethodSpec, OptimizerSpec, RunSpec, TaskSpec
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.jobs import JobSweep
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system.errors import UserError
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import Trainer

PAGE = Path(__file__).parents[1] / "docs/adding.md"
EXAMPLES: dict[Any, str] = {
    "methods": "bitfit",
    "optimizers": "adafactor",
    "tasks": "probability",
    "datasets": "signs",
    "scorers": "length",
    "metrics": "balanced",
    "probes": "longest",
    "trackers": "diary",
    "engines": "turns",
    "sections": "machine",
    "commands": "where",
}


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Write each example to a module of a package that registers it."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    with pytest.MonkeyPatch.context() as patch:
        for (kind, name), block in zip(EXAMPLES.items(), blocks, strict=True):
            plugin_packages.install(
                patch, tmp_path_factory.mktemp("package"), kind, **{name: block}
            )
        yield
    plugin_packages.forget()


def run(folder: Path, **changes: Any) -> RunSpec:
    method = registry.plugin("methods", "bitfit")
    values = {"backbone": "embedded:newswire-gpt2", "task": "probability", "dataset": "signs"}
    sizes = {
        "train_samples": 24,
        "validation_samples": 8,
        "test_samples": 10,
        "world_size": 1,
        "steps": 8,
    }
    spec = MethodSpec(
        name="bitfit", method="bitfit", options=method.Options().model_dump(), lr=method.lr
    )
    return RunSpec(
        suite="adding", settings=tiny.settings(**values | sizes | changes), method=spec, seed=0
    )


def test_the_examples_train_and_evaluate_together(tmp_path: Path) -> None:
    """BitFit learns to tell praise from blame by the task's loss; only biases move; the probe
    sees its steps.
    """
    spec = run(tmp_path, dataset={"name": "signs", "options": {"words": 3}})
    prepared = prepare(spec.settings)
    probe = registry.plugin("probes", "longest")()
    with tiny.alone() as group:
        assembly = assemble(spec, prepared, group)
        test = assembly.test
        assert len(test.tokens(0)) == 3 * 3 + 1, "three words of three tokens, and the end"
        probe.start(replace(assembly, folder=tmp_path))
        trainer = Trainer(assembly, [probe])
        before = trainer.evaluate(test, "test", 0)
        frozen = {
            n: p.clone()
            for n, p in trainer.model.encoder.named_parameters()
            if not n.endswith("bias")
        }
        trainer.train()
        after = trainer.evaluate(test, "test", trainer.steps)
    assert all(
        trainer.model.encoder.get_parameter(name).equal(weight) for name, weight in frozen.items()
    )
    assert after.metrics["loss"] < before.metrics["loss"]
    scores = trainer.task.scores(after.predictions)
    assert scores.mean() == pytest.approx(after.metrics["brier"])
    assert ((after.predictions.prediction > 0) & (after.predictions.prediction < 1)).all()
    assert trainer.task.guess(test.references).chance == 0.25
    assert probe.stop()["longest_step_seconds"] > 0
    assert probe.state() == {}, "a checkpoint can be saved"


def test_the_example_of_an_optimizer_trains(tmp_path: Path) -> None:
    """Chosen by the suite or by the method, it is torch's, with its option and the suite's
    weight decay.
    """
    chosen = {"name": "adafactor", "options": {"clipping": 2.0}}
    spec = run(tmp_path, optimizer=chosen, weight_decay=0.1)
    own = spec.method.model_copy(update={"optimizer": OptimizerSpec(**chosen)})
    for one in (
        spec,
        spec.model_copy(
            update={"settings": run(tmp_path, weight_decay=0.1).settings, "method": own}
        ),
    ):
        with tiny.alone() as group:
            trainer = Trainer(assemble(one, prepare(one.settings), group))
            done = trainer.train()
        assert type(trainer.optimizer) is torch.optim.Adafactor
        assert {(part["d"], part["weight_decay"]) for part in trainer.optimizer.param_groups} == {
            (2.0, 0.1)
        }
        assert done.reached == done.optimized > 0


def test_the_example_of_a_task_refuses_three_classes(tmp_path: Path) -> None:
    """In a sentence that names the data set."""
    spec = run(tmp_path)
    settings = tiny.task_settings(tmp_path, "sequence_classification").model_copy(
        update={"task": spec.settings.task}
    )
    with pytest.raises(
        UserError,
        match="data set text_files: there are 3 classes, and a probability is of one of two",
    ):
        prepare(settings)


@pytest.mark.suites
def test_the_example_of_an_engine_does_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs find it as any installed package's, and their runs are recorded with the job that
    made them.
    """
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    small = (
        "steps=3",
        "train_samples=48",
        "validation_samples=16",
        "test_samples=16",
        "world_size=1",
        "threads=1",
    )
    suite = load_suite("quickstart", small, seeds=1)
    request = SweepRequest(suite, tmp_path, ("head",))
    sweep = JobSweep.open(request, load_profile("turns"), request.folder, print)
    assert sweep.submit(again=True) == (0,)
    found: list[RunRecord] = []
    assert sweep.wait(found.append)
    assert [(state.status, state.spec.seed) for state in found] == [("ok", 0)]
    record = RunFolder(sweep.folder / found[0].run_id).record()
    assert record.neighbours == ()
    assert sweep.submit(again=True) == ()


def test_the_example_of_a_section_says_its_sentence() -> None:
    """It reads the settings of the runs."""
    module = registry.get("sections", "machine")
    settings = SimpleNamespace(device="cpu")
    found = module.section(
        SimpleNamespace(reference=SimpleNamespace(spec=SimpleNamespace(settings=settings)))
    )
    assert found.blocks[0].sentences == ("Run on cpu.",)
    assert module.order not in [
        registry.get("sections", n).order for n in registry.names("sections") if n != "machine"
    ]


def test_the_example_of_a_tracker_keeps_its_diary(tmp_path: Path) -> None:
    """It notes a run when it is over, and says of a report where its runs are."""
    (diary,) = make_trackers({"diary": "on"})
    results = Results.load(
        made_records.write(tmp_path / "example", made_records.sweep(("lora",), 2))
    )
    spec = results.compared[0].spec
    with diary.follow(spec, results.folder / spec.run_id, results.folder):
        assert not (results.folder / "diary.txt").exists()
    assert (results.folder / "diary.txt").read_text() == f"{spec.run_id}\n"
    said = diary.publish(results.folder, results.compared, list, None)
    assert said == f"2 runs are in {results.folder / 'diary.txt'}"


def test_the_example_of_a_command_prints_its_folders(tmp_path: Path) -> None:
    """It is listed beside the others, and runs."""
    made_records.write(tmp_path / "example", made_records.sweep(("lora",), 1))
    assert "where" in called("--help").output
    assert re.search(r"bitfit +\(from another package\)", called("list", "methods").output)
    assert called("where", tmp_path).output == f"{tmp_path / 'example'}\n"


def test_the_example_of_a_scorer_is_taken_by_the_task() -> None:
    """Its title heads the score, and its scores are numbers, so that no test of right and wrong
    is used.
    """
    task = make_task(TaskSpec(name="causal_lm", options={"scorer": "length"}))
    assert task.headline == "test_score"
    assert (
        next(metric for metric in task.metrics if metric.name == "test_score").title
        == "length match"
    )
    assert not task.binary
    assert registry.plugin("scorers", "length")().score("one two", "one two three four") == 0.5


def test_the_example_of_a_metric_is_sklearns(tmp_path: Path) -> None:
    """Its rows have the mean that scikit-learn has, and are its change by a row's share."""
    from sklearn.metrics import balanced_accuracy_score

    random = np.random.default_rng(0)
    reference, prediction = random.integers(0, 3, 200), random.integers(0, 3, 200)
    losses = np.zeros(200)
    metric = registry.plugin("metrics", "balanced")(3)
    rows = metric.rows(Predictions(np.arange(200), reference, prediction, losses))
    expected = balanced_accuracy_score(reference, prediction)
    assert rows.mean() == pytest.approx(expected)
    weight, share = np.ones(200), 1e-6
    weight[7] += share * 200
    moved = balanced_accuracy_score(reference, prediction, sample_weight=weight)
    assert rows[7] - expected == pytest.approx((moved - expected) / share, rel=1e-3, abs=1e-3)


# What the examples do in a sweep and on its page

SMALL = {
    "steps": 4,
    "train_samples": 48,
    "validation_samples": 16,
    "test_samples": 24,
    "global_batch": 8,
    "log_every": 2,
    "world_size": 1,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "latency_samples": 2,
    "max_length": 64,
    "backbone": "embedded:newswire-gpt2",
}
SWEEPS: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "methods optimizers tasks datasets probes trackers sections": (
        {"task": "probability", "dataset": "signs", "optimizer": "adafactor"},
        ("--track", "diary"),
        ("bitfit", "Adafactor", "Brier score", "signs", "longest step", "Run on cpu."),
    ),
    "metrics": ({"dataset": "newswire", "rank_by": "balanced"}, (), ("balanced accuracy",)),
    "scorers": (
        {
            "task": {"name": "causal_lm", "options": {"scorer": "length", "max_new_tokens": 4}},
            "dataset": "newswire_chat",
        },
        (),
        ("length match",),
    ),
    "engines": ({"dataset": "newswire"}, ("--on", "turns"), ("newswire",)),
}
"""Kinds of plug-ins -> settings that choose their examples, options, and words of the page."""


def test_every_kind_has_an_example_that_is_run() -> None:
    """All kinds of the registry, by a sweep with a page; a command has no part in one."""
    run = {kind for kinds in SWEEPS for kind in kinds.split()}
    assert run == {*registry.ONE} == {*EXAMPLES} - {"commands"}


@pytest.mark.parametrize(
    "kinds",
    [pytest.param(of, marks=pytest.mark.suites if of == "engines" else ()) for of in SWEEPS],
)
def test_a_sweep_with_the_examples_ends_in_a_page(
    kinds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run-all` with each kind's example trains, evaluates and writes a page that names it."""
    settings, options, words = SWEEPS[kinds]
    suite = {
        "description": "Examples of docs/adding.md.",
        "seeds": 1,
        "settings": SMALL | settings,
        "methods": {"bitfit": {}},
    }
    (tmp_path / "added.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    called(
        *("run-all", tmp_path / "added.yaml", "--out", tmp_path / "out", "--wandb", "off"), *options
    )
    folder = tmp_path / "out" / "added"
    (record,) = load_records(folder).records
    assert record.status == "ok"
    page = (folder / "report.html").read_text(encoding="utf-8").lower()
    assert [word for word in words if word.lower() not in page] == []
    if "trackers" in kinds:
        assert (folder / "diary.txt").read_text() == f"{record.run_id}\n"
