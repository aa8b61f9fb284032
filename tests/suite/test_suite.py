"""A suite file, what may stand in it, and the runs it stands for."""

from pathlib import Path

import pytest

from helpers import tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import preparation
from hpml_bench.records.run import RunRecord
from hpml_bench.suite import suite as suites
from hpml_bench.suite.devices import resolve_suite
from hpml_bench.suite.registry import validate_options
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError

SUITE = """\
description: Small.
seeds: 2
settings:
  backbone: path:model
  dataset: {name: text_files, options: {train: path:rows.csv}}
  steps: 4
  global_batch: 8
methods:
  lora: {lr: 2e-3, options: {r: 4}}
  wide: {method: lora, options: {r: 32}}
  head: {}
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A suite file."""
    (tmp_path / "small.yaml").write_text(SUITE)
    return str(tmp_path / "small.yaml")


def fault(path: str | Path, *overrides: str) -> str:
    """Return the sentence that reading a suite, and listing its runs, ends with."""
    with pytest.raises(UserError) as caught:
        load_suite(str(path), overrides).runs()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_runs_are_methods_times_seeds(path: str) -> None:
    """Every method at every seed, once; same settings for all; each folder name its own; the
    name is the file's.
    """
    assert load_suite(path).name == "small"
    runs = load_suite(path).runs()
    assert [(run.method.name, run.seed) for run in runs] == [
        (name, seed) for seed in (0, 1) for name in ("lora", "wide", "head")
    ]
    assert len({run.run_id for run in runs}) == 6
    assert len({run.settings.model_dump_json() for run in runs}) == 1


def test_a_method_is_completed_with_its_defaults(path: str) -> None:
    """Options and learning rate left out are the method's own, and are written out in the
    specification.

    A method outside the suite can be asked for, and any PEFT type by its name.
    """
    lora, wide, head = (load_suite(path).method(name) for name in ("lora", "wide", "head"))
    assert (lora.lr, lora.options["r"]) == (2e-3, 4)
    assert (wide.method, wide.options["r"], wide.options["alpha"]) == (
        "lora",
        32,
        lora.options["alpha"],
    )
    assert head.lr > 0
    runs = load_suite(path).runs(["full", "peft:IA3"], seeds=[7])
    methods = [(run.method.name, run.method.method, run.seed) for run in runs]
    assert methods == [("full", "full", 7), ("peft:IA3", "peft", 7)]
    assert runs[1].method.options["type"] == "IA3"


def test_an_override_reaches_settings_options_and_methods(path: str) -> None:
    """`--set` takes settings by their short name, and dotted keys of the suite; values are YAML.

    Setting one of the two budgets drops the suite's other, and an empty one changes nothing; None,
    an option that is not given, leaves the suite's value.
    """
    overrides = ["max_length=64", "dataset.options.separator='; '", "methods.lora.lr=1e-4"]
    changed = load_suite(path, [*overrides, "settings.eps=1e-6", "clip_norm=null"])
    assert changed.settings.max_length == 64
    assert changed.settings.dataset.options["separator"] == "; "
    assert changed.methods["lora"].lr == 1e-4
    assert (changed.settings.eps, changed.settings.clip_norm) == (1e-6, None)
    for override, steps in (("epochs=3", None), ("steps=9", 9), ("epochs=null", 4)):
        assert load_suite(path, [override]).settings.steps == steps
    changed = load_suite(path, seeds=None, world_size=4, device=None)
    assert (changed.seeds, changed.settings.world_size, changed.settings.device) == (2, 4, "auto")


def test_paths_are_relative_to_the_suite_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`path:` in a file starts at that file; in `--set` at the working folder; below `~` it is
    the user's.
    """
    folder = Path(path).parent
    monkeypatch.chdir(Path("/"))
    loaded = load_suite(path, ["dataset.options.test=path:etc/rows.csv"])
    assert loaded.settings.backbone == f"path:{folder / 'model'}"
    assert loaded.settings.dataset.options == {
        "train": f"path:{folder / 'rows.csv'}",
        "test": "path:/etc/rows.csv",
    }
    monkeypatch.setenv("HOME", str(folder / "home"))
    Path(path).write_text(SUITE.replace("path:model", "path:~/model"))
    assert load_suite(path).settings.backbone == f"path:{folder}/home/model"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train_sample=4", ["train_sample", "did you mean train_samples?"]),
        (
            "settings.global_bath=4",
            ["settings.global_bath", "did you mean global_batch?", "allowed"],
        ),
        ("max_length=long", ["settings.max_length is 'long', and must be a whole number"]),
        ("micro_batch=x", ["settings.micro_batch is 'x', and must be a whole number or 'auto'"]),
        (
            "methods.lora.options.target=3",
            ["target is 3, and must be text (in quotes) or a list, as [a, b]"],
        ),
        ("methods.lora.options.target=[1]", ["target.0 is 1, and must be text (in quotes)"]),
        ("margin.quality=-1", ["margin.quality is -1, and must be more than 0"]),
        ("device=tpu", ["settings.device", "'tpu'", "'cpu'", "'cuda'"]),
        ("steps=0", ["settings.steps", "0"]),
        ("seeds=0", ["seeds", "0"]),
        ("dropout=1.0", ["settings.dropout"]),
        ("steps", ["steps", "KEY=VALUE"]),
        ("=4", ["KEY=VALUE"]),
        ("steps=[", ["--set steps=[", "YAML"]),
        ("steps.of=4", ["steps", "no keys of its own"]),
        ("methods.lora.options.rank=4", ["lora", "rank", "allowed: r,"]),
        ("methods.lora.lr=-1", ["methods.lora", "lr", "-1"]),
        ("methods.none_such.lr=1", ["none_such", "choose from"]),
        ("world_size=3", ["global_batch 8", "3 ranks", "--nproc"]),
        ("train_samples=4", ["train_samples 4", "global_batch of 8"]),
        ("name=../up", ["name", "../up"]),
    ],
)
def test_a_wrong_override_is_one_sentence(path: str, override: str, words: list[str]) -> None:
    """The key, the value and what is allowed, and a hint at the key that was meant."""
    message = fault(path, override)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("just words", ["mapping"]),
        ("a: [1", ["line", "YAML"]),
        ("settings: {steps: 3}\nmethods: {}", ["settings.backbone is missing"]),
        (SUITE.replace("steps: 4", "steps: 4\n  epochs: 1"), ["exactly one of epochs and steps"]),
        (SUITE.replace("  steps: 4\n", ""), ["exactly one of epochs and steps"]),
        (
            SUITE.replace("backbone:", "backbon:"),
            ["settings.backbon is not known", "did you mean backbone?"],
        ),
        (SUITE.replace("seeds:", "seed:"), ["seed is not known", "did you mean seeds?"]),
        (SUITE + "  lorra: {}\n", ["lorra", "choose from"]),
        (b"\xff\xfe\x00", ["can't be read"]),
        (b" " * 20_000_000, ["at most"]),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_name(
    text: str | bytes, words: list[str], tmp_path: Path
) -> None:
    """The file is named, and the line or the key; a binary file is not read as a suite."""
    file = tmp_path / "wrong.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = fault(file)
    assert [word for word in ("wrong", *words) if word not in message] == []


def test_an_unknown_suite_names_the_known() -> None:
    """The sentence lists the packaged suites."""
    message = fault("no-such-suite")
    assert all(name in message for name in ("no-such-suite", *suites.packaged_suites()))


@pytest.mark.parametrize("name", suites.packaged_suites())
def test_packaged_suites_are_valid(name: str) -> None:
    """Each file that comes with the package validates, describes itself, and its methods'
    options do too.
    """
    packaged = load_suite(name)
    assert packaged.name == name
    assert packaged.description
    once = "none" in packaged.methods  # answers alike with every seed
    assert len(packaged.runs()) == packaged.seeds * (len(packaged.methods) - once) + once
    for kind, spec in (("tasks", packaged.settings.task), ("datasets", packaged.settings.dataset)):
        assert validate_options(kind, spec.name, spec.options, name)


@pytest.mark.parametrize(
    ("options", "seeds"),
    [
        ({}, {"none": [0], "lora": [0, 1, 2]}),
        ({"scorer": "exact", "temperature": 0.7}, {"none": [0, 1, 2], "lora": [0, 1, 2]}),
    ],
)
def test_a_method_that_answers_alike_has_one_run(
    options: dict[str, object], seeds: dict[str, list[int]]
) -> None:
    """The base model of a language model's task, unless answers are sampled; a single seed is
    run as it is given.
    """
    suite = load_suite(
        "chat", seeds=3, settings={"task": {"name": "causal_lm", "options": options}}
    )
    found: dict[str, list[int]] = {}
    for spec in suite.runs(["none", "lora"]):
        found.setdefault(spec.method.name, []).append(spec.seed)
    assert found == seeds
    assert [spec.seed for spec in suite.runs(["none"], [2])] == [2]


# The embedded suites: pretraining matters, as in life, and every kind of task is learnt


def run(folder: Path, prepared: Prepared, suite: str = "quickstart") -> RunRecord:
    """Do a suite's LoRA run, at full budget."""
    (spec,) = resolve_suite(load_suite(suite)).runs(["lora"], [0])
    record = tiny.run(spec, prepared, folder)
    assert record.status == "ok", record.error
    return record


@pytest.mark.suites
def test_the_pretrained_backbone_beats_a_random_one(tmp_path: Path) -> None:
    """At the same budget the pretrained weights are worth at least 15 points, and nothing beats
    the best possible.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    prepared = preparation.prepare(resolve_suite(load_suite("quickstart")).settings)
    random = tmp_path / "random"
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(prepared.backbone)).save_pretrained(random)

    pretrained = run(tmp_path / "a", prepared)
    scratch = run(tmp_path / "b", prepared.model_copy(update={"backbone": str(random)}))

    gain = (pretrained.metrics["test_accuracy"] or 0) - (scratch.metrics["test_accuracy"] or 1)
    assert gain >= 0.15
    best = float(pretrained.notes["best possible accuracy"].split("%")[0].split()[-1]) / 100
    assert (pretrained.metrics["test_accuracy"] or 1) < best + 0.02


@pytest.mark.suites
@pytest.mark.parametrize(
    ("suite", "metric", "low", "high"),
    [("regression", "rmse", 0.8, 1.8), ("tagging", "f1", 0.7, 1), ("chat", "score", 0.7, 0.99)],
)
def test_other_kinds_of_task_are_learnt(
    suite: str, metric: str, low: float, high: float, tmp_path: Path
) -> None:
    """LoRA is better than chance (an RMSE of 2.2, else 0), no better than possible, and its sums
    agree.
    """
    prepared = preparation.prepare(resolve_suite(load_suite(suite)).settings)
    record = run(tmp_path, prepared, suite)
    assert record.headline == f"test_{metric}"
    assert all(check.passed for check in record.checks)
    assert low < (record.metrics[f"test_{metric}"] or 0) < high
