"""`hpml-bench init`: from a model and rows of each kind to a suite that runs unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers import starters
from hpml_bench.cli import main
from hpml_bench.fit.predict import gigabytes
from hpml_bench.records.load import load_records
from hpml_bench.suite.suite import Suite, load_suite
from hpml_bench.system import gpus

pytestmark = pytest.mark.usefixtures("without_estimates")
KINDS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "sequence_classification": ("rows.csv", starters.classes),
    "regression": ("rows.csv", starters.numbers),
    "token_classification": ("rows.jsonl", starters.tags),
    "causal_lm": ("rows.jsonl", starters.messages),
}
"""Task -> the name of the file, and the function that writes its rows."""


@pytest.fixture(scope="module")
def made(bert: Path, llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Task -> the suite that `init` writes for rows of its kind, beside them: with estimates for a language model."""
    found = {}
    for task, (name, write) in KINDS.items():
        folder = tmp_path_factory.mktemp(task)
        found[task] = folder / "made.yaml"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gpus, "visible_gpus", lambda: ())
            if task != "causal_lm":
                starters.leave_out_estimates(patch)
            made = init(llama if task == "causal_lm" else bert, write(folder / name), out=found[task])
        suite(made, found[task])
    return found


def init(model: Path | str, *data: Path | str, out: Path | None = None) -> Result:
    """Call the command."""
    words = ["init", "--model", str(model), "--data", *map(str, data), *([] if out is None else ["--out", str(out)])]
    return CliRunner().invoke(main, words)


def suite(result: Result, file: Path) -> Suite:
    """Return the suite that was written, after checking that it was."""
    assert result.exit_code == 0, result.output
    return load_suite(str(file))


@pytest.mark.parametrize("task", KINDS)
def test_a_suite_runs_as_it_was_written(task: str, made: dict[str, Path], tmp_path: Path) -> None:
    """Of each kind of work: the task is found, paths are absolute, and `run-all` trains with it."""
    file = made[task]
    found = load_suite(str(file))
    assert found.settings.task.name == task
    assert found.settings.dataset.options["train"] == f"path:{file.parent / KINDS[task][0]}"
    budget = ["--methods", "lora", "--seeds", "1", "--nproc", "1", "--device", "cpu"]
    settings = ["steps=1", "latency_samples=0", "train_samples=32", "validation_samples=2", "test_samples=4"]
    settings += ["task.options.max_new_tokens=1"] if task == "causal_lm" else []
    budget += [word for setting in settings for word in ("--set", setting)]
    done = CliRunner().invoke(main, ["run-all", str(file), "--out", str(tmp_path / "out"), "--wandb", "off", *budget])
    assert done.exit_code == 0, done.output
    assert [record.status for record in load_records(tmp_path / "out" / "made").records] == ["ok"]


def test_memory_is_what_fit_predicts(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method's peak as `hpml-bench fit` gives it for the written suite."""
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ())
    file = made["causal_lm"]
    said = " ".join(line.strip("# ") for line in file.read_text().splitlines())
    predicted = CliRunner().invoke(main, ["fit", str(file), "--json"])
    each = ", ".join(f"{need['method']} {gigabytes(need['peak'])}" for need in json.loads(predicted.stdout))
    assert each.count(", ") == 2
    assert f"predicted for the longest batch: {each}. Here: " in said
    assert f"hpml-bench fit {file} shows its parts" in said


def text_of(model: Path | str, *data: Path | str) -> str:
    """Return the suite that is printed, after checking that it loads."""
    result = init(model, *data)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("task", KINDS)
def test_each_choice_has_a_reason(task: str, made: dict[str, Path]) -> None:
    """A comment stands beside or above every key that holds a value."""
    bare = [
        line.strip()
        for before, line in pairwise(made[task].read_text().splitlines())
        if re.search(r"^\s*[\w]+: .", line) and "  # " not in line and not before.lstrip().startswith("#")
    ]
    assert bare == ["name: text_files", f"train: path:{made[task].parent / KINDS[task][0]}"]


@pytest.mark.parametrize("task", ["sequence_classification", "causal_lm"])
def test_methods_that_are_comments_can_be_taken(task: str, made: dict[str, Path], tmp_path: Path) -> None:
    """Without the # before them the suite has them all; every method with a rate says where it comes from."""
    text = made[task].read_text()
    assert len(re.findall(r"\bRate: ", text.partition("\nmethods:\n")[2])) == text.count("{lr:") + text.count(", lr:")
    (tmp_path / "all.yaml").write_text(re.sub(r"^  # (\w+: \{)", r"  \1", text, flags=re.MULTILINE))
    found = load_suite(str(tmp_path / "all.yaml"))
    assert len(found.methods) == 6 + (task == "causal_lm")
    assert {spec.method.name: spec.method.lr for spec in found.runs(seeds=[0])}["ia3"] == 3e-3


def test_lengths_are_those_of_the_models_tokenizer(bert: Path, tmp_path: Path) -> None:
    """Median, 99th percentile and maximum by hand: words and the end token; `max_length` cuts one row in a hundred."""
    lengths = [10] * 197 + [20, 20, 90]
    rows = [f"{' '.join(['bank'] * (length - 1))},{('a', 'b')[row % 2]}" for row, length in enumerate(lengths)]
    file = tmp_path / "a.csv"
    file.write_text("\n".join(["text,label", *rows]) + "\n")
    test = tmp_path / "a_test.csv"
    test.write_text("text,label\nbank goal,a\nbank match,b\n")
    file = file.rename(tmp_path / "a_train.csv")
    text = " ".join(line.strip(" #") for line in text_of(bert, file, test).splitlines())
    assert "200 training rows have 10 tokens in the median, 20 at the 99th percentile and 90 at most" in text
    assert "1 (0.5 %) is longer than 24, and cut at the end." in text
    assert "max_length: 24" in text


def test_files_become_splits_by_their_names_else_by_their_places(bert: Path, tmp_path: Path) -> None:
    """The reason says which; a name that none can read is asked for in a sentence."""
    files = {
        name: starters.classes(tmp_path / f"{name}.csv", 40) for name in ("my-dev", "my-test", "my-train", "x", "y")
    }
    text = text_of(bert, files["my-dev"], files["my-train"], files["my-test"])
    assert f"train: path:{files['my-train']}" in text
    assert text.count("# by the file's name") == 3
    assert f"test: path:{files['my-test']}" in text
    assert f"validation: path:{files['my-dev']}" in text
    text = text_of(bert, files["x"], files["y"])
    assert f"train: path:{files['x']}" in text
    assert f"test: path:{files['y']}" in text
    assert "by its place among the files given" in text
    for given, says in [
        (("my-test", "my-dev"), "none of 'test', 'validation' is a file of training rows; name one"),
        (("x", "x"), "is given twice"),
        (("x", "y", "my-dev", "my-test"), "4 files are given; join them"),
    ]:
        result = init(bert, *(files[name] for name in given))
        assert result.exit_code == 2
        assert says in result.stderr


@pytest.mark.parametrize(("answers", "scorer", "tokens"), [
    (["bank", "goal"], "exact", 8),
    (["rates #### 7", "goal #### 1,000"], "number", 8),
    (["the bank rose " * 5, "the goal won " * 5], "rouge_l", 16),
])  # fmt: skip
def test_the_scorer_suits_the_answers(
    answers: list[str], scorer: str, tokens: int, llama: Path, tmp_path: Path
) -> None:
    """Numbers are compared as such, short answers as a whole, long ones by words; their length limits generation."""
    rows = [{"prompt": text, "completion": answers[row % 2].strip()} for row, text in enumerate(starters.texts(60))]
    file = tmp_path / "made.yaml"
    options = suite(init(llama, starters.jsonl(tmp_path / "a.jsonl", rows), out=file), file).settings.task.options
    assert (options["scorer"], options["max_new_tokens"]) == (scorer, tokens)


def test_without_its_package_a_scorer_is_only_named(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite that is written runs here: long answers are then compared by f1."""
    monkeypatch.setattr("hpml_bench.starter.kinds.find_spec", lambda _: None)
    rows = [{"prompt": text, "completion": "the bank rose again and won"} for text in starters.texts(60)]
    text = text_of(llama, starters.jsonl(tmp_path / "a.jsonl", rows))
    assert "scorer: f1" in text
    assert "pip install 'rouge-score" in text


def test_a_template_that_changes_earlier_answers_learns_each_by_itself(tmp_path: Path) -> None:
    """As `run-all` would refuse all answers of such a template together: the suite says each, and why."""
    dropping = starters.CHAT.replace(
        "{{ m.content }}", "{{ m.content if loop.last or m.role != 'assistant' else 'share' }}"
    )
    model = starters.llama(tmp_path / "model", dropping)
    text = text_of(model, starters.messages(tmp_path / "a.jsonl"))
    assert "loss_on: each" in text
    assert "writes earlier answers differently" in text


@pytest.mark.parametrize(
    ("answer", "thinks"), [({}, "false"), ({"reasoning_content": "so"}, "true"), ({"content": "so </think> b"}, "true")]
)
def test_a_model_that_can_think_does_where_rows_have_reasoning(
    answer: dict[str, str], thinks: str, tmp_path: Path
) -> None:
    """As an option of the template, with what it means; templates without it get none."""
    think = starters.CHAT.replace("<|assistant|>{%", "<|assistant|>{{ 'won' if not enable_thinking else '' }}{%")
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "b", **answer}]}
        for text in starters.texts(40)
    ]
    file = starters.jsonl(tmp_path / "a.jsonl", rows)
    text = text_of(starters.llama(tmp_path / "model", think), file)
    assert f"template_options: {{enable_thinking: {thinks}}}" in text
    assert "needs a larger max_new_tokens" in text
    assert "template_options" not in text_of(starters.llama(tmp_path / "plain"), file)


def test_an_encoder_cannot_answer(bert: Path, tmp_path: Path) -> None:
    """Conversations with a model that reads both ways are refused, with what to give instead."""
    result = init(bert, starters.messages(tmp_path / "a.jsonl"))
    assert result.exit_code == 2
    assert "reads both ways and can't answer; give a model that generates" in result.stderr


def test_a_column_of_prompts_beside_a_label_is_a_matter_of_the_model(bert: Path, llama: Path, tmp_path: Path) -> None:
    """A language model learns to answer and the suite names the other choice; an encoder learns the label."""
    rows = [
        {"question": text, "answer": "bank", "topic": ("a", "b")[row % 2]}
        for row, text in enumerate(starters.texts(60))
    ]
    file = starters.jsonl(tmp_path / "a.jsonl", rows)
    assert "Column 'topic' could be learnt instead" in " ".join(text_of(llama, file).split())
    assert "name: sequence_classification" in text_of(bert, file)


@pytest.mark.parametrize(("name", "values", "task"), [
    ("label", [1, 2, 3], "sequence_classification"),
    ("stars", [1, 2, 3], "regression"),
    ("label", [0.5, 1.5, 2], "regression"),
    ("label", list(range(30)), "regression"),
    ("kind", ["x", "y"], "sequence_classification"),
])  # fmt: skip
def test_numbers_are_classes_or_a_scale(name: str, values: list[object], task: str, bert: Path, tmp_path: Path) -> None:
    """Few whole numbers are classes, unless the column's name is that of a scale; the comment names the other."""
    rows = [{"text": text, name: values[row % len(values)]} for row, text in enumerate(starters.texts(90))]
    text = text_of(bert, starters.jsonl(tmp_path / "a.jsonl", rows))
    assert f"name: {task}" in text
    if isinstance(values[0], int | float):
        other = {"regression": "sequence_classification", "sequence_classification": "regression"}[task]
        assert f"task: {other}" in " ".join(text.split())


def test_sources_of_models(tmp_path: Path) -> None:
    """A model that comes with the package runs too; one that nobody has is one sentence."""
    rows = starters.classes(tmp_path / "a.csv", 60)
    text = text_of("embedded:newswire-gpt2", rows)
    assert "backbone: embedded:newswire-gpt2" in text
    assert "pooling: last" in text
    result = init("nowhere", rows)
    assert result.exit_code == 2
    assert "there is no such file or folder" in result.stderr


def test_a_repository_of_a_data_set_is_read_by_its_splits(bert: Path, tmp_path: Path) -> None:
    """A copy of one: splits by their names, a missing one is split off."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("train", "validation"):
        starters.classes(folder / f"{name}.csv", 60)
    file = tmp_path / "made.yaml"
    options = suite(init(bert, folder, out=file), file).settings.dataset.options
    assert options["dataset"] == f"path:{folder}"
    assert (options["train"], options["validation"], options["test"]) == ("train", "validation", None)


def test_a_suite_is_not_overwritten(bert: Path, tmp_path: Path) -> None:
    """A file that is there, or can't be a suite's, is refused before the model is looked at."""
    rows = starters.classes(tmp_path / "a.csv", 40)
    (tmp_path / "there.yaml").write_text("mine")
    for name, says in [("there.yaml", "there is such a file"), ("a b.txt", "the file's name becomes the suite's")]:
        result = init(bert, rows, out=tmp_path / name)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"hpml-bench: --out {tmp_path / name}")
        assert says in result.stderr
    assert (tmp_path / "there.yaml").read_text() == "mine"


def test_prompts_are_cut_where_many_rows_are_too_long(llama: Path, tmp_path: Path) -> None:
    """More rows than a tenth would be left out: a model of 256 positions still learns their answers."""
    rows = [{"prompt": " ".join([text] * 60), "completion": "bank goal"} for text in starters.texts(60)]
    text = " ".join(text_of(llama, starters.jsonl(tmp_path / "a.jsonl", rows)).replace("#", "").split())
    assert "too_long: cut_prompt" in text
    assert "60 (1e+02 %)" not in text
    assert re.search(r"\(100 %\) are longer than 224, and their prompts are cut at the front", text)
