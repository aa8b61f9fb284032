"""What every registered method, optimizer, task, data set, probe and section must have, whoever
wrote it.
"""

import dataclasses
import inspect
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import plugin_packages, probe_run, tiny
from helpers.loops import trained as train
from hpml_bench.data.draw import draw
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.dataset import IN_WORDS, DatasetLoader, LoadedData, Target, make_loader
from hpml_bench.plugins.engine import Engine
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import Method
from hpml_bench.plugins.optimizer import Optimizer
from hpml_bench.plugins.probe import Probe
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.records.predictions import Predictions, TextAnswers
from hpml_bench.records.run import Metric
from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.profile import load_profile
from hpml_bench.system.errors import UserError
from hpml_bench.training.trainer import Trainer

# `import scipy`, which `statistics` has, loads no part of it and costs 10 ms; its parts are heavy
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "pandas",
    "matplotlib",
    "scipy.special",
    "statsmodels",
    "wandb",
)
TASKS = registry.names("tasks")


def parameters(function: object) -> int:
    return len(inspect.signature(function).parameters)


KINDS: dict[registry.Kind, type] = {
    "methods": Method,
    "optimizers": Optimizer,
    "engines": Engine,
    "tasks": Task,
    "datasets": DatasetLoader,
    "probes": Probe,
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in registry.names(kind)]
)
def test_a_plug_in_says_what_it_is(kind: registry.Kind, name: str) -> None:
    """A first line, a title or targets, explained options with defaults that validate, and no
    hook of another shape.
    """
    plugin = registry.plugin(kind, name)
    assert registry.get(kind, name).__doc__
    for hook, of in vars(KINDS[kind]).items():
        if inspect.isfunction(of) and not hook.startswith("_"):
            assert parameters(getattr(plugin, hook)) == parameters(of), hook
    if kind == "probes":
        return
    assert issubclass(plugin.Options, Frozen)
    assert all(field.description for field in plugin.Options.model_fields.values()), (
        "an option has no docstring"
    )
    if kind == "datasets":
        assert plugin.targets
        assert set(plugin.targets) <= set(TYPES)
        return
    assert isinstance(plugin.title, str)
    assert plugin.title
    defaults = plugin.Options()
    assert plugin.Options.model_validate(defaults.model_dump(mode="json")) == defaults
    if kind == "engines":
        assert plugin.Options.model_validate(load_profile(name).options) == defaults
    if kind == "methods":
        assert plugin.lr > 0


# Tasks


def trained(folder: Path, name: str, group: Group, steps: int = 40) -> tuple[Trainer, list[float]]:
    settings = tiny.task_settings(folder, name, world_size=1, steps=steps, global_batch=16)
    spec = tiny.spec("full", lr=5e-3).model_copy(update={"settings": settings})
    trainer, recorder = train(spec, group)
    return trainer, recorder.values("loss")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_metrics_and_columns(name: str) -> None:
    """It has both losses and its headline, of quality, which leads somewhere, and two columns or
    more.
    """
    kind = registry.plugin("tasks", name)
    assert len(kind.columns) >= 2
    metrics = {metric.name: metric for metric in kind.metrics}
    assert {"train_loss", "test_loss", kind.headline} <= set(metrics)
    assert metrics[kind.headline].better in {"higher", "lower"}
    assert {metrics[name].group for name in ("train_loss", "test_loss", kind.headline)} == {
        "quality"
    }


@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_and_beats_chance(name: str, task_folder: Path, group: Group) -> None:
    """The loss falls by half, the headline ends better than chance and guess, and losses don't
    contradict answers.
    """
    of_tokens = (
        registry.plugin("tasks", name).target == "answer"
    )  # two, the end too, and out of a whole vocabulary
    trainer, losses = trained(task_folder, name, group, steps=120 if of_tokens else 40)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    rows = Rows(Path(prepare(trainer.settings).data) / "test", 0)
    evaluation, task = trainer.evaluate(rows, "test", trainer.steps), trainer.task
    guess = task.guess(rows.references)
    reached = evaluation.metrics[task.headline.removeprefix("test_")]
    sign = 1 if headline(task).better == "higher" else -1
    assert sign * reached > sign * guess.chance
    assert sign * reached > sign * guess.scores.mean()
    assert not task.contradicted(evaluation.predictions).any()


@pytest.mark.parametrize("name", TASKS)
def test_padding_changes_no_answer_of_a_task(name: str, task_folder: Path, group: Group) -> None:
    """Rows padded to the longest, further, or not at all have the same answers, and losses to
    rounding.
    """
    trainer, _ = trained(task_folder, name, group, steps=4)
    rows, model, task = trainer.validation, trainer.model.eval(), trainer.task
    index = np.arange(len(rows))
    batch = rows.batch(index)
    spare = [
        torch.nn.functional.pad(part, (0, 5), value=value) if part.dim() == 2 else part
        for part, value in ((batch.input_ids, 3), (batch.attention_mask, 0), (batch.labels, -100))
    ]

    def answered(
        ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
    ) -> tuple[list[Any], list[float]]:
        outputs = model(ids, mask, labels)
        answers = task.predict(outputs, labels).reshape(len(ids), -1)
        width = int(rows.lengths.max())
        full = torch.nn.functional.pad(answers, (0, max(0, width - answers.shape[1])))[:, :width]
        return full.tolist(), task.row_losses(outputs, labels).tolist()

    with torch.no_grad():
        together = answered(batch.input_ids, batch.attention_mask, batch.labels)
        further = answered(*spare)
        alone = [
            answered(b.input_ids, b.attention_mask, b.labels)
            for b in (rows.batch(index[i : i + 1]) for i in index)
        ]
    for answers, losses in (further, ([a[0][0] for a in alone], [a[1][0] for a in alone])):
        assert losses == pytest.approx(together[1], rel=1e-4, abs=1e-5)
        for found, expected in zip(kept(rows, answers), kept(rows, together[0]), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def kept(rows: Rows, answers: list[Any]) -> list[Any]:
    found = rows.answers(np.array(answers))
    return [np.atleast_1d(answer) for answer in found]


def headline(task: Task) -> Metric:
    return next(metric for metric in task.metrics if metric.name == task.headline)


@cache
def some_rows(folder: Path, name: str) -> tuple[Task, Rows]:
    settings = tiny.task_settings(folder, name)
    prepared = prepare(settings)
    rows = Rows(Path(prepared.data) / "test", prepared.pad_id)
    return make_task(settings.task, prepared.label_names, prepared.facts), rows


def answered(test: Rows, seed: int | None) -> Predictions:
    """Return predictions that are all right, or of which some are other rows' answers, brought
    to their length.
    """
    reference, rows = test.references, len(test)
    prediction: Any = reference
    order = np.arange(rows) if seed is None else np.random.default_rng(seed).permutation(rows)
    if seed is not None:
        taken = [reference[other] if row % 3 else reference[row] for row, other in enumerate(order)]
        if isinstance(reference, tuple):
            prediction = tuple(
                np.resize(answer, len(own)) for answer, own in zip(taken, reference, strict=True)
            )
        else:
            prediction = np.array(taken, dtype=reference.dtype)
    texts = None
    if test.has("expected"):
        expected = tuple(test.column("expected"))
        answers, none = tuple(expected[other] for other in order), np.zeros(rows, dtype=bool)
        texts = TextAnswers(
            ("",) * rows,
            expected,
            np.ones(rows),
            answers,
            tokens=np.ones(rows),
            cut=none,
            near_tie=none,
        )
    return Predictions(np.arange(rows), reference, prediction, np.linspace(0, 1, rows), texts)


@pytest.mark.parametrize("name", TASKS)
def test_scores_have_the_headline_as_their_mean(name: str, task_folder: Path) -> None:
    """A score a row, whose mean is exactly the headline metric, of right answers and of several
    kinds of wrong ones.
    """
    task, rows = some_rows(task_folder, name)
    for seed in (None, 0, 1, 2):
        predictions = answered(rows, seed)
        if task.probable_classes:
            sure = np.eye(task.probable_classes, dtype=np.float32)[predictions.prediction]
            predictions = dataclasses.replace(predictions, probabilities=sure)
        metrics, scores = task.evaluate(predictions), task.scores(predictions)
        assert {f"test_{key}" for key in metrics} == {metric.name for metric in task.metrics} - {
            "train_loss"
        }
        assert scores.shape == (len(rows),)
        assert (scores.dtype == bool) == task.binary
        assert scores.mean() == pytest.approx(
            metrics[task.headline.removeprefix("test_")], rel=1e-12, abs=1e-12
        )


@pytest.mark.parametrize("name", TASKS)
def test_right_answers_get_the_best_value(name: str, task_folder: Path) -> None:
    """The headline of perfect answers is the end of its bounds; wrong answers, guess and chance
    are worse.
    """
    task, rows = some_rows(task_folder, name)
    key, metric, guess = (
        task.headline.removeprefix("test_"),
        headline(task),
        task.guess(rows.references),
    )
    sign = 1 if metric.better == "higher" else -1
    best = metric.bounds[1 if metric.better == "higher" else 0]
    assert best is not None
    assert task.evaluate(answered(rows, None))[key] == pytest.approx(best)
    wrong = task.evaluate(answered(rows, 0))
    for worse in (wrong[key], guess.scores.mean(), guess.chance):
        assert sign * worse < sign * best
    for definition in task.metrics:
        value = wrong.get(definition.name.removeprefix("test_"))
        low, high = definition.bounds
        assert value is None or (low or -math.inf) <= value <= (math.inf if high is None else high)
    assert guess.sentence.endswith(".")
    assert guess.scores.shape == (len(rows),)
    assert np.isfinite(guess.scores).all()
    low, high = metric.bounds
    assert (low or 0) <= guess.chance <= (math.inf if high is None else high)


@pytest.mark.parametrize("name", TASKS)
def test_labels_come_back_from_disk(name: str, task_folder: Path) -> None:
    """What `encode` writes with `label_type` is what the ranks read: every row's own labels, in
    order.
    """
    settings = tiny.task_settings(task_folder, name)
    task, rows = some_rows(task_folder, name)
    loaded = draw(make_loader(settings).load(settings, task.target), settings)["test"]
    reference = rows.references
    assert len(loaded) == len(reference) == 25
    if rows.has("expected"):  # labels are tokens: of the text that stands beside them
        assert rows.column("expected") == [contents[-1] for contents in loaded["contents"]]
        return
    for row, expected in zip(reference, loaded[task.columns[0]], strict=True):
        assert np.array_equal(row, expected)


# Data sets

TYPES: dict[Target, tuple[str, type, str, type]] = {
    "class": ("text", str, "label", int),
    "number": ("text", str, "label", float),
    "tags": ("words", list, "tags", list),
    "answer": ("contents", list, "roles", list),
}
TASK_OF: dict[Target, str] = {registry.plugin("tasks", name).target: name for name in TASKS}
GIVEN = [
    (name, target)
    for name in registry.names("datasets")
    if name != "metamath"  # of two repositories, which its own tests lay out
    for target in registry.plugin("datasets", name).targets
]


def loaded(folder: Path, name: str, target: Target) -> LoadedData:
    from datasets import Dataset

    settings = tiny.task_settings(folder, TASK_OF[target], train_samples=24)
    file = settings.dataset.options["train"].removeprefix("path:")
    options: dict[str, Any] = {"text_files": {"train": f"path:{file}"}}.get(name, {})
    if name == "hub":
        repository = folder / f"hub-{target}"
        repository.mkdir(exist_ok=True)
        Dataset.from_json(file).to_parquet(repository / "train.parquet")
        options = {"dataset": f"path:{repository}", "test": None}
    settings = tiny.task_settings(
        folder, TASK_OF[target], train_samples=24, dataset={"name": name, "options": options}
    )
    return make_loader(settings).load(settings, target)


@pytest.mark.parametrize(("name", "target"), GIVEN)
def test_a_data_set_gives_the_columns_it_promises(
    name: str, target: Target, task_folder: Path
) -> None:
    """Enough rows, of the columns and types of the target, labels within the names, and the same
    ones again.
    """
    data = loaded(task_folder, name, target)
    text, text_type, label, label_type = TYPES[target]
    assert len(data.train) >= 24
    assert bool(data.label_names) == (target in {"class", "tags"})
    for split in (data.train, data.validation, data.test):
        for row in () if split is None else split:
            assert set(row) - {"choices", "place"} == {text, label}
            assert isinstance(row[text], text_type)
            assert isinstance(row[label], label_type)
            if target == "answer":
                assert row[label][-1] == "assistant"
                assert all(content.strip() for content in row[text])
            if target in {"tags", "answer"}:
                assert len(row[text]) == len(row[label]) > 0
                assert {type(word) for word in row[text]} == {str}
            indices = row[label] if target == "tags" else [row[label]]
            assert target in {"number", "answer"} or set(indices) <= set(
                range(len(data.label_names))
            )
    again = loaded(task_folder, name, target)
    assert again.train[:] == data.train[:]
    assert again.test[:] == data.test[:]


@pytest.mark.parametrize("name", registry.names("datasets"))
def test_a_data_set_without_the_tasks_target_is_refused(name: str, task_folder: Path) -> None:
    """A task that learns what the rows don't have ends in one sentence with both names."""
    lacking = sorted(set(TASK_OF) - set(registry.plugin("datasets", name).targets))
    for target in lacking:
        settings = tiny.task_settings(
            task_folder, TASK_OF[target], dataset={"name": name, "options": {}}
        )
        with pytest.raises(
            UserError, match=f"{name}.*{TASK_OF[target]} learns {IN_WORDS[target]}"
        ) as raised:
            prepare(settings)
        assert "\n" not in str(raised.value)


# Sections


@pytest.mark.parametrize("name", registry.names("sections"))
def test_a_section(name: str) -> None:
    """An order, and `section(results)`, or `sections(results)` which yields several."""
    module = registry.get("sections", name)
    assert module.__doc__
    assert isinstance(module.order, int)
    assert parameters(getattr(module, "sections", None) or module.section) == 1


# Probes


@pytest.mark.parametrize("name", registry.names("probes"))
def test_a_probe(name: str, tmp_path: Path) -> None:
    """It goes through a run, and what it returns at the end are metrics it defined."""
    probe = registry.plugin("probes", name)()
    run = probe_run.make_run(tmp_path)
    probe.start(run)
    probe.before_training()
    for index in (1, 2):
        probe.before_step(index)
        probe.after_backward(index)
    points = probe.after_steps([probe_run.step(1), probe_run.step(2)])
    probe.before_eval("validation")
    points += probe.after_eval(probe_run.evaluation("validation"))
    probe.after_training()
    probe.before_eval("test")
    probe.after_eval(probe_run.evaluation("test"))
    found = probe.stop()
    assert all(point.step >= 1 for point in points)
    assert set(found) <= {metric.name for metric in probe.definitions()}
    assert not probe.metrics or {m.name for m in probe.definitions()} <= {
        m.name for m in probe.metrics
    }
    for value in found.values():
        assert value is None or isinstance(float(value), float)


@pytest.mark.parametrize("name", registry.names("probes"))
def test_a_probe_goes_on_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    """It gives its state, and with it and all steps once more, at once, the same values as
    without a break; those that two runs without one share, but for the process's own memory.
    """
    plugin, run = registry.plugin("probes", name), probe_run.make_run(tmp_path)
    steps = [probe_run.step(index, seconds) for index, seconds in enumerate((3.0, 1.0, 2.0), 1)]

    def begun() -> Probe:
        probe: Probe = plugin()
        probe.start(run)
        probe.before_training()
        return probe

    def ended(probe: Probe) -> dict[str, Any]:
        probe.after_steps(steps[2:])
        probe.after_training()
        return probe.stop()

    def trained() -> Probe:
        probe = begun()
        for step in steps[:2]:
            probe.before_step(step.index)
            probe.after_backward(step.index)
            probe.after_steps([step])
        return probe

    state = trained().state()
    assert state is not None, f"{name} measures and has no hook `state`"
    resumed = begun()
    resumed.after_steps(steps[:2])
    resumed.load(json.loads(json.dumps(state)), 2)
    one, other, found = ended(trained()), ended(trained()), ended(resumed)
    assert set(found) == set(one)
    memory = {metric.name for metric in plugin.metrics if metric.group == "memory"}
    same = [key for key, value in one.items() if value == other[key] and key not in memory]
    assert {key: found[key] for key in same} == {key: one[key] for key in same}


def test_metrics_have_one_owner() -> None:
    """No name is defined twice, over all probes and each task; each has a definition and a
    format that formats.
    """
    own: list[Metric] = [
        m for name in registry.names("probes") for m in registry.plugin("probes", name).metrics
    ]
    for task in TASKS:
        metrics = [*own, *registry.plugin("tasks", task).metrics]
        assert len({metric.name for metric in metrics}) == len(metrics)
        for metric in metrics:
            assert metric.definition.endswith(".")
            assert metric.title
            assert format(1234.5, metric.format)


def test_importing_them_imports_nothing_heavy() -> None:
    """Help comes without libraries, and all files of all kinds, with what the command line
    needs, without big ones.
    """
    script = (
        "import sys; import hpml_bench; from hpml_bench import cli\n"
        f"def seen(*more): return [name for name in (*more, *{HEAVY}) if name in sys.modules]\n"
        "cli.main(['--help'], standalone_mode=False); early = seen('numpy', 'rich', 'pydantic', "
        "'yaml')\n"
        "from hpml_bench.cli.commands import list\n"
        "from hpml_bench.suite import registry, suite; from hpml_bench.records import folder\n"
        "from hpml_bench.system import environment\n"
        "for kind in registry.ONE:\n"
        "    for name in registry.names(kind): registry.get(kind, name)\n"
        "print(*early, *seen(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Commands:" in done.stdout
    assert done.stderr.split() == []


# Found by name

METHOD = "from hpml_bench.plugins.method import Method\nclass A(Method):\n    "


@pytest.fixture
def forget() -> Iterator[None]:
    yield
    plugin_packages.forget()


def test_a_file_of_ours_is_found_by_its_name() -> None:
    """What lies in the folder is registered, sorted, and comes as its module; an unknown name
    lists the known.
    """
    names = registry.names("methods")
    assert {"lora", "prompt_tuning", "adapter", "full", "head", "peft"} <= set(names)
    assert list(names) == sorted(names)
    assert registry.get("methods", "head").__name__ == "hpml_bench.builtin.methods.head"
    with pytest.raises(
        UserError, match=r"there is no data set 'nothing'; registered are .*text_files"
    ):
        registry.get("datasets", "nothing")


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module_here", "can't be imported: No module named 'no_such"),
        ("raise RuntimeError('needs a licence')", "can't be imported: needs a licence"),
        ("", "foreign_methods_third defines 0 classes"),
        (f"{METHOD}pass\nclass B(Method):\n    pass\n", "foreign_methods_third defines 2 classes"),
        (
            f"{METHOD}lr = 1.0\n    def build(self, backbone): return backbone\n",
            r"A lacks title \(docs/adding\.md\)",
        ),
        (f"{METHOD}title, lr = 'A', 1.0\n", r"A lacks build \(docs/adding\.md\)"),
        (f"{METHOD}lr = 1.0\n", r"A lacks build, title \(docs/adding\.md\)"),
        (
            f"{METHOD}title, lr = 'A', 1.0\n    def build(self): return None\n",
            r"A\.build takes \(\) and must take \(backbone\), as in hpml_bench\.plugins",
        ),
    ],
)
def test_a_module_that_is_no_plug_in_is_told(
    source: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name: what it raises when it is imported, how many classes it has, or what its class
    lacks, or which arguments a hook does.
    """
    plugin_packages.install(monkeypatch, tmp_path, "methods", third=source)
    with pytest.raises(UserError, match=f"method 'third'.*{says}"):
        registry.plugin("methods", "third")


@pytest.mark.usefixtures("forget")
def test_an_entry_point_is_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a function is told, with where it points."""
    odd = EntryPoint(name="odd", value="os:getcwd", group="hpml_bench.probes")
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [odd] if group == "hpml_bench.probes" else []
    )
    plugin_packages.forget()
    with pytest.raises(UserError, match="the probe 'odd' of os:getcwd is not a module"):
        registry.get("probes", "odd")
